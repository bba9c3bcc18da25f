"""What every trainer returns: named arrays and the words that go with them, ready for the bundle writer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from service.bundle.manifest import ModelKind
from service.domain import Space


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """One model, trained. Rows are those of the dataset's ids. Arrays by kind:

    factors: item_rows int32 (n,) unique; item_vectors float32 (n, dim); user_rows int32 (m,) ascending;
        user_vectors float32 (m, dim). Items and users without a vector are left out; no vector is zero. With
        `parameters["fold_in"] = {"regularization": float, "alpha": float}` users are solved from their history;
        with `"half_life"` too, an item's confidence halves for every so many items that came after it. Beside `tower`,
        optionally user_features float32 (n_users, n): a row of zeros is a user of whom nothing is known.
    item_item: either `dense` float32 (n_items, n_items), or CSR rows `indptr` int64 (n_items + 1,),
        `indices` int32 (nnz,), `weights` float32 (nnz,). score(user, j) = sum over i in history of W[i, j],
        each weighted by 2^(-items that came after i / h) where `parameters["history_half_life"]` = h is set.
    popular: CSR by segment, `indptr` int64 (n_segments + 1,), `items` int32, `scores` float32 descending in a
        segment. Segment 0 is everybody and lists every item of the catalogue once. `user_segment` int32 (n_users,),
        0 where unknown. `parameters["segments"]` names the segments.
    lists: CSR by user, `indptr` int64 (n_users + 1,), `items` int32, `scores` float32 descending in a user.
    two_stage: trees by the roles of `service.bundle.two_stage.TreeArrays`; optionally `item_features` float32
        (n_items, n) and `user_features` float32 (n_users, n), NaN where nothing is known. `parameters` are a
        `service.bundle.two_stage.TwoStageSettings`; its sources are other models of the same bundle.
    """

    kind: ModelKind
    arrays: Mapping[str, npt.NDArray[Any]]
    space: Space | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What serving needs to know, kept in the manifest."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained (settings, losses): kept in the manifest for people."""
    tower: bytes | None = None
    """Of kind factors: an ONNX graph that computes a user's vector, `vector` float32 (1, dim), from one or both of:
    `history` int64 (1, n), n at least 1: positions in this model's `item_vectors` plus one, oldest first, the latest
    `history_length` of them (an empty history is a single 0); `features` float32 (1, n_features): the user's row of
    `user_features`. `parameters["tower"]` is a `service.bundle.tower_file.TowerSettings`. A tower that reads histories
    must reproduce `user_vectors` from those in the bundle, and the features."""
