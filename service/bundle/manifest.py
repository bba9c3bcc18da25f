"""The manifest: what a bundle says of itself. Strict: an unknown field, kind or value is a refusal."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from service.domain import IdKind, Space
from service.errors import BundleRefused

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 4 << 20

_UNSEALED = "0" * 64
_SEAL = re.compile(rb'"seal": "[0-9a-f]{64}"')

ModelKind = Literal["popular", "factors", "item_item", "lists", "two_stage"]
RetrieverName = Literal["exact", "hnsw", "ivf"]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
FileName = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*(/[A-Za-z0-9][A-Za-z0-9_-]*)*\.(npy|json|hnsw|onnx)$"
    ),
]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=1 << 40)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FileEntry(_Strict):
    """One file: its exact bytes and, for an array, its exact type."""

    bytes: Count
    sha256: Sha256
    dtype: str | None = None
    """numpy's `dtype.str`, e.g. `<f4`; None for what is not an array."""
    shape: list[Count] | None = None


class Recall(_Strict):
    """Share of the exact top k that the retriever finds, over `queries` held-out users."""

    at_10: Annotated[float, Field(ge=0, le=1)]
    at_100: Annotated[float, Field(ge=0, le=1)]
    queries: Count


class Hnsw(_Strict):
    """The graph index beside the vectors, and what it finds."""

    m: Annotated[int, Field(ge=2, le=256)]
    ef_construction: Annotated[int, Field(ge=1, le=10_000)]
    ef_search: Annotated[int, Field(ge=1, le=10_000)]
    recall: Recall


class Ivf(_Strict):
    """The cells that the item vectors are ordered by, and what the nearest of them hold."""

    n_cells: Annotated[int, Field(ge=1, le=1 << 24)]
    n_probe: Annotated[int, Field(ge=1, le=1 << 24)]
    """Cells searched for the best ten of all."""
    recall: Recall


class Retrieval(_Strict):
    """How a factors model is searched, and what that costs in recall against exact search."""

    retriever: RetrieverName
    recall: Recall
    """Of the retriever that serves."""
    hnsw: Hnsw | None = None
    ivf: Ivf | None = None
    rows_scanned: float | None = None
    """Mean item vectors that the exact scan reads for a query (k = 10)."""
    measured: list[dict[str, float]] = []
    """Every setting of graph and cells tried at build time, with its recall. No timings: equal inputs give equal
    manifests."""

    @property
    def index(self) -> Literal["hnsw", "ivf"] | None:
        """What other search than the exact one the model has."""
        return "ivf" if self.ivf is not None else "hnsw" if self.hnsw is not None else None

    def recall_of(self, name: RetrieverName) -> Recall | None:
        """What this retriever finds here; None for the exact one, and for one whose index the model lacks."""
        index = self.hnsw if name == "hnsw" else self.ivf if name == "ivf" else None
        return None if index is None else index.recall


class ModelEntry(_Strict):
    """One model. `files` maps an array's role to its file."""

    kind: ModelKind
    files: dict[str, FileName]
    dim: Annotated[int, Field(ge=1, le=4096)] | None = None
    space: Space | None = None
    retrieval: Retrieval | None = None
    precomputed: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Most candidates a user that were computed beforehand; None without such lists."""
    parameters: dict[str, Any] = {}
    training: dict[str, Any] = {}
    metrics: dict[str, float] = {}


class DataEntry(_Strict):
    """The data the bundle was built from."""

    name: str
    fingerprint: str
    n_interactions: Count
    n_users: Count
    n_items: Count
    last_time: int | None = None
    dropped: dict[str, int] = {}


class Manifest(_Strict):
    """All of it."""

    format_version: Literal[1]
    bundle_id: str
    created_at: str
    seal: Sha256
    """sha256 of this very file with these 64 digits as zeros."""
    data: DataEntry
    user_id_kind: IdKind
    item_id_kind: IdKind
    default_model: ModelName
    models: dict[ModelName, ModelEntry]
    catalogue: dict[str, FileName]
    """Role -> file of what all models share: ids, history, titles, attributes."""
    golden: FileName
    files: dict[FileName, FileEntry]


def bundle_id_of(manifest: dict[str, Any]) -> str:
    """First 16 hex digits of the sha256 over everything but the id itself, the time of writing and the seal.

    So equal inputs, settings and seeds give equal ids, and an edited manifest no longer matches its own.
    """
    content = {
        key: value for key, value in manifest.items() if key not in {"bundle_id", "created_at", "seal"}
    }
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def seal_manifest(manifest: dict[str, Any]) -> bytes:
    """Bytes of manifest.json, its `bundle_id` and `seal` computed: no byte of it can change unnoticed."""
    document = {**manifest, "seal": _UNSEALED}
    document["bundle_id"] = bundle_id_of(document)
    raw = orjson.dumps(document, option=orjson.OPT_INDENT_2)
    seal = hashlib.sha256(raw).hexdigest()
    return _SEAL.sub(f'"seal": "{seal}"'.encode(), raw, count=1)


def _is_sealed(raw: bytes, seal: str) -> bool:
    unsealed, found = _SEAL.subn(f'"seal": "{_UNSEALED}"'.encode(), raw)
    return found == 1 and hashlib.sha256(unsealed).hexdigest() == seal


def parse_manifest(raw: bytes) -> Manifest:
    """Parse and check a manifest. Raises BundleRefused with the place of the first fault."""
    if len(raw) > MAX_MANIFEST_BYTES:
        raise BundleRefused(MANIFEST, f"larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BundleRefused(MANIFEST, f"not JSON: {error}") from error
    if isinstance(document, dict) and document.get("format_version") != FORMAT_VERSION:
        raise BundleRefused(
            MANIFEST, f"format_version is not {FORMAT_VERSION}: {document.get('format_version')!r:.40}"
        )
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BundleRefused(MANIFEST, f"{place}: {first['msg']}") from error
    if not _is_sealed(raw, manifest.seal):
        raise BundleRefused(MANIFEST, "the seal does not match the file")
    try:
        content_id = bundle_id_of(document)
    except orjson.JSONEncodeError as error:  # nested deeper than can be written
        raise BundleRefused(MANIFEST, f"cannot be hashed: {error}") from error
    if content_id != manifest.bundle_id:
        raise BundleRefused(MANIFEST, "bundle_id does not match the content")
    if manifest.default_model not in manifest.models:
        raise BundleRefused(MANIFEST, f"default_model {manifest.default_model!r} is not among the models")
    if "default" in manifest.models:
        raise BundleRefused(MANIFEST, "no model may be called 'default': the name stands for default_model")
    return manifest
