"""What the ranker reads of a user and a pool: small groups of features over arrays, each by its names.

A group is a callable with `names`; `_GROUPS` lists what makes them. Training asks this very code, so a feature
means the same there and here. NaN says that nothing is known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from service.bundle.reader import Bundle
from service.domain import ItemRows
from service.recommender.ranking.pool import Pool
from service.recommender.recency import fading
from service.recommender.retrieval import FactorsRetriever, ItemItemRetriever, Retriever
from service.recommender.user_state import UserState

Floats = npt.NDArray[np.float32]
_NEAREST = 10
"""How many of the newest history items are compared with candidates."""
_RECENT_HALF_LIFE = 10.0
"""In items, of the recency-weighted taste."""
_TASTE_LENGTH = 200
"""How much of a history makes a taste: what weighs less than 2^-20 beside the newest changes nothing."""


@dataclass(frozen=True, slots=True)
class Static:
    """Numbers known beforehand. values: float32 (n_rows, len(names)), NaN where nothing is known."""

    names: tuple[str, ...]
    values: Floats


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """sources: the pool's. names: the features wanted, in their order; None: all there are.

    items: one row an item of the catalogue. users: one row a user.
    """

    sources: tuple[str, ...]
    names: tuple[str, ...] | None = None
    items: Static | None = None
    users: Static | None = None


class Group(Protocol):
    """Features made together."""

    @property
    def names(self) -> tuple[str, ...]:
        """What they are called, in order."""

    def __call__(self, user: UserState, pool: Pool, out: Floats) -> None:
        """Write float32 (len(names), n_pool): a row a feature."""


class FeatureMaker:
    """Makes the features of a pool. Raises KeyError for a name that no group makes."""

    def __init__(
        self, bundle: Bundle, retrievers: Mapping[str, Retriever], settings: FeatureSettings
    ) -> None:
        groups = [group for make in _GROUPS for group in make(bundle, retrievers, settings)]
        made = [name for group in groups for name in group.names]
        self.names = tuple(made) if settings.names is None else settings.names
        for name in self.names:
            if name not in made:
                raise KeyError(name)
        wanted = frozenset(self.names)
        self._groups: list[tuple[Group, slice]] = []
        at: dict[str, int] = {}
        end = 0
        for group in groups:
            if wanted.isdisjoint(group.names):
                continue
            begin, end = end, end + len(group.names)
            self._groups.append((group, slice(begin, end)))
            at.update(zip(group.names, range(begin, end), strict=True))
        self._height = end
        places = [at[name] for name in self.names]
        self._places = None if places == list(range(end)) else np.array(places)

    def of(self, user: UserState, pool: Pool) -> Floats:
        """float32 (n_pool, len(names)), stored a feature after the other."""
        made = np.empty((self._height, len(pool)), np.float32)
        for group, rows in self._groups:
            group(user, pool, made[rows])
        return (made if self._places is None else made[self._places]).T


Make = Callable[[Bundle, Mapping[str, Retriever], FeatureSettings], Sequence[Group]]


class FromSources:
    """Each source's score and rank; the score within the pool's span; how many sources listed the item."""

    def __init__(self, sources: tuple[str, ...]) -> None:
        self._n = len(sources)
        kinds = ("score", "scaled", "rank")
        self.names = (*(f"{kind}:{name}" for kind in kinds for name in sources), "sources", "best_rank")

    def __call__(self, user: UserState, pool: Pool, out: Floats) -> None:  # noqa: ARG002 (the Protocol's)
        """Write the rows."""
        n, scores, ranks = self._n, pool.scores.T, pool.ranks.T
        out[:n] = scores
        least = np.fmin.reduce(scores, axis=1, keepdims=True)
        span = np.fmax.reduce(scores, axis=1, keepdims=True) - least
        span[span == 0.0] = 1.0
        np.divide(scores - least, span, out=out[n : 2 * n])
        out[2 * n : 3 * n] = ranks
        out[3 * n] = n - np.isnan(ranks).sum(axis=0)
        np.fmin.reduce(ranks, axis=0, out=out[3 * n + 1])


class Agreement:
    """Sum over the sources of 1 / (60 + place): reciprocal rank fusion (Cormack et al., SIGIR 2009)."""

    names = ("agreement",)

    def __call__(self, user: UserState, pool: Pool, out: Floats) -> None:  # noqa: ARG002 (the Protocol's)
        """Write float32 (len(names), n_pool): a row a feature."""
        listed = 1.0 / (pool.ranks.T + 61.0)
        np.nansum(listed, axis=0, out=out[0])


class History:
    """How much is known of the user."""

    names = ("history_length",)

    def __call__(self, user: UserState, pool: Pool, out: Floats) -> None:  # noqa: ARG002 (the Protocol's)
        """Write the rows."""
        out[0] = len(user.history)


class Items:
    """Numbers of the item itself."""

    def __init__(self, static: Static) -> None:
        self.names = tuple(f"item:{name}" for name in static.names)
        self._values = static.values

    def __call__(self, user: UserState, pool: Pool, out: Floats) -> None:  # noqa: ARG002 (the Protocol's)
        """Write the rows."""
        out[:] = self._values[pool.item_rows].T


class Contrasts:
    """An item's numbers beside those of the user's newest items: the difference from their mean.

    And how far ahead it is: the log of the place at which users usually reach it (`log_place`, where that is among the
    numbers) less that of the place where this user stands.
    """

    _LAST = (1, 5, 20)

    def __init__(self, static: Static) -> None:
        self.names = tuple(f"versus{last}:{name}" for last in self._LAST for name in static.names)
        self._values, self._width = static.values, len(static.names)
        self._place = static.names.index("log_place") if "log_place" in static.names else None
        if self._place is not None:
            self.names = (*self.names, "ahead")

    def __call__(self, user: UserState, pool: Pool, out: Floats) -> None:
        """Write float32 (len(names), n_pool): a row a feature."""
        values, width = self._values[pool.item_rows].T, self._width
        newest = self._values[user.history[: -self._LAST[-1] - 1 : -1]]
        unknown = np.isnan(newest)
        known = ~unknown
        newest[unknown] = 0.0
        for number, last in enumerate(self._LAST):
            counts = known[:last].sum(axis=0)
            means = newest[:last].sum(axis=0) / np.maximum(counts, 1)
            means[counts == 0] = np.nan
            np.subtract(values, means[:, None], out=out[number * width : (number + 1) * width])
        if self._place is not None:
            np.subtract(values[self._place], np.float32(np.log1p(len(user.history))), out=out[-1])


class Rows:
    """How far apart a candidate and the newest history items stand in the catalogue.

    Ids are often given in an order that means something: of release, of listing, of kind.
    """

    names = ("rows:last1", "rows:mean5", "rows:nearest5", "rows:nearest20", "rows:nearest")

    def __call__(self, user: UserState, pool: Pool, out: Floats) -> None:
        """Write float32 (len(names), n_pool): a row a feature."""
        if len(user.history) == 0:
            out[:] = np.nan
            return
        rows = pool.item_rows
        apart = (rows - user.history[:-21:-1, None]).astype(np.float32)
        out[0] = apart[0]
        np.mean(apart[:5], axis=0, out=out[1])
        np.abs(apart, out=apart)
        np.min(apart[:5], axis=0, out=out[2])
        np.min(apart, axis=0, out=out[3])
        ordered = np.sort(user.history)
        place = np.searchsorted(ordered, rows)
        below = ordered[np.maximum(place - 1, 0)]
        above = ordered[np.minimum(place, len(ordered) - 1)]
        np.minimum(np.abs(rows - below), np.abs(above - rows), out=out[4], casting="same_kind")


class Users:
    """Numbers of the user; NaN for one without a row."""

    def __init__(self, static: Static) -> None:
        self.names = tuple(f"user:{name}" for name in static.names)
        self._values = static.values

    def __call__(self, user: UserState, pool: Pool, out: Floats) -> None:  # noqa: ARG002 (the Protocol's)
        """Write the rows."""
        out[:] = self._values[user.row][:, None] if user.row >= 0 else np.nan


class Tastes:
    """Per attribute, how much of the history shares the candidate's values: all of it, the recent, the newest five.

    A share is the sum over the candidate's values of the share of the history's values that they are, divided by
    nothing: 1 where all of the history's values are the candidate's. 0 for an item or a history without values.
    """

    def __init__(self, bundle: Bundle) -> None:
        attributes = list(bundle.attributes.items())
        kinds = ("taste", "taste_recent", "taste_last5")
        self.names = tuple(f"{kind}:{name}" for kind in kinds for name, _ in attributes)
        self._n = len(attributes)
        n_items = len(bundle.item_ids)
        # All attributes in one CSR, an item's side by side; code 0 is nobody's value, and every item has it of every
        # attribute, so that no span is empty.
        counts = [np.diff(attribute.indptr) + 1 for _, attribute in attributes]
        lengths = np.stack(counts, axis=1)
        self._indptr = np.zeros(n_items * self._n + 1, np.int64)
        np.cumsum(lengths.ravel(), out=self._indptr[1:])
        self._codes = np.zeros(int(self._indptr[-1]), np.int32)
        first = 1
        widths = []
        for number, (_, attribute) in enumerate(attributes):
            begins = self._indptr[number : -1 : self._n] + 1
            shift = np.repeat(begins - attribute.indptr[:-1], np.diff(attribute.indptr))
            self._codes[np.arange(len(attribute.codes)) + shift] = attribute.codes + first
            widths.append(max(len(attribute.values), 1))
            first += widths[-1]
        self._n_codes = first
        # The attribute of each code; nobody's value has one of its own.
        self._attribute_of = np.repeat(np.arange(-1, self._n), (1, *widths)) % (self._n + 1)
        self._weights = fading(_TASTE_LENGTH, _RECENT_HALF_LIFE)

    def __call__(self, user: UserState, pool: Pool, out: Floats) -> None:
        """Write the rows."""
        codes, lengths = self._codes_of(user.history)
        n_history, n = len(user.history), self._n
        counts = lengths.reshape(n_history, n).sum(axis=1) if n_history else lengths
        weights = np.zeros(n_history)
        recent = self._weights[-n_history:] if n_history else weights
        weights[-len(recent) :] = recent
        newest = np.zeros(n_history)
        newest[-5:] = 1.0
        asked, lengths = self._codes_of(pool.item_rows)
        of_asked, of_history = self._attribute_of[asked], self._attribute_of[codes]
        shares = np.empty((3, len(asked)), np.float32)
        for row, weight in enumerate((None, weights, newest)):
            given = None if weight is None else np.repeat(weight, counts)
            sums = np.bincount(codes, weights=given, minlength=self._n_codes)
            totals = np.bincount(of_history, weights=given, minlength=n + 1).astype(np.float64)
            totals[totals == 0.0] = 1.0
            totals[n] = np.inf
            np.divide(sums[asked], totals[of_asked], out=shares[row], casting="same_kind")
        sums = np.add.reduceat(shares, lengths.cumsum() - lengths, axis=1)
        out[:] = sums.reshape(3, len(pool), n).transpose(0, 2, 1).reshape(3 * n, len(pool))

    def _codes_of(self, rows: ItemRows) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Codes of the items, one after the other, and how many each item has of each attribute."""
        spans = (rows[:, None].astype(np.int64) * self._n + np.arange(self._n)).ravel()
        starts = self._indptr[spans]
        lengths = self._indptr[spans + 1] - starts
        ends = lengths.cumsum()
        total = int(ends[-1]) if len(ends) else 0
        return self._codes[np.arange(total) + np.repeat(starts - ends + lengths, lengths)], lengths


class Neighbours:
    """What an item-to-item model says of the newest history items and a candidate: summed over the last so many, the
    most of one, the least of the last three, and how many say anything for it."""

    _LAST = (1, 2, 3, 5, 10)

    def __init__(self, name: str, retriever: ItemItemRetriever) -> None:
        told = (*(f"last{last}" for last in self._LAST), "max", "least3", "count")
        self.names = tuple(f"near:{name}:{kind}" for kind in told)
        self._weights_between = retriever.weights_between
        self._rows = np.array([last - 1 for last in self._LAST])

    def __call__(self, user: UserState, pool: Pool, out: Floats) -> None:
        """Write the rows."""
        newest = user.history[: -_NEAREST - 1 : -1]
        if len(newest) == 0:
            out[:] = np.nan
            return
        weights = self._weights_between(newest, pool.item_rows)
        sums = weights.cumsum(axis=0)
        out[:-3] = sums[np.minimum(self._rows, len(sums) - 1)]
        out[-3] = weights.max(axis=0)
        out[-2] = weights[:3].min(axis=0)
        out[-1] = (weights > 0.0).sum(axis=0)


class Cosines:
    """Cosines of a candidate's vector with those of the newest history items."""

    def __init__(self, name: str, retriever: FactorsRetriever) -> None:
        self.names = tuple(f"cosine:{name}:{kind}" for kind in ("last1", "last3", "mean", "max"))
        self._position_of, self._exact = retriever.position_of, retriever.exact

    def __call__(self, user: UserState, pool: Pool, out: Floats) -> None:
        """Write the rows."""
        newest = self._position_of[user.history[: -_NEAREST - 1 : -1]]
        newest = newest[newest >= 0]
        if len(newest) == 0:
            out[:] = np.nan
            return
        positions = self._position_of[pool.item_rows]
        cosines = self._exact.cosines_between(newest, positions)
        out[0] = cosines[0]
        np.mean(cosines[:3], axis=0, out=out[1])
        np.mean(cosines, axis=0, out=out[2])
        np.max(cosines, axis=0, out=out[3])
        out[:, positions < 0] = np.nan


def _found(_: Bundle, __: Mapping[str, Retriever], settings: FeatureSettings) -> Sequence[Group]:
    return (FromSources(settings.sources), Agreement(), History(), Rows())


def _static(_: Bundle, __: Mapping[str, Retriever], settings: FeatureSettings) -> Sequence[Group]:
    items = () if settings.items is None else (Items(settings.items), Contrasts(settings.items))
    return (*items, *(() if settings.users is None else (Users(settings.users),)))


def _tastes(bundle: Bundle, _: Mapping[str, Retriever], __: FeatureSettings) -> Sequence[Group]:
    return (Tastes(bundle),) if bundle.attributes else ()


def _near(_: Bundle, retrievers: Mapping[str, Retriever], settings: FeatureSettings) -> Sequence[Group]:
    groups: list[Group] = []
    for name in settings.sources:
        retriever = retrievers[name]
        if isinstance(retriever, ItemItemRetriever):
            groups.append(Neighbours(name, retriever))
        elif isinstance(retriever, FactorsRetriever):
            groups.append(Cosines(name, retriever))
    return groups


_GROUPS: tuple[Make, ...] = (_found, _static, _tastes, _near)
"""In the order in which all features stand."""
