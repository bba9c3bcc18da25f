"""A dataset and its trained models become one bundle on disk. The only place offline that knows the bundle's roles."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from models.build.index import IndexChoice, Probes, make_searchable
from models.build.ranked_golden import ranked_golden
from models.data.dataset import Dataset
from models.history import unique_history
from models.trained import TrainedModel
from service.bundle.manifest import RetrieverName
from service.bundle.text import pack_text
from service.bundle.two_stage import STATIC_ROLES
from service.bundle.writer import BundleWriter

MAX_ATTRIBUTE_VALUES = 10_000
"""A column with more distinct values, and more than one in four items has its own, names items: it does not group
them."""
_TITLES = ("title", "name")


@dataclass(frozen=True, slots=True)
class Assembled:
    """The written bundle, and the median microseconds of a query by model and retriever (not part of the bundle)."""

    path: Path
    microseconds: Mapping[str, Mapping[RetrieverName, float]]


def assemble(
    root: Path,
    dataset: Dataset,
    models: Mapping[str, TrainedModel],
    *,
    default_model: str,
    metrics: Mapping[str, Mapping[str, float]] | None = None,
    seed: int = 0,
    index: IndexChoice = "auto",
    probes: Mapping[str, Probes] | None = None,
) -> Assembled:
    """Write a bundle below `root` (not yet published). `models` must hold `popular`, of kind popular.

    `probes`, by model, measure the search where a model has no user vectors.
    Raises ValueError for arrays that break their contract.
    """
    microseconds = {}
    ranked = [name for name, trained in models.items() if trained.kind == "two_stage"]
    with BundleWriter(root) as writer:
        catalogue = _write_catalogue(writer, dataset)
        entries, golden = {}, {}
        for name, trained in models.items():
            entry: dict[str, Any] = {
                "kind": trained.kind,
                "space": trained.space,
                "parameters": dict(trained.parameters),
                "training": dict(trained.training),
                "metrics": dict((metrics or {}).get(name, {})),
            }
            arrays = trained.arrays
            if trained.kind == "factors":
                searchable = make_searchable(
                    trained, seed=seed, choice=index, probes=(probes or {}).get(name)
                )
                arrays, golden[name] = searchable.arrays, searchable.golden
                microseconds[name] = searchable.microseconds
                entry["dim"] = int(arrays["item_vectors"].shape[1])
                entry["retrieval"] = searchable.retrieval.model_dump()
            entry["files"] = {
                role: writer.add_array(f"{name}/{role}", array, gaps=role in STATIC_ROLES)
                for role, array in arrays.items()
            }
            if trained.kind == "factors" and searchable.index is not None:
                entry["files"]["index"] = writer.add_index(f"{name}/index", searchable.index.save_index)
            if trained.tower is not None:
                entry["files"] |= _write_tower(writer, name, trained, trained.tower, dataset)
            entries[name] = entry
        if ranked:
            sources = {name: trained for name, trained in models.items() if name not in ranked}
            with tempfile.TemporaryDirectory(prefix="reco-golden-") as folder:
                written = assemble(Path(folder), dataset, sources, default_model="popular", index="none")
                golden |= ranked_golden(written.path, {name: models[name] for name in ranked}, seed=seed)
        path = writer.finish(
            {
                "data": {
                    "name": dataset.name,
                    "fingerprint": dataset.fingerprint,
                    "n_interactions": len(dataset),
                    "n_users": dataset.n_users,
                    "n_items": dataset.n_items,
                    "last_time": int(dataset.times.max())
                    if dataset.times is not None and len(dataset)
                    else None,
                    "dropped": dict(dataset.dropped),
                },
                "user_id_kind": dataset.user_ids.kind,
                "item_id_kind": dataset.item_ids.kind,
                "default_model": default_model,
                "models": entries,
                "catalogue": catalogue,
                "golden": writer.add_json("golden", golden),
            }
        )
    return Assembled(path, microseconds)


def _write_tower(
    writer: BundleWriter, name: str, trained: TrainedModel, tower: bytes, dataset: Dataset
) -> dict[str, str]:
    """The tower, what it calls items (by the trainer's order, which the index has changed), and users' features."""
    tokens = np.zeros(dataset.n_items, np.int32)
    item_rows = trained.arrays["item_rows"]
    tokens[item_rows] = np.arange(1, len(item_rows) + 1)
    files = {
        "tower": writer.add_tower(f"{name}/tower", tower),
        "tower_tokens": writer.add_array(f"{name}/tower_tokens", tokens),
    }
    features = trained.arrays.get("user_features")
    if features is not None:
        files["user_features"] = writer.add_array(f"{name}/user_features", features.astype(np.float32))
    return files


def _write_catalogue(writer: BundleWriter, dataset: Dataset) -> dict[str, str]:
    files = {}
    for role, ids in (("user_ids", dataset.user_ids), ("item_ids", dataset.item_ids)):
        for part, array in ids.arrays().items():
            files[f"{role}_{part}"] = writer.add_array(f"catalogue/{role}_{part}", array)
    indptr, items = history(dataset)
    files["history_indptr"] = writer.add_array("catalogue/history_indptr", indptr)
    files["history_items"] = writer.add_array("catalogue/history_items", items)
    if dataset.items is None:
        return files
    title = next((column for column in _TITLES if column in dataset.items.columns), None)
    if title is not None:
        blob, offsets = pack_text(str(value or "") for value in dataset.items[title].to_list())
        files["titles_blob"] = writer.add_array("catalogue/titles_blob", blob)
        files["titles_offsets"] = writer.add_array("catalogue/titles_offsets", offsets)
    vocabularies: dict[str, list[str]] = {}
    for column in sorted(dataset.items.columns):  # the order in which JSON keeps the vocabularies
        coded = None if column == title else _coded(dataset.items[column])
        if coded is None:
            continue
        number = len(vocabularies)
        vocabularies[column], attribute_indptr, codes = coded
        files[f"attribute_{number}_indptr"] = writer.add_array(
            f"catalogue/attribute_{number}_indptr", attribute_indptr
        )
        files[f"attribute_{number}_codes"] = writer.add_array(f"catalogue/attribute_{number}_codes", codes)
    if vocabularies:
        files["attributes"] = writer.add_json("catalogue/attributes", vocabularies)
    return files


def history(dataset: Dataset) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """CSR of each user's unique items, oldest first by their latest event: int64 (n_users + 1,), int32 (nnz,)."""
    return unique_history(dataset)


def _coded(column: pl.Series) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.int32]] | None:
    """Values, int64 (n + 1,) offsets and int32 codes of a categorical column; None for one that is not."""
    if column.dtype == pl.List(pl.String):
        lists = column
    elif column.dtype in (pl.String, pl.Categorical, pl.Boolean) or column.dtype.is_integer():
        lists = column.cast(pl.String).map_elements(lambda value: [value], return_dtype=pl.List(pl.String))
    else:
        return None
    flat = lists.explode().drop_nulls()
    values = flat.unique().sort()
    if not 0 < len(values) <= max(MAX_ATTRIBUTE_VALUES, len(column) // 4):
        return None
    code_of = {value: code for code, value in enumerate(values.to_list())}
    rows = [
        sorted({code_of[value] for value in entry or [] if value is not None}) for entry in lists.to_list()
    ]
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=indptr[1:])
    return values.to_list(), indptr, np.array([code for row in rows for code in row], np.int32)
