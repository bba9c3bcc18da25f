"""Item to item: what is near this item in a model's own terms."""

from __future__ import annotations

import numpy as np

from service.bundle.ids import UNKNOWN
from service.domain import ItemId
from service.errors import InvalidRequest, ItemNotFound
from service.recommender.live import LiveBundle
from service.recommender.retrieval import FactorsRetriever


def similar(item_id: ItemId, k: int, model_name: str, live: LiveBundle) -> list[tuple[ItemId, float]]:
    """Up to k nearest items, best first: cosine of the item vectors, or the item's row of an item-item matrix.

    Raises ItemNotFound (also for an item the model holds nothing of), ModelNotFound, and InvalidRequest for a kind
    of model that knows no similarity.
    """
    model = live.resolve(model_name)
    item_ids, arrays = live.bundle.item_ids, model.data.arrays
    row = item_ids.row_of(item_id)
    if row == UNKNOWN:
        raise ItemNotFound(item_id)
    if model.data.entry.kind == "factors":
        assert isinstance(model.retriever, FactorsRetriever)  # go_live builds one for every factors model
        place = int(model.retriever.position_of[row])
        if place < 0:
            raise ItemNotFound(item_id)
        scores, rows = model.retriever.exact.cosines(place), arrays["item_rows"]
        scores[place] = -np.inf
    elif model.data.entry.kind == "item_item":
        if "dense" in arrays:
            rows, scores = np.arange(len(item_ids), dtype=np.int32), arrays["dense"][row].copy()
            scores[row] = -np.inf
        else:
            begin, end = int(arrays["indptr"][row]), int(arrays["indptr"][row + 1])
            rows, scores = arrays["indices"][begin:end], arrays["weights"][begin:end]
            rows, scores = rows[rows != row], scores[rows != row]
    else:
        raise InvalidRequest(
            ("body", "model"),
            "no_similarity",
            f"model {model.name!r} of kind {model.data.entry.kind} knows no similar items",
        )
    best = (
        scores.argpartition(len(scores) - k)[len(scores) - k :] if k < len(scores) else np.arange(len(scores))
    )
    best = best[np.lexsort((rows[best], -scores[best]))]
    best = best[scores[best] > -np.inf]
    return list(zip(item_ids.take(rows[best]), scores[best].tolist(), strict=True))
