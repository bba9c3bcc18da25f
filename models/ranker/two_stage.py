"""A trained ranker, its sources and its numbers as one model of kind `two_stage`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from models.ranker.config import Config
from models.ranker.rows import Statics
from models.ranker.training import Ranker
from models.trained import TrainedModel
from service.bundle.two_stage import SourceSpec
from service.recommender.ranking.features import Static

SHOWN = 20
"""Features whose mean |SHAP| the manifest keeps."""
_OF_ITEMS = re.compile(r"(?:item|versus\d+):(.+)")
_OF_USERS = re.compile(r"user:(.+)")


def two_stage_model(
    ranker: Ranker,
    statics: Statics,
    sources: Sequence[SourceSpec],
    config: Config,
    contributions: Mapping[str, float],
) -> TrainedModel:
    """Put them together. Of `statics` only the columns that a feature reads are kept."""
    items = _only(statics.items, _read(ranker.names, _OF_ITEMS) | _places(ranker.names))
    users = _only(statics.users, _read(ranker.names, _OF_USERS))
    arrays = dict(ranker.trees.by_role())
    for role, static in (("item_features", items), ("user_features", users)):
        if static.names:
            arrays[role] = np.ascontiguousarray(static.values)
    return TrainedModel(
        kind="two_stage",
        arrays=arrays,
        parameters={
            "sources": [source.model_dump() for source in sources],
            "n_candidates": config.n_candidates,
            "features": list(ranker.names),
            "item_features": list(items.names),
            "user_features": list(users.names),
            "bias": ranker.trees.bias,
        },
        training={
            "algorithm": f"{ranker.library} {'yetirank' if ranker.library == 'catboost' else config.objective}",
            **asdict(config),
            "rounds_grown": ranker.rounds,
            "mean_abs_shap": {name: round(value, 6) for name, value in list(contributions.items())[:SHOWN]},
        },
    )


def _read(features: Sequence[str], kind: re.Pattern[str]) -> set[str]:
    return {found.group(1) for name in features if (found := kind.fullmatch(name))}


def _places(features: Sequence[str]) -> set[str]:
    return {"log_place"} if "ahead" in features else set()


def _only(static: Static, names: set[str]) -> Static:
    kept = [place for place, name in enumerate(static.names) if name in names]
    return Static(tuple(static.names[place] for place in kept), static.values[:, kept])
