"""A two_stage model made ready: it gathers a pool, and puts it in order by its trees."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from service.bundle.manifest import MANIFEST
from service.bundle.reader import Bundle, ModelData
from service.bundle.two_stage import TreeArrays, TwoStageSettings
from service.domain import Candidates
from service.errors import BundleRefused, StageUnavailable
from service.recommender.filters import Eligible
from service.recommender.ranking.attribution import FeatureContribution, RankerScore, attributed
from service.recommender.ranking.features import FeatureMaker, FeatureSettings, Static
from service.recommender.ranking.gather import Gatherer
from service.recommender.ranking.pool import Pool
from service.recommender.ranking.trees import Forest
from service.recommender.retrieval import Retriever
from service.recommender.user_state import UserState

Mask = npt.NDArray[np.bool_]


class TwoStage:
    """Gathers and ranks. Raises BundleRefused for a feature that this version doesn't make.

    `retrievers`: by name, of the bundle's other models.
    """

    def __init__(self, data: ModelData, bundle: Bundle, retrievers: Mapping[str, Retriever]) -> None:
        settings = TwoStageSettings.model_validate(dict(data.entry.parameters))
        self.gatherer = Gatherer(retrievers, settings.sources, settings.n_candidates)
        self.exact = Gatherer(retrievers, settings.sources, settings.n_candidates, exact=True)
        items = _static(data, "item_features", settings.item_features)
        users = _static(data, "user_features", settings.user_features)
        try:
            self.features = FeatureMaker(
                bundle,
                retrievers,
                FeatureSettings(self.gatherer.sources, tuple(settings.features), items, users),
            )
        except KeyError as error:
            raise BundleRefused(
                MANIFEST, f"models.{data.name}.parameters.features: no feature {error.args[0]!r} is made here"
            ) from None
        self._name, self._trees = data.name, TreeArrays.of(data.arrays, settings.bias)
        self.forest = Forest(self._trees)
        self._unknown_item, self._unknown_user = _unknown(items), _unknown(users)

    def retrieve(self, user: UserState, n: int, rules: Eligible) -> Candidates | None:
        """Gather and rank without a deadline; None where no source but popularity knows the user."""
        pool, _ = self.gatherer.gather(user, rules, n=n)
        return None if pool is None else self.rank(user, pool)

    def rank(self, user: UserState, pool: Pool) -> Candidates:
        """Put a pool in the trees' order. Of equals the one that was found earlier stands first."""
        scores = self.forest.scores(self.features.of(user, pool))
        order = (-scores).argsort(kind="stable")
        return Candidates(pool.item_rows[order], scores[order].astype(np.float32), pool.origin, filtered=True)

    def attribute(self, user: UserState, row: int, rules: Eligible) -> RankerScore | None:
        """Say which features an item's score comes from; None where the gathered pool doesn't have the item."""
        pool, _ = self.gatherer.gather(user, rules)
        places = np.flatnonzero(pool.item_rows == row) if pool is not None else ()
        if pool is None or not len(places):
            return None
        values = self.features.of(user, pool)[places]
        parts, base = attributed(self._trees, values[0])
        order = (-np.abs(parts)).argsort(kind="stable")
        told = tuple(
            FeatureContribution(name, credit, None if np.isnan(value) else value)
            for name, credit, value in zip(
                (self.features.names[place] for place in order.tolist()),
                parts[order].tolist(),
                values[0, order].tolist(),
                strict=True,
            )
            if credit
        )
        return RankerScore(self._name, float(self.forest.scores(values)[0]), base, told)

    def missing(self, user: UserState, pool: Pool) -> tuple[str, ...]:
        """What the ranker should have read and the bundle has nothing of: `user_features`, `item_features`.

        The bundle's own users only: of others there is nothing that it could have.
        """
        lacks: tuple[str, ...] = ()
        if self._unknown_user is not None and user.row >= 0 and self._unknown_user[user.row]:
            lacks = ("user_features",)
        if self._unknown_item is not None and self._unknown_item[pool.item_rows].any():
            lacks = (*lacks, "item_features")
        return lacks

    def exactly(self, user: UserState, rules: Eligible) -> Candidates | None:
        """`retrieve` with every source searched exactly: what golden queries ask. Raises StageUnavailable."""
        pool, left_out = self.exact.gather(user, rules)
        if left_out:
            raise StageUnavailable(left_out[0])
        return None if pool is None else self.rank(user, pool)


def _static(data: ModelData, role: str, names: list[str]) -> Static | None:
    return Static(tuple(names), data.arrays[role]) if role in data.arrays else None


def _unknown(static: Static | None) -> Mask | None:
    """Which rows hold nothing at all; None where all hold something."""
    if static is None:
        return None
    unknown: Mask = np.logical_and.reduce(np.isnan(static.values), axis=1)
    return unknown if unknown.any() else None
