"""What a model of kind two_stage is made of: its settings, and trees as plain arrays, checked to be trees."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.bundle.manifest import MANIFEST, ModelEntry
from service.errors import BundleRefused

Floats = npt.NDArray[np.float32]
TREE_DTYPES = {
    "tree_indptr": "<i8", "tree_feature": "<i4", "tree_threshold": "<f4", "tree_nan_right": "|u1", "tree_left": "<i4",
    "tree_right": "<i4", "tree_value": "<f4",
}  # fmt: skip
STATIC_ROLES = frozenset({"item_features", "user_features"})
MOST_LEAVES = 1 << 18
"""Trees times the leaves that the largest of them has, rounded up to a power of two: what running them unfolds."""


class SourceSpec(BaseModel):
    """A source by its model's name, how many items it may bring, and how many of the newest history items an
    item-to-item model reads for it; None: as many as it does alone."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str
    quota: Annotated[int, Field(ge=1, le=10_000)]
    history: Annotated[int, Field(ge=1, le=10_000)] | None = None


class TwoStageSettings(BaseModel):
    """`parameters` of a two_stage model. `sources` stand best first: unranked, the first one's list leads.

    features: what the trees read, by column. item_features, user_features: names of those arrays' columns.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    sources: Annotated[list[SourceSpec], Field(min_length=1, max_length=32)]
    n_candidates: Annotated[int, Field(ge=1, le=10_000)]
    features: Annotated[list[str], Field(min_length=1, max_length=1024)]
    item_features: list[str] = []
    user_features: list[str] = []
    bias: float = 0.0


@dataclass(frozen=True, slots=True)
class TreeArrays:
    """Trees as a bundle holds them. Nodes of tree t are indptr[t] to indptr[t + 1]; the first is its root.

    indptr: int64 (n_trees + 1,). The others have an entry a node. feature: int32, which column is read; -1 marks a
    leaf. threshold: float32, finite; a row goes right if its value is above it. nan_right: uint8, 1 where a row whose
    value is NaN goes right, 0 where left. left, right: int32, the children as places within the tree, larger than the
    node's own, each node but the root the child of exactly one (so there is no circle); -1 at a leaf. value: float32,
    what a leaf adds; 0 at an inner node. A row's score is the sum over the trees of the leaves it reaches, in float64,
    plus `bias`.

    LightGBM compares float64 thresholds with `<=`: for float32 values that is the largest float32 that isn't above the
    threshold. Its missing_type `None` reads NaN as 0, so nan_right is `0 > threshold`. CatBoost's float32 borders are
    compared with `>` already; NaN goes left (`Min`) or right (`Max`).
    """

    indptr: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int32]
    threshold: Floats
    nan_right: npt.NDArray[np.uint8]
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    value: Floats
    bias: float = 0.0

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[Any]], bias: float) -> TreeArrays:
        """Take them by their roles in a bundle."""
        return cls(
            arrays["tree_indptr"],
            arrays["tree_feature"],
            arrays["tree_threshold"],
            arrays["tree_nan_right"],
            arrays["tree_left"],
            arrays["tree_right"],
            arrays["tree_value"],
            bias,
        )

    def by_role(self) -> dict[str, npt.NDArray[Any]]:
        """Give them by their roles in a bundle; `bias` is a parameter there."""
        arrays = (
            self.indptr,
            self.feature,
            self.threshold,
            self.nan_right,
            self.left,
            self.right,
            self.value,
        )
        return dict(zip(TREE_DTYPES, arrays, strict=True))

    def fault(self, n_features: int) -> tuple[str, str] | None:
        """Say what keeps them from being trees over so many features: the role and the reason; None if nothing."""
        n_nodes, indptr = len(self.feature), self.indptr
        if len(indptr) < 2 or indptr[0] != 0 or indptr[-1] != n_nodes or bool((np.diff(indptr) < 1).any()):
            return "tree_indptr", f"must rise from 0 to the {n_nodes} nodes, one tree at least"
        if int(self.feature.min()) < -1 or int(self.feature.max()) >= n_features:
            return "tree_feature", f"a feature is outside -1..{n_features - 1}"
        if int(self.nan_right.max()) > 1:
            return "tree_nan_right", "must be 0 or 1"
        tree_of = np.repeat(np.arange(len(self)), np.diff(indptr))
        place, size = np.arange(n_nodes) - indptr[tree_of], np.diff(indptr)[tree_of]
        leaf = self.feature < 0
        for role, child in (("tree_left", self.left), ("tree_right", self.right)):
            if bool((child[leaf] != -1).any()):
                return role, "a leaf has a child"
            inner = ~leaf
            if bool(((child <= place) | (child >= size))[inner].any()):
                return role, "a child must stand after its node, within its tree"
        children = np.concatenate(
            [child[~leaf] + indptr[tree_of[~leaf]] for child in (self.left, self.right)]
        )
        parents = np.bincount(children, minlength=n_nodes)
        if bool((parents != (place > 0)).any()):
            return "tree_right", "each node but a root must be the child of exactly one"
        most = int(np.add.reduceat(leaf, indptr[:-1], dtype=np.int64).max())
        if len(self) << (most - 1).bit_length() > MOST_LEAVES:
            return "tree_indptr", f"{len(self)} trees of up to {most} leaves are more than can be run"
        return None


def settings_of(name: str, entry: ModelEntry, models: Mapping[str, ModelEntry]) -> TwoStageSettings:
    """Read a two_stage model's parameters and check what they name. Raises BundleRefused."""
    place = f"models.{name}.parameters"
    try:
        settings = TwoStageSettings.model_validate(dict(entry.parameters))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise BundleRefused(
            MANIFEST, f"{'.'.join((place, *map(str, first['loc'])))}: {first['msg']}"
        ) from error
    for source in settings.sources:
        if source.model not in models:
            raise BundleRefused(MANIFEST, f"{place}.sources: no model {source.model!r}")
        if models[source.model].kind == "two_stage":
            raise BundleRefused(MANIFEST, f"{place}.sources: {source.model!r} is of kind two_stage itself")
    _refuse_repeated(f"{place}.sources", [source.model for source in settings.sources])
    _refuse_repeated(f"{place}.features", settings.features)
    return settings


def _refuse_repeated(place: str, names: Collection[str]) -> None:
    if len(set(names)) < len(names):
        raise BundleRefused(MANIFEST, f"{place}: a name stands twice")
