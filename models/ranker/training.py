"""Trees that put a pool in order, grown by LightGBM or CatBoost, stopped by users they have not learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from models.ranker.config import Config
from models.ranker.export import from_catboost, from_lightgbm
from models.ranker.rows import Rows
from service.bundle.two_stage import TreeArrays
from service.errors import InputError

K = 10
_EVERY = 10
"""Rounds between two looks at the held-out users."""
_ROWS_BINNED_BY = 20_000
"""Rows that say where thresholds may lie; more take longer, and move none of 31 by much."""
_OBJECTIVES = {"xendcg": "rank_xendcg", "lambdarank": "lambdarank"}


@dataclass(frozen=True, slots=True)
class Ranker:
    """Trees over the features `names`. `score`: NDCG@10 of the held-out users that stopped them, NaN without any.

    model: the library's own, for contributions; None of it is kept in a bundle.
    """

    names: tuple[str, ...]
    trees: TreeArrays
    rounds: int
    score: float
    model: Any = field(repr=False)
    library: str = "lightgbm"

    def contributions(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """SHAP values, float64 (n, n_features): what each feature adds to a row's score beside the mean score.

        Exact for trees (Lundberg et al., 2018, "Consistent individualized feature attribution for tree ensembles"),
        by the library's own computation.
        """
        if self.library == "lightgbm":
            told = self.model.predict(features, num_iteration=self.rounds, pred_contrib=True, num_threads=1)
        else:
            import catboost  # noqa: PLC0415 (an extra: only those who chose it need it)

            told = self.model.get_feature_importance(catboost.Pool(features), type="ShapValues")
        return np.asarray(told, np.float64)[:, :-1]


def library_lacks(config: Config) -> str | None:
    """Say what is not installed for this configuration; None where all is."""
    if find_spec(config.library) is not None:
        return None
    return f"{config.library} is not installed (pip install 'reco-service[build,catboost]')"


def fit(
    rows: Rows, config: Config, *, seed: int, stop: Rows | None = None, rounds: int | None = None
) -> Ranker:
    """Grow trees on `rows`: until `stop` gets no better for `patience` rounds, or just `rounds`.

    Equal rows, settings and seeds give equal trees: one thread grows them. Raises InputError for settings out of
    range, a library that is missing, or rows that hold no order.
    """
    config.check()
    if lacks := library_lacks(config):
        raise InputError(f"two_stage: {lacks}")
    if not len(rows.groups) or not len(rows.names):
        raise InputError("two_stage: no rows to learn an order from")
    if config.library == "catboost":
        return _catboost(rows, config, seed, stop, rounds)
    return _lightgbm(rows, config, seed, stop, rounds)


def ndcg(scores: npt.NDArray[np.float64], rows: Rows, k: int = K) -> npt.NDArray[np.float64]:
    """NDCG@k of each user's pool in the order of scores, float64 (n_groups,).

    The ideal knows all they went on to read, in the pool or not.
    """
    owner = np.repeat(np.arange(len(rows.groups)), rows.groups)
    order = np.lexsort((-scores, owner))
    place = np.arange(len(order)) - np.repeat(np.cumsum(rows.groups) - rows.groups, rows.groups)
    gained = np.where(place < k, rows.labels[order] / np.log2(place + 2.0), 0.0)
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))
    got = np.bincount(owner, weights=gained, minlength=len(rows.groups))
    shares: npt.NDArray[np.float64] = got / ideal[np.minimum(rows.relevant, k) - 1]
    return shares


def _lightgbm(rows: Rows, config: Config, seed: int, stop: Rows | None, rounds: int | None) -> Ranker:
    import lightgbm  # noqa: PLC0415 (reached when it trains)

    parameters = {
        "objective": _OBJECTIVES.get(config.objective, "lambdarank"),
        "metric": "None",
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": min(config.least_rows, max(1, len(rows) // 50)),
        "feature_fraction": config.feature_share,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": config.l2,
        "lambdarank_truncation_level": 2 * K,
        "max_bin": config.bins,
        "bin_construct_sample_cnt": _ROWS_BINNED_BY,
        "verbosity": -1,
        "num_threads": 1,
        "deterministic": True,
        "force_row_wise": True,
        "seed": seed,
    }
    # Column names stay here: the library takes no colons in them.
    data = lightgbm.Dataset(rows.features, rows.labels, group=rows.groups, params=parameters)
    booster = lightgbm.Booster(parameters, data)
    watched = stop if rounds is None else None
    if watched is not None:
        # Binned once, and scored as trees are grown: a tenth of what asking for predictions costs.
        told = data.create_valid(watched.features, watched.labels, group=watched.groups, params=parameters)
        booster.add_valid(told, "stop")
    best, kept, grown, score = -1.0, 0, 0, float("nan")
    for grown in range(1, (rounds or config.rounds) + 1):
        whole = booster.update()
        if watched is not None and (grown % _EVERY == 0 or grown == config.rounds):
            score = _score_of(booster, watched)
            if score > best:
                best, kept = score, grown
            elif grown - kept >= config.patience:
                break
        if whole:  # no leaf is left that could be split
            break
    if watched is not None:
        grown, score = (kept, best) if kept else (grown, _score_of(booster, watched))
    grown = min(grown, booster.num_trees())
    return Ranker(rows.names, from_lightgbm(booster, grown), grown, score, booster)


def _score_of(booster: Any, stop: Rows) -> float:
    """NDCG@10 of the users that were added to a booster of LightGBM."""

    def reached(scores: npt.NDArray[np.float64], _: Any) -> tuple[str, float, bool]:
        return "ndcg", float(ndcg(scores, stop).mean()), True

    return float(booster.eval_valid(reached)[0][2])


def _catboost(rows: Rows, config: Config, seed: int, stop: Rows | None, rounds: int | None) -> Ranker:
    import catboost  # noqa: PLC0415 (an extra: only those who chose it need it)

    model = catboost.CatBoost(
        {
            "loss_function": "YetiRank",
            "eval_metric": f"NDCG:top={K}",
            "iterations": rounds or config.rounds,
            "learning_rate": config.learning_rate,
            "depth": config.depth,
            "l2_leaf_reg": config.l2,
            "border_count": config.bins,
            "random_seed": seed,
            "thread_count": 1,
            "verbose": False,
            "allow_writing_files": False,
        }
    )
    watched = None if stop is None or rounds is not None else _pool_of(stop)
    model.fit(
        _pool_of(rows),
        eval_set=watched,
        early_stopping_rounds=None if watched is None else config.patience,
    )
    score = float("nan")
    if watched is not None and stop is not None:
        score = float(ndcg(np.asarray(model.predict(stop.features)), stop).mean())
    return Ranker(rows.names, from_catboost(model), int(model.tree_count_), score, model, "catboost")


def _pool_of(rows: Rows) -> Any:
    import catboost  # noqa: PLC0415 (an extra: only those who chose it need it)

    owner = np.repeat(np.arange(len(rows.groups)), rows.groups)
    return catboost.Pool(np.ascontiguousarray(rows.features), rows.labels, group_id=owner)


def telling(ranker: Ranker, rows: Rows, most: int, *, at_most_rows: int = 3_000) -> Sequence[str]:
    """Name the features that tell the most, by mean |SHAP|, at most so many; none that tells nothing."""
    weights = mean_contributions(ranker, rows, at_most_rows=at_most_rows)
    return [name for name in list(weights)[:most] if weights[name] > 0.0]


def mean_contributions(ranker: Ranker, rows: Rows, *, at_most_rows: int = 3_000) -> dict[str, float]:
    """Mean |SHAP| by feature, the largest first, over evenly spread rows."""
    spread = np.unique(np.linspace(0, max(len(rows) - 1, 0), min(at_most_rows, len(rows))).astype(np.int64))
    means = np.abs(ranker.contributions(rows.only(ranker.names).features[spread])).mean(axis=0)
    order = np.lexsort((np.arange(len(means)), -means))
    return {ranker.names[place]: float(means[place]) for place in order.tolist()}
