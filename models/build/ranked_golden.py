"""Golden queries of two-stage models: what they answer before the bundle is written, asked of its sources on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from models.trained import TrainedModel
from service.bundle.manifest import ModelEntry
from service.bundle.reader import ModelData, load_bundle
from service.recommender.filters import Eligible
from service.recommender.live import go_live
from service.recommender.ranking.ranker import TwoStage
from service.recommender.user_state import UserState

N_QUERIES = 16
N_ANSWERS = 10


def ranked_golden(
    sources: Path, ranked: Mapping[str, TrainedModel], *, seed: int
) -> dict[str, dict[str, Any]]:
    """Ask each two-stage model for some users with a history, by model.

    sources: a bundle of all other models. Raises BundleRefused where a model names what it doesn't hold.
    """
    live = go_live(load_bundle(sources), retriever="exact")
    bundle = live.bundle
    retrievers = {name: model.retriever for name, model in live.models.items() if name == model.name}
    known = np.flatnonzero(np.diff(bundle.history_indptr))
    chosen = np.random.default_rng(seed).choice(known, min(N_QUERIES, len(known)), replace=False)
    golden = {}
    for name, trained in ranked.items():
        entry = ModelEntry(kind="two_stage", files={}, parameters=dict(trained.parameters))
        ranking = TwoStage(ModelData(name, entry, trained.arrays, None, None), bundle, retrievers)
        rows, items, scores = [], [], []
        for row in np.sort(chosen).tolist():
            history = bundle.history_of(row)
            answered = ranking.exactly(UserState(row, history, live=False), Eligible(history, None))
            if answered is None:
                continue
            rows.append(row)
            items.append(answered.item_rows[:N_ANSWERS].tolist())
            scores.append(answered.scores[:N_ANSWERS].tolist())
        golden[name] = {
            "user_rows": rows,
            "item_rows": items,
            "scores": scores,
            "hnsw_item_rows": [],
        }
    return golden
