"""A made-up world with something true to learn: who likes what, what is popular when, who comes when.

Users and items are unit vectors in one space. An item's is drawn towards its genres, a user's towards its segment
(age, sex). An event picks one of the user's topics, then an item in proportion to popularity that week times
exp(sharpness * topic . item); so co-occurrence, factors, segments, recency and popularity all carry some truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

DIM = 12
N_TOPICS = 40
N_GENRES = 20
N_AGES = 6
N_SEXES = 2
ZIPF = 0.85
TOPIC_SHARPNESS = 12.0
"""How far a topic prefers the items near it."""
USER_SHARPNESS = 14.0
"""How far a user keeps to the topics near them."""
SEGMENT_SHARE = 0.5
"""Weight of the segment's vector in a user's, the rest being their own."""
ACTIVE_SHARE = 0.92
LATE_SHARE = 0.15
"""Share of active users who come only in the last tenth of the time."""
NEW_ITEM_SHARE = 0.17
UNSEEN_ITEM_SHARE = 0.03
"""Items released after the last day: in the catalogue, without an event."""
MAX_CATALOGUE_SHARE = 0.3
"""No user has watched more of the catalogue than this."""
CHUNK_USERS = 100_000


@dataclass(frozen=True, slots=True)
class World:
    """What is fixed before anybody watches. Vectors are unit norm, float64.

    item_vectors (n_items, DIM), topics (N_TOPICS, DIM), item_genres bool (n_items, N_GENRES),
    release_day int64 (n_items,) relative to the first day, popularity (n_weeks, n_items) unnormalised,
    segments (N_AGES, N_SEXES, DIM).
    """

    n_days: int
    item_vectors: Floats
    topics: Floats
    item_genres: npt.NDArray[np.bool_]
    release_day: Integers
    popularity: Floats
    segments: Floats


@dataclass(frozen=True, slots=True)
class Audience:
    """All users. age and sex int64 (n_users,), -1 unknown to the tables though it drives taste all the same.

    n_events int64 (n_users,): 0 for those who never watch. first_day int64 (n_users,).
    """

    age: Integers
    sex: Integers
    n_events: Integers
    first_day: Integers


@dataclass(frozen=True, slots=True)
class Watched:
    """Events of a run of users. users, items, days int64 (n,); affinity float64 (n,) in -1..1, how well they fit."""

    users: Integers
    items: Integers
    days: Integers
    affinity: Floats


def unit(vectors: Floats) -> Floats:
    """Scale each row to length 1."""
    scaled: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


def make_world(n_items: int, n_days: int, rng: np.random.Generator) -> World:
    """Draw genres, items, topics, segments, and the popularity of every item in every week."""
    genres = unit(rng.normal(size=(N_GENRES, DIM)))
    genre_weight = 1.0 / np.arange(1, N_GENRES + 1) ** 0.7
    item_genres = np.zeros((n_items, N_GENRES), np.bool_)
    for _ in range(3):  # one to three genres an item: a repeated draw changes nothing
        item_genres[
            np.arange(n_items), rng.choice(N_GENRES, n_items, p=genre_weight / genre_weight.sum())
        ] = True
    own = unit(rng.normal(size=(n_items, DIM)))
    items = unit(unit(item_genres @ genres) + 0.7 * own)
    ages = rng.normal(size=(N_AGES, 1, DIM))
    sexes = rng.normal(size=(1, N_SEXES, DIM))
    release = _release_days(n_items, n_days, rng)
    return World(
        n_days=n_days,
        item_vectors=items,
        topics=unit(rng.normal(size=(N_TOPICS, DIM))),
        item_genres=item_genres,
        release_day=release,
        popularity=_popularity(release, n_days, rng),
        segments=unit(unit(ages) + unit(sexes)),
    )


def _release_days(n_items: int, n_days: int, rng: np.random.Generator) -> Integers:
    """Most items before the first day; some on a week's first day during it; some after the last day."""
    release = -rng.exponential(2000, n_items).astype(np.int64) - 1
    fate = rng.random(n_items)
    n_weeks = -(-n_days // 7)
    during = (fate < NEW_ITEM_SHARE) & (n_weeks > 1)
    release[during] = 7 * rng.integers(1, max(n_weeks, 2), int(during.sum()))
    release[fate > 1 - UNSEEN_ITEM_SHARE] = n_days + 7
    release[np.argmin(release)] = -1  # whatever was drawn, there is something to watch from the first day
    return release


def _popularity(release: Integers, n_days: int, rng: np.random.Generator) -> Floats:
    """float64 (n_weeks, n_items): Zipf, drifting week by week; new items burn bright; a few have their weeks."""
    n_items, n_weeks = len(release), -(-n_days // 7)
    base = 1.0 / (1.0 + rng.permutation(n_items)) ** ZIPF
    weeks = np.arange(n_weeks)[:, None]
    drift = np.cumsum(rng.normal(0, 0.15, (n_weeks, n_items)), axis=0)
    age = weeks - release[None, :] / 7
    novelty = np.where(release[None, :] >= 0, 0.3 + 4.0 * np.exp(-np.maximum(age, 0) / 3), 1.0)
    promoted = rng.random(n_items) < 0.05
    begins = rng.integers(0, n_weeks, n_items)
    promotion = np.where(promoted & (weeks >= begins) & (weeks < begins + 3), 5.0, 1.0)
    popularity: Floats = np.where(age >= 0, base * np.exp(drift) * novelty * promotion, 0.0)
    return popularity


def make_audience(n_users: int, n_events: int, world: World, rng: np.random.Generator) -> Audience:
    """Draw segments, when users come, and how many events each has: heavy-tailed, `n_events` in all."""
    age = rng.choice(N_AGES, n_users, p=(0.15, 0.28, 0.25, 0.16, 0.10, 0.06))
    sex = rng.choice(N_SEXES, n_users, p=(0.49, 0.51))
    n_active = min(max(round(n_users * ACTIVE_SHARE), 1), n_events)
    active = rng.permutation(n_users)[:n_active]
    counts = np.zeros(n_users, np.int64)
    counts[active] = _share_out(n_events, n_active, _most_events(world), rng)
    kind = rng.random(n_users)
    first = np.where(kind < 0.6, 0, (rng.random(n_users) * world.n_days).astype(np.int64))
    late_from = world.n_days - max(world.n_days // 10, 1)
    late = late_from + (rng.random(n_users) * (world.n_days - late_from)).astype(np.int64)
    first = np.where(kind > 1 - LATE_SHARE, late, first)
    return Audience(age, sex, counts, first)


def _most_events(world: World) -> int:
    """How many events a user may have: a share of what is there to watch from the first day."""
    return max(int((world.release_day < 0).sum() * MAX_CATALOGUE_SHARE), 1)


def capacity(n_users: int, world: World) -> int:
    """Most events that so many users can have in this world."""
    return max(round(n_users * ACTIVE_SHARE), 1) * _most_events(world)


def _share_out(n_events: int, n_users: int, most: int, rng: np.random.Generator) -> Integers:
    """int64 (n_users,), each in 1..most, `n_events` in all, in proportion to log-normal weights."""
    weights = rng.lognormal(0, 1.1, n_users)
    counts = np.ones(n_users, np.int64)
    while (left := n_events - int(counts.sum())) > 0:
        open_to_more = np.flatnonzero(counts < most)
        share = weights[open_to_more] / weights[open_to_more].sum() * left
        more = np.floor(share).astype(np.int64)
        # What rounding left over goes to the largest remainders.
        largest = np.argsort(more - share, kind="stable")[: left - int(more.sum())]
        more[largest] += 1
        counts[open_to_more] = np.minimum(counts[open_to_more] + more, most)
    return counts


def watch(world: World, audience: Audience, seeds: np.random.SeedSequence) -> Iterator[Watched]:
    """Yield events of users in runs of CHUNK_USERS, in the order of the users; no user watches an item twice."""
    n_users = len(audience.age)
    starts = range(0, n_users, CHUNK_USERS)
    for start, seed in zip(starts, seeds.spawn(len(starts)), strict=True):
        yield _watch_run(
            world, audience, slice(start, min(start + CHUNK_USERS, n_users)), np.random.default_rng(seed)
        )


def _watch_run(world: World, audience: Audience, run: slice, rng: np.random.Generator) -> Watched:
    vectors = _user_vectors(world, audience, run, rng)
    likes = np.exp(USER_SHARPNESS * vectors @ world.topics.T)
    chances = np.cumsum(likes / likes.sum(axis=1, keepdims=True), axis=1)
    users = np.repeat(np.arange(run.stop - run.start), audience.n_events[run])
    first = audience.first_day[run][users]
    days = first + (rng.random(len(users)) * (world.n_days - first)).astype(np.int64)
    items = _choose_items(world, users, days // 7, chances, rng)
    affinity = np.einsum("nd,nd->n", vectors[users], world.item_vectors[items])
    return Watched(users + run.start, items, days, affinity)


def _user_vectors(world: World, audience: Audience, run: slice, rng: np.random.Generator) -> Floats:
    own = unit(rng.normal(size=(run.stop - run.start, DIM)))
    segment = world.segments[audience.age[run], audience.sex[run]]
    return unit(SEGMENT_SHARE * segment + (1 - SEGMENT_SHARE) * own)


def _choose_items(
    world: World, users: Integers, weeks: Integers, chances: Floats, rng: np.random.Generator
) -> Integers:
    """int64 (n,): an item for each event, no pair twice; a repeated draw is drawn again, at last at random."""
    n_items = len(world.item_vectors)
    items = np.full(len(users), -1, np.int64)
    pending = np.arange(len(users))
    for _ in range(12):
        drawn = (rng.random(len(pending))[:, None] > chances[users[pending]]).sum(axis=1)
        topics = np.minimum(drawn, N_TOPICS - 1)
        items[pending] = _draw(world, weeks[pending], topics, rng)
        pairs = users * n_items + items
        keep = np.zeros(len(users), np.bool_)
        keep[np.unique(pairs, return_index=True)[1]] = True
        pending = np.flatnonzero(~keep)
        items[pending] = -1
        if not len(pending):
            return items
    _fill(world, users, weeks, items, pending, rng)
    return items


def _draw(world: World, weeks: Integers, topics: Integers, rng: np.random.Generator) -> Integers:
    """Draw an item for each (week, topic), group by group."""
    pull = np.exp(TOPIC_SHARPNESS * world.topics @ world.item_vectors.T)
    groups = weeks * N_TOPICS + topics
    order = np.argsort(groups, kind="stable")
    luck = rng.random(len(groups))
    items = np.empty(len(groups), np.int64)
    present, begins = np.unique(groups[order], return_index=True)
    for group, rows in zip(present.tolist(), np.split(order, begins[1:]), strict=True):
        cumulative = np.cumsum(world.popularity[group // N_TOPICS] * pull[group % N_TOPICS])
        # Below the total even where the product rounds up to it.
        drawn = np.minimum(luck[rows] * cumulative[-1], np.nextafter(cumulative[-1], 0))
        items[rows] = np.searchsorted(cumulative, drawn, side="right")
    return items


def _fill(
    world: World,
    users: Integers,
    weeks: Integers,
    items: Integers,
    pending: Integers,
    rng: np.random.Generator,
) -> None:
    """Give each event that is still without an item any item of that week its user hasn't watched."""
    begins = np.searchsorted(users, np.arange(users[-1] + 2))
    for event in pending.tolist():
        out = world.popularity[weeks[event]] > 0
        theirs = items[begins[users[event]] : begins[users[event] + 1]]
        out[theirs[theirs >= 0]] = False
        items[event] = rng.choice(np.flatnonzero(out))
