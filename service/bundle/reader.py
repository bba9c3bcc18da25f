"""Opens a bundle: every file verified, every array mapped and checked to mean what its role says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from service.bundle.arrays import map_array, stream_rows
from service.bundle.files import read_manifest, verify_hashes
from service.bundle.hnsw_file import GraphFile, check_hnsw_file
from service.bundle.ids import Ids, IntIds, StrIds
from service.bundle.manifest import MANIFEST, Manifest, ModelEntry
from service.bundle.text import TextColumn
from service.bundle.tower_file import TOWER_ROLES, TowerFile, read_tower
from service.bundle.two_stage import STATIC_ROLES, TREE_DTYPES, TreeArrays, settings_of
from service.bundle.values import Values, values_of
from service.domain import ItemRows
from service.errors import BundleRefused
from service.native import first_twin

Array = npt.NDArray[Any]

_REQUIRED = {
    "popular": {"indptr", "items", "scores", "user_segment"},
    "factors": {"item_rows", "item_vectors", "user_rows", "user_vectors"},
    "lists": {"indptr", "items", "scores"},
    "two_stage": set(TREE_DTYPES),
}
MAX_NORM = 1e15
"""Above it an inner product of two vectors may leave float32."""
_QUICK_ROUNDING = 1e-4
"""Of the Gram matrix noted in single precision, at its very most; see `Values`."""
_CELLS = {"cell_centroids", "cell_starts"}
_ITEM_ITEM = ({"dense"}, {"indptr", "indices", "weights"})
_DTYPES = {
    "indptr": "<i8", "items": "<i4", "scores": "<f4", "user_segment": "<i4", "item_rows": "<i4", "item_vectors": "<f4",
    "user_rows": "<i4", "user_vectors": "<f4", "dense": "<f4", "indices": "<i4", "weights": "<f4", "gram": "<f4",
}  # fmt: skip

_PRECOMPUTED = frozenset({"precomputed_indptr", "precomputed_items", "precomputed_scores"})
_HISTORY = ("history_indptr", "history_items")
_BLOCK_ROWS = 1 << 12


@dataclass(frozen=True, slots=True)
class Attribute:
    """One item attribute. Item row r has `values[codes[indptr[r]:indptr[r + 1]]]`."""

    values: tuple[str, ...]
    indptr: npt.NDArray[np.int64]
    codes: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Golden:
    """Questions with known answers: exact search's best item rows for some user rows, best first."""

    user_rows: tuple[int, ...]
    item_rows: tuple[tuple[int, ...], ...]
    scores: tuple[tuple[float, ...], ...]
    hnsw_item_rows: tuple[tuple[int, ...], ...]
    """What the graph index answered when it was built; empty without one."""
    ivf_item_rows: tuple[tuple[int, ...], ...] = ()
    """What the nearest cells held; empty without cells."""

    @property
    def approximate(self) -> tuple[tuple[int, ...], ...]:
        """All answers that needn't be exact search's."""
        return self.hnsw_item_rows + self.ivf_item_rows


@dataclass(frozen=True, slots=True, repr=False)
class ModelData:
    """One model's entry and its mapped arrays by role."""

    name: str
    entry: ModelEntry
    arrays: Mapping[str, Array]
    index: GraphFile | None
    golden: Golden | None
    tower: TowerFile | None = None

    def __repr__(self) -> str:
        return f"<ModelData {self.name}: {self.entry.kind}>"


@dataclass(frozen=True, slots=True, repr=False)
class Bundle:
    """A verified bundle, mapped. history: CSR by user row of item rows, unique, oldest first."""

    path: Path
    manifest: Manifest
    user_ids: Ids
    item_ids: Ids
    history_indptr: npt.NDArray[np.int64]
    history_items: ItemRows
    titles: Sequence[str] | None
    attributes: Mapping[str, Attribute]
    models: Mapping[str, ModelData]
    _history_starts: memoryview = field(init=False, compare=False)
    """The same as `history_indptr`: reading it gives plain integers, no numpy scalars."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_history_starts", np.ascontiguousarray(self.history_indptr).data)

    def __repr__(self) -> str:
        return f"<Bundle {self.bundle_id}>"

    @property
    def bundle_id(self) -> str:
        """Identity of the content."""
        return self.manifest.bundle_id

    def history_of(self, user_row: int) -> ItemRows:
        """Item rows of a user's known events, unique, oldest first."""
        starts = self._history_starts
        history: ItemRows = self.history_items[starts[user_row] : starts[user_row + 1]]
        return history


class _FoldIn(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    regularization: Annotated[float, Field(ge=0)]
    alpha: Annotated[float, Field(gt=0)]
    half_life: Annotated[float, Field(gt=0)] | None = None


def load_bundle(path: Path) -> Bundle:
    """Verify, then parse, then check meaning. Raises BundleRefused naming the file and the reason."""
    manifest = read_manifest(path)
    noted = values_of(manifest)
    verify_hashes(path, manifest, noted)
    if path.name != manifest.bundle_id:
        raise BundleRefused(MANIFEST, f"bundle_id is {manifest.bundle_id}, the folder is called {path.name}")
    return _Reader(path, manifest, noted).read()


class _Reader:
    """Walks one verified directory. Each method names the file it refuses."""

    def __init__(self, path: Path, manifest: Manifest, noted: Mapping[str, Values]) -> None:
        self.path, self.manifest, self.noted = path, manifest, noted
        self.n_users = self.n_items = 0

    def read(self) -> Bundle:
        catalogue = self.manifest.catalogue
        user_ids = self._ids("user_ids", self.manifest.user_id_kind)
        item_ids = self._ids("item_ids", self.manifest.item_id_kind)
        self.n_users, self.n_items = len(user_ids), len(item_ids)
        if self.n_items == 0:
            raise BundleRefused(MANIFEST, "the catalogue is empty")
        indptr, items = self._csr(
            catalogue, "history_indptr", "history_items", rows=self.n_users, width=self.n_items, unique=True
        )
        popular = [name for name, entry in self.manifest.models.items() if entry.kind == "popular"]
        if "popular" not in popular:
            raise BundleRefused(
                MANIFEST, "no model 'popular' of kind popular: there would be nothing to fall back to"
            )
        golden = self._golden()
        return Bundle(
            path=self.path,
            manifest=self.manifest,
            user_ids=user_ids,
            item_ids=item_ids,
            history_indptr=indptr,
            history_items=items,
            titles=self._titles(),
            attributes=self._attributes(),
            models={
                name: self._model(name, entry, golden.get(name))
                for name, entry in self.manifest.models.items()
            },
        )

    # -- files ----------------------------------------------------------------------------------------------

    def _name(self, files: Mapping[str, str], role: str) -> str:
        if role not in files:
            raise BundleRefused(MANIFEST, f"no file for {role!r}")
        if files[role] not in self.manifest.files:
            raise BundleRefused(MANIFEST, f"{role!r} names {files[role]!r}, which is not among the files")
        return files[role]

    def _array(
        self,
        files: Mapping[str, str],
        role: str,
        dtype: str,
        shape: tuple[int | None, ...],
        *,
        gaps: bool = False,
    ) -> Array:
        """Map a role's array; `shape` has None where any size will do, `gaps` lets NaN stand for the unknown."""
        name = self._name(files, role)
        array = map_array(self.path / name, name, self.manifest.files[name], self.noted.get(name), gaps=gaps)
        if array.dtype.str != dtype:
            raise BundleRefused(name, f"{role} must be {dtype}, not {array.dtype.str}")
        if len(array.shape) != len(shape) or any(
            want not in (None, got) for want, got in zip(shape, array.shape, strict=True)
        ):
            wanted = ["any" if size is None else size for size in shape]
            raise BundleRefused(name, f"{role} must have shape {wanted}, not {list(array.shape)}")
        return array

    def _json(self, name: str) -> Any:
        try:
            return orjson.loads((self.path / name).read_bytes())
        except orjson.JSONDecodeError as error:
            raise BundleRefused(name, f"not JSON: {error}") from error

    # -- what all models share ------------------------------------------------------------------------------

    def _ids(self, role: str, kind: str) -> Ids:
        files = self.manifest.catalogue
        try:
            if kind == "int64":
                return IntIds(self._array(files, f"{role}_values", "<i8", (None,)))
            return StrIds(
                self._array(files, f"{role}_blob", "|u1", (None,)),
                self._array(files, f"{role}_offsets", "<i8", (None,)),
            )
        except ValueError as error:
            raise BundleRefused(
                self._name(files, f"{role}_values" if kind == "int64" else f"{role}_blob"), str(error)
            ) from error

    def _csr(
        self,
        files: Mapping[str, str],
        indptr_role: str,
        items_role: str,
        *,
        rows: int | None,
        width: int,
        unique: bool = False,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        indptr = self._array(files, indptr_role, "<i8", (None if rows is None else rows + 1,))
        items = self._array(files, items_role, "<i4", (None,))
        name = self._name(files, indptr_role)
        if (
            len(indptr) == 0
            or indptr[0] != 0
            or indptr[-1] != len(items)
            or bool((np.diff(indptr) < 0).any())
        ):
            raise BundleRefused(
                name, f"must not fall, and run from 0 to the {len(items)} entries of {items_role}"
            )
        name = self._name(files, items_role)
        if len(items) and not (int(items.min()) >= 0 and int(items.max()) < width):
            raise BundleRefused(name, f"an entry is outside 0..{width - 1}")
        if unique:
            twice = first_twin(indptr, items, width)
            if twice is not None:
                raise BundleRefused(name, f"row {twice} lists an item twice")
        return indptr, items

    def _titles(self) -> Sequence[str] | None:
        files = self.manifest.catalogue
        if "titles_blob" not in files:
            return None
        blob = self._array(files, "titles_blob", "|u1", (None,))
        offsets = self._array(files, "titles_offsets", "<i8", (self.n_items + 1,))
        try:
            return TextColumn(blob, offsets)
        except ValueError as error:
            raise BundleRefused(self._name(files, "titles_blob"), str(error)) from error

    def _attributes(self) -> dict[str, Attribute]:
        files = self.manifest.catalogue
        if "attributes" not in files:
            return {}
        name = self._name(files, "attributes")
        try:
            vocabularies = TypeAdapter(dict[str, list[str]]).validate_python(self._json(name), strict=True)
        except ValidationError as error:
            raise BundleRefused(
                name, f"must map attribute names to lists of values: {error.errors()[0]['msg']}"
            ) from error
        attributes = {}
        for number, (attribute, values) in enumerate(vocabularies.items()):
            indptr, codes = self._csr(
                files,
                f"attribute_{number}_indptr",
                f"attribute_{number}_codes",
                rows=self.n_items,
                width=max(len(values), 1),
            )
            attributes[attribute] = Attribute(tuple(values), indptr, codes)
        return attributes

    def _golden(self) -> dict[str, Golden]:
        name = self._name({"golden": self.manifest.golden}, "golden")
        try:
            golden = TypeAdapter(dict[str, Golden]).validate_python(self._json(name))
        except ValidationError as error:
            raise BundleRefused(name, f"golden queries: {error.errors()[0]['msg']}") from error
        for model, queries in golden.items():
            if model not in self.manifest.models:
                raise BundleRefused(name, f"golden queries for {model!r}, which is not among the models")
            rows = [row for answers in (*queries.item_rows, *queries.approximate) for row in answers]
            if any(not 0 <= row < self.n_users for row in queries.user_rows) or any(
                not 0 <= r < self.n_items for r in rows
            ):
                raise BundleRefused(name, f"golden queries of {model!r}: a row is out of range")
            if not len(queries.user_rows) == len(queries.item_rows) == len(queries.scores):
                raise BundleRefused(
                    name, f"golden queries of {model!r}: as many answers as questions are needed"
                )
            for answered, what in ((queries.hnsw_item_rows, "index"), (queries.ivf_item_rows, "cells")):
                if len(answered) not in (0, len(queries.user_rows)):
                    raise BundleRefused(
                        name, f"golden queries of {model!r}: the {what} answered only some of them"
                    )
            for items, scores in zip(queries.item_rows, queries.scores, strict=True):
                if not len(items) == len(scores) > 0:
                    raise BundleRefused(
                        name, f"golden queries of {model!r}: an answer without items or scores"
                    )
        return golden

    # -- models ---------------------------------------------------------------------------------------------

    def _model(self, name: str, entry: ModelEntry, golden: Golden | None) -> ModelData:
        read: dict[str, Callable[[ModelEntry], dict[str, Array]]] = {
            "popular": self._popular,
            "factors": self._factors,
            "item_item": self._item_item,
            "lists": self._lists,
            "two_stage": partial(self._two_stage, name),
        }
        roles = set(entry.files) - {"index", "gram"}
        if entry.kind == "two_stage":
            roles -= STATIC_ROLES
        if entry.kind == "factors":
            roles -= TOWER_ROLES | _CELLS
        if entry.kind in ("factors", "item_item"):
            roles -= _PRECOMPUTED
        wanted = _ITEM_ITEM if entry.kind == "item_item" else (_REQUIRED[entry.kind],)
        if roles not in wanted:
            raise BundleRefused(
                MANIFEST,
                f"models.{name}: files {sorted(roles)}, a model of kind {entry.kind} has {sorted(wanted[0])}",
            )
        arrays = {**read[entry.kind](entry), **self._precomputed(name, entry)}
        index = None
        if entry.kind == "factors":
            index = self._index(name, entry, arrays["item_vectors"])
            if golden is None or (not golden.user_rows and len(arrays["user_rows"])):
                raise BundleRefused(self.manifest.golden, f"no golden queries for {name!r}")
            tower = self._tower(name, entry)
            return ModelData(name, entry, arrays, index, golden, tower)
        if entry.kind == "two_stage" and golden is None:
            raise BundleRefused(self.manifest.golden, f"no golden queries for {name!r}")
        return ModelData(name, entry, arrays, index, golden)

    def _two_stage(self, name: str, entry: ModelEntry) -> dict[str, Array]:
        settings = settings_of(name, entry, self.manifest.models)
        files = entry.files
        n_nodes = tuple(self.manifest.files[self._name(files, "tree_feature")].shape or ())[:1]
        arrays = {
            role: self._array(files, role, dtype, (None,) if role == "tree_indptr" else n_nodes)
            for role, dtype in TREE_DTYPES.items()
        }
        fault = TreeArrays.of(arrays, settings.bias).fault(len(settings.features))
        if fault is not None:
            raise BundleRefused(files[fault[0]], fault[1])
        for role, rows, columns in (
            ("item_features", self.n_items, settings.item_features),
            ("user_features", self.n_users, settings.user_features),
        ):
            if (role in files) != bool(columns):
                raise BundleRefused(
                    MANIFEST, f"models.{name}: the file {role!r} and parameters.{role} go together"
                )
            if columns:
                arrays[role] = self._array(files, role, "<f4", (rows, len(columns)), gaps=True)
        return arrays

    def _precomputed(self, name: str, entry: ModelEntry) -> dict[str, Array]:
        """Lists of candidates by user row: shapes, ranges, and an order that a search could have given."""
        present = _PRECOMPUTED & entry.files.keys()
        if not present and entry.precomputed is None:
            return {}
        if present != _PRECOMPUTED or entry.precomputed is None:
            raise BundleRefused(
                MANIFEST, f"models.{name}: 'precomputed' and the files {sorted(_PRECOMPUTED)} go together"
            )
        roles = ("precomputed_indptr", "precomputed_items", "precomputed_scores")
        indptr, items = self._csr(
            entry.files, roles[0], roles[1], rows=self.n_users, width=self.n_items, unique=True
        )
        if int(np.diff(indptr).max(initial=0)) > entry.precomputed:
            raise BundleRefused(
                self._name(entry.files, roles[0]), f"a list is longer than {entry.precomputed} items"
            )
        scores = self._array(entry.files, roles[2], "<f4", (len(items),))
        rising = np.flatnonzero(np.diff(scores) > 0) + 1
        if not np.isin(rising, indptr).all():
            raise BundleRefused(self._name(entry.files, roles[2]), "scores must fall within a list")
        catalogue = self.manifest.catalogue
        seen = (np.load(self.path / catalogue[role], mmap_mode="r", allow_pickle=False) for role in _HISTORY)
        row = _first_row_with_seen((indptr, items), tuple(seen), self.n_items)
        if row is not None:
            raise BundleRefused(
                self._name(entry.files, roles[1]), f"user row {row} is listed what they have seen"
            )
        return dict(zip(roles, (indptr, items, scores), strict=True))

    def _tower(self, name: str, entry: ModelEntry) -> TowerFile | None:
        if "tower" not in entry.files:
            if TOWER_ROLES & entry.files.keys() or "tower" in entry.parameters:
                raise BundleRefused(MANIFEST, f"models.{name}: parts of a tower, but no file 'tower'")
            return None
        file = self._name(entry.files, "tower")
        arrays = {"tower_tokens": self._array(entry.files, "tower_tokens", "<i4", (self.n_items,))}
        if "user_features" in entry.files:
            arrays["user_features"] = self._array(entry.files, "user_features", "<f4", (self.n_users, None))
        return read_tower(self.path / file, file, name, entry, arrays)

    def _popular(self, entry: ModelEntry) -> dict[str, Array]:
        indptr, items = self._csr(entry.files, "indptr", "items", rows=None, width=self.n_items, unique=True)
        scores = self._array(entry.files, "scores", "<f4", (len(items),))
        segments = self._array(entry.files, "user_segment", "<i4", (self.n_users,))
        if len(indptr) < 2 or indptr[1] != self.n_items:
            raise BundleRefused(entry.files["indptr"], f"segment 0 must list all {self.n_items} items")
        if len(segments) and not (int(segments.min()) >= 0 and int(segments.max()) < len(indptr) - 1):
            raise BundleRefused(entry.files["user_segment"], f"a segment is outside 0..{len(indptr) - 2}")
        first_lists, n_lists = entry.parameters.get("first_lists", 0), len(indptr) - 1
        last = int(segments.max(initial=0))
        if type(first_lists) is not int or not 0 <= first_lists < n_lists - last:
            raise BundleRefused(
                MANIFEST, f"parameters.first_lists: from 0 to {n_lists - 1 - last} here, not {first_lists!r}"
            )
        return {"indptr": indptr, "items": items, "scores": scores, "user_segment": segments}

    def _lists(self, entry: ModelEntry) -> dict[str, Array]:
        indptr, items = self._csr(
            entry.files, "indptr", "items", rows=self.n_users, width=self.n_items, unique=True
        )
        return {
            "indptr": indptr,
            "items": items,
            "scores": self._array(entry.files, "scores", "<f4", (len(items),)),
        }

    def _item_item(self, entry: ModelEntry) -> dict[str, Array]:
        if "dense" in entry.files:
            return {"dense": self._array(entry.files, "dense", "<f4", (self.n_items, self.n_items))}
        indptr, indices = self._csr(
            entry.files, "indptr", "indices", rows=self.n_items, width=self.n_items, unique=True
        )
        return {
            "indptr": indptr,
            "indices": indices,
            "weights": self._array(entry.files, "weights", "<f4", (len(indices),)),
        }

    def _factors(self, entry: ModelEntry) -> dict[str, Array]:
        dim = entry.dim
        if dim is None or entry.space is None or entry.retrieval is None:
            raise BundleRefused(MANIFEST, "a model of kind factors has dim, space and retrieval")
        item_rows = self._array(entry.files, "item_rows", "<i4", (None,))
        user_rows = self._array(entry.files, "user_rows", "<i4", (None,))
        item_vectors = self._array(entry.files, "item_vectors", "<f4", (len(item_rows), dim))
        user_vectors = self._array(entry.files, "user_vectors", "<f4", (len(user_rows), dim))
        if len(item_rows) == 0:
            raise BundleRefused(entry.files["item_rows"], "no item has a vector")
        for role, rows, count in (
            ("item_rows", item_rows, self.n_items),
            ("user_rows", user_rows, self.n_users),
        ):
            if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < count):
                raise BundleRefused(entry.files[role], f"a row is outside 0..{count - 1}")
        if int(np.bincount(item_rows).max()) > 1:
            raise BundleRefused(entry.files["item_rows"], "an item has two vectors")
        if bool((np.diff(user_rows) <= 0).any()):
            raise BundleRefused(entry.files["user_rows"], "rows must be unique and ascending")
        cells = self._cells(entry, len(item_rows), dim)
        self._check_norms(entry.files["item_vectors"], unit=entry.space == "cosine", descending=not cells)
        self._check_norms(entry.files["user_vectors"], unit=entry.space == "cosine", descending=False)
        arrays = {
            "item_rows": item_rows,
            "item_vectors": item_vectors,
            "user_rows": user_rows,
            "user_vectors": user_vectors,
            **cells,
        }
        if "fold_in" in entry.parameters or "gram" in entry.files:
            arrays["gram"] = self._array(entry.files, "gram", "<f4", (dim, dim))
            self._check_fold_in(entry, arrays)
        return arrays

    def _cells(self, entry: ModelEntry, n: int, dim: int) -> dict[str, Array]:
        """Centroids, and which vectors stand in each one's cell; empty where the model has none."""
        assert entry.retrieval is not None  # `_factors` has seen to it
        settings, present = entry.retrieval.ivf, _CELLS & entry.files.keys()
        if settings is None and not present and entry.retrieval.retriever != "ivf":
            return {}
        if settings is None or present != _CELLS:
            raise BundleRefused(MANIFEST, f"the files {sorted(_CELLS)} and their ivf settings go together")
        if settings.n_probe > settings.n_cells:
            raise BundleRefused(
                MANIFEST, f"n_probe: of {settings.n_cells} cells, {settings.n_probe} are searched"
            )
        starts = self._array(entry.files, "cell_starts", "<i4", (settings.n_cells + 1,))
        if starts[0] != 0 or starts[-1] != n or bool((np.diff(starts) < 0).any()):
            raise BundleRefused(entry.files["cell_starts"], f"offsets must run from 0 to {n} without falling")
        centroids = self._array(entry.files, "cell_centroids", "<f4", (settings.n_cells, dim))
        if not float(np.abs(centroids).max()) < MAX_NORM:
            raise BundleRefused(entry.files["cell_centroids"], f"a centroid reaches {MAX_NORM:g}")
        return {"cell_centroids": centroids, "cell_starts": starts}

    def _check_fold_in(self, entry: ModelEntry, arrays: Mapping[str, Array]) -> None:
        """The solver's settings and its matrix: a wrong one would fail, or answer wrongly, on a request."""
        try:
            settings = _FoldIn.model_validate(entry.parameters.get("fold_in"))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, ("fold_in", *first["loc"])))
            raise BundleRefused(MANIFEST, f"parameters.{place}: {first['msg']}") from error
        name, gram = entry.files["item_vectors"], arrays["gram"]
        quick, regularization = self.noted[name].gram, settings.regularization
        if quick is not None and _can_solve(gram, quick, regularization, rounding=_QUICK_ROUNDING):
            return
        # Rounded too much to tell, or wrong: sums in double precision do.
        expected = np.zeros(gram.shape, np.float64)
        for _, rows in stream_rows(self.path / name, arrays["item_vectors"]):
            expected += rows.astype(np.float64).T @ rows
        if not _is_gram(gram, expected, regularization, 1.0):
            raise BundleRefused(entry.files["gram"], f"is not the Gram matrix of {name}")
        if not _can_solve(gram, expected, regularization, rounding=1e-9):
            reason = "with this regularization no user can be solved for (not positive definite)"
            raise BundleRefused(entry.files["gram"], reason)

    def _check_norms(self, name: str, *, unit: bool, descending: bool) -> None:
        norms = self.noted[name].norms
        assert norms is not None  # the file is a matrix of vectors by its entry, which its header bore out
        usable = (norms > 0) & (norms < MAX_NORM)
        if not usable.all():
            raise BundleRefused(name, f"the vector of row {int(np.argmin(usable))} has no usable norm")
        if unit and bool((np.abs(norms - 1) > 1e-3).any()):
            raise BundleRefused(name, "space is cosine, but the vectors are not of unit norm")
        if descending and not unit and bool((norms[1:] > norms[:-1] * (1 + 1e-5)).any()):
            raise BundleRefused(name, "item vectors must be ordered by falling norm")

    def _index(self, name: str, entry: ModelEntry, vectors: Array) -> GraphFile | None:
        settings = entry.retrieval.hnsw if entry.retrieval else None
        if settings is None:
            if "index" in entry.files or (entry.retrieval and entry.retrieval.retriever == "hnsw"):
                raise BundleRefused(
                    MANIFEST, f"models.{name}: an index file and its hnsw settings go together"
                )
            return None
        file = self._name(entry.files, "index")
        check_hnsw_file(self.path / file, file, vectors, settings.m, settings.ef_construction)
        space: Literal["l2", "ip"] = "l2" if entry.space == "l2" else "ip"
        return GraphFile(self.path / file, file, space, len(vectors), vectors.shape[1], settings.ef_search)


def _is_gram(gram: Array, expected: Array, regularization: float, share: float) -> bool:
    """Whether a matrix is the one expected, to a share of the tolerance."""
    scale = float(np.abs(expected).max()) + regularization
    return bool(np.allclose(gram, expected, rtol=1e-3 * share, atol=1e-4 * share * scale))


def _can_solve(gram: Array, expected: Array, regularization: float, *, rounding: float) -> bool:
    """Whether the matrix is the Gram matrix, and surely positive definite with the regularization.

    `rounding`: of `expected`, as a share of its largest entry. As much is taken off the diagonal, or an all but
    singular matrix might pass.
    """
    scale = float(np.abs(expected).max()) + regularization
    if not (np.isfinite(scale) and _is_gram(gram, expected, regularization, 0.5 if rounding > 1e-6 else 1.0)):
        return False
    try:
        np.linalg.cholesky(expected + (regularization - rounding * scale) * np.eye(len(expected)))
    except np.linalg.LinAlgError:
        return False
    return True


def _first_row_with_seen(listed: tuple[Array, ...], seen: tuple[Array, ...], width: int) -> int | None:
    """Find a row that two CSRs share an entry in, a block of rows at a time."""
    n_rows = len(listed[0]) - 1
    for first in range(0, n_rows, _BLOCK_ROWS):
        end = min(first + _BLOCK_ROWS, n_rows)
        keys = []
        for indptr, items in (listed, seen):
            places = np.repeat(np.arange(first, end, dtype=np.int64), np.diff(indptr[first : end + 1]))
            keys.append(places * width + items[indptr[first] : indptr[end]])
        shared = np.intersect1d(keys[0], keys[1], assume_unique=True)
        if len(shared):
            return int(shared[0]) // width
    return None
