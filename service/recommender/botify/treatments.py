"""The recommenders of botify as they can be declared, and what each becomes over one live bundle.

A recommender answers with a track, or with None where it has nothing to say: then a track is drawn at random, so that
every listener hears something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.bundle.ids import UNKNOWN
from service.domain import Deadline, ItemFilter, Plan, Query, Slate
from service.errors import InputError, ItemNotFound
from service.recommender.botify import picks
from service.recommender.botify.tracks import Tracks
from service.recommender.live import LiveBundle
from service.recommender.similar import similar
from service.state.listens import Listen

LIKED_FROM = 0.5
_COMPUTED_USER_LIST, _COMPUTED_ITEM_LIST = 100, 10
_WHOLE = 1 << 30
_OF_THE_USER = ("personal", "fold_in")

ModelField = Annotated[str, Field(min_length=1, max_length=64)]
CountField = Annotated[int, Field(ge=1, le=10_000)]
ShareField = Annotated[float, Field(ge=0, le=1)]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class RandomTreatment(_Declared):
    """Any track of the catalogue, each as likely."""

    recommender: Literal["random"]


class StickyArtist(_Declared):
    """Another track of the previous one's artist."""

    recommender: Literal["sticky_artist"]


class StickyArtistMixed(_Declared):
    """The same, unless the previous track was heard for less than `below` of its length: then any."""

    recommender: Literal["sticky_artist_mixed"]
    below: ShareField = 0.3


class TopPop(_Declared):
    """One of the k most popular tracks, each as likely."""

    recommender: Literal["top_pop"]
    k: CountField


class Indexed(_Declared):
    """One of the user's list, each as likely. `n`: how much of the list; all of a stored one by default."""

    recommender: Literal["indexed"]
    model: ModelField
    n: CountField | None = None


class Sequential(_Declared):
    """The one after the previous track in the user's list."""

    recommender: Literal["sequential"]
    model: ModelField
    n: CountField | None = None


class Contextual(_Declared):
    """One of the previous track's list, each as likely."""

    recommender: Literal["contextual"]
    model: ModelField
    n: CountField | None = None


class ItemToItem(_Declared):
    """The first unheard track after one of the tracks heard, drawn by how long each was heard for."""

    recommender: Literal["i2i"]
    model: ModelField
    n: CountField | None = None


class OwnModel(_Declared):
    """A model of the bundle through the request line. The listens come on top of what the bundle knows of the user:
    those heard for at least `liked_from` as taste, all as seen. One of the best `k`, each as likely."""

    recommender: Literal["model"]
    model: ModelField
    k: CountField = 1
    liked_from: ShareField = LIKED_FROM


Listed = Indexed | Sequential | Contextual | ItemToItem
Treatment = Annotated[
    RandomTreatment | StickyArtist | StickyArtistMixed | TopPop | Listed | OwnModel,
    Field(discriminator="recommender"),
]


@dataclass(frozen=True, slots=True)
class Turn:
    """One listener whose track has ended. listens: newest first, the one that ended among them."""

    user_id: int
    previous: Listen
    listens: tuple[Listen, ...]
    deadline: Deadline


Recommender = Callable[[Turn], int | None]
Line = Callable[[Query, Plan, LiveBundle, Deadline], Slate]
"""The request line: `pipeline.recommend`, or it with what the service counts around it."""


def bind(treatment: Treatment, live: LiveBundle, tracks: Tracks, rng: Random, line: Line) -> Recommender:
    """Make a treatment's recommender over one bundle. Raises InputError where the bundle has not what it needs."""
    match treatment:
        case RandomTreatment():
            return lambda _: None
        case StickyArtist():
            return _sticky(-inf, live, tracks, rng)
        case StickyArtistMixed(below=below):
            return _sticky(below, live, tracks, rng)
        case TopPop(k=k):
            top = tracks.ids(tracks.popular[:k])
            return lambda _: picks.any_of(top, rng)
        case OwnModel():
            return _own_model(treatment, live, rng, line)
        case _:
            return _of_lists(treatment, live, tracks, rng, line)


def _sticky(below: float, live: LiveBundle, tracks: Tracks, rng: Random) -> Recommender:
    if not tracks.artists:
        raise InputError(
            f"sticky artists: bundle {live.bundle_id} knows no artists (give its items a column 'artist')"
        )

    def recommend(turn: Turn) -> int | None:
        track, time = turn.previous
        return picks.other_of(tracks.of_artist_of(track), track, rng) if time >= below else None

    return recommend


def _of_lists(treatment: Listed, live: LiveBundle, tracks: Tracks, rng: Random, line: Line) -> Recommender:
    if isinstance(treatment, Indexed | Sequential):
        user_list = _user_lists(treatment.model, treatment.n, live, tracks, line)
        if isinstance(treatment, Indexed):
            return lambda turn: picks.any_of(user_list(turn), rng)
        return lambda turn: picks.next_in(user_list(turn), turn.previous.track)
    item_list = item_lists(treatment.model, treatment.n, live)
    if isinstance(treatment, Contextual):
        return lambda turn: picks.any_of(item_list(turn.previous.track), rng)

    def from_anchor(turn: Turn) -> int | None:
        found = picks.from_anchor(turn.listens, item_list, rng)
        return picks.unheard(len(tracks), tracks.at, turn.listens, rng) if found is None else found

    return from_anchor


def at_random(tracks: Tracks, rng: Random) -> int:
    """Draw any track of the catalogue, each as likely."""
    return tracks.at(rng.randrange(len(tracks)))


def _model(name: str, live: LiveBundle) -> str:
    found = live.models.get(name)
    if found is None:
        held = ", ".join(sorted(set(live.models) - {"default"}))
        raise InputError(f"bundle {live.bundle_id} holds no model {name!r}; it holds: {held}")
    return found.name


def _user_lists(
    name: str, n: int | None, live: LiveBundle, tracks: Tracks, line: Line
) -> Callable[[Turn], Sequence[int]]:
    name = _model(name, live)
    data, user_ids = live.models[name].data, live.bundle.user_ids
    if data.entry.kind == "lists":
        arrays = data.arrays

        def stored(turn: Turn) -> Sequence[int]:
            row = user_ids.row_of(turn.user_id)
            if row == UNKNOWN:
                return ()
            begin, end = int(arrays["indptr"][row]), int(arrays["indptr"][row + 1])
            return tracks.ids(arrays["items"][begin : end if n is None else min(end, begin + n)])

        return stored
    k = min(n or _COMPUTED_USER_LIST, len(tracks))

    def computed(turn: Turn) -> Sequence[int]:
        slate = line(Query(turn.user_id, k), Plan(name), live, turn.deadline)
        if slate.source not in _OF_THE_USER:
            return ()
        return slate.item_ids[: slate.n_personal]  # type: ignore[return-value]  # `read_tracks` refuses other ids

    return computed


def item_lists(name: str, n: int | None, live: LiveBundle) -> picks.Listed:
    """Make a model's lists by track, best first. Raises InputError for a model that has none."""
    name = _model(name, live)
    data = live.models[name].data
    if data.entry.kind not in ("item_item", "factors"):
        raise InputError(
            f"model {name!r} of kind {data.entry.kind} has no lists by track; take one of kind item_item or factors"
        )
    stored = "indices" in data.arrays
    k = n or (_WHOLE if stored else _COMPUTED_ITEM_LIST)

    def listed(track: int) -> Sequence[int]:
        try:
            return [item for item, _ in similar(track, k, name, live)]  # type: ignore[misc]  # as above
        except ItemNotFound:
            return ()

    return listed


def _own_model(treatment: OwnModel, live: LiveBundle, rng: Random, line: Line) -> Recommender:
    plan = Plan(_model(treatment.model, live))
    liked_from, k = treatment.liked_from, treatment.k

    def recommend(turn: Turn) -> int | None:
        best: dict[int, float] = {}
        for track, time in reversed(turn.listens):  # oldest first, as the line wants them
            best[track] = max(time, best.pop(track, time))
        liked = tuple(track for track, time in best.items() if time >= liked_from)
        others = frozenset(best).difference(liked)
        query = Query(turn.user_id, k, filter=ItemFilter(deny=others) if others else None, recent=liked)
        slate = line(query, plan, live, turn.deadline)
        return picks.any_of(slate.item_ids, rng)  # type: ignore[arg-type]  # as above

    return recommend
