"""The choices themselves: pure functions of lists, listens and chance. None: there is nothing to choose from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from service.state.listens import Listen

MOST_TIME = 1e9
"""Listening times above it count as this much, so that sums of them stay finite."""

Listed = Callable[[int], Sequence[int]]
"""Track -> the tracks recommended after it, best first; empty where there are none."""


def any_of(tracks: Sequence[int], rng: Random) -> int | None:
    """Choose uniformly."""
    return int(tracks[rng.randrange(len(tracks))]) if len(tracks) else None


def other_of(tracks: Sequence[int], previous: int, rng: Random) -> int | None:
    """Choose uniformly among unique tracks without the previous one; it is repeated where there is no other."""
    count = len(tracks)
    if count <= 1:
        return any_of(tracks, rng)
    chosen = int(tracks[rng.randrange(count - 1)])
    # The last one stands in for the previous: so that one draw does, and every other is equally likely.
    return int(tracks[count - 1]) if chosen == previous else chosen


def next_in(tracks: Sequence[int], previous: int) -> int | None:
    """Go one place on from the previous track, round and round; from the first place if it is not in the list."""
    if not tracks:
        return None
    at = tracks.index(previous) if previous in tracks else 0
    return int(tracks[(at + 1) % len(tracks)])


def from_anchor(listens: Sequence[Listen], listed: Listed, rng: Random) -> int | None:
    """Draw an anchor among the tracks heard, in proportion to the time each was heard for in all, and choose the
    first track of its list that was not heard; anchors without one are drawn no more.

    None when no anchor that was heard for any time is left.
    """
    seconds: dict[int, float] = {}
    for track, time in listens:
        seconds[track] = seconds.get(track, 0.0) + min(max(time, 0.0), MOST_TIME)
    weights = {track: time for track, time in seconds.items() if time > 0}
    while weights:
        (anchor,) = rng.choices(list(weights), list(weights.values()))
        for track in listed(anchor):
            if track not in seconds:
                return int(track)
        del weights[anchor]
    return None


def unheard(n_tracks: int, track_at: Callable[[int], int], heard: Sequence[Listen], rng: Random) -> int:
    """Choose uniformly among the catalogue's tracks that were not heard; among all where all were."""
    known = {track for track, _ in heard}
    if len(known) * 2 < n_tracks:
        while (track := track_at(rng.randrange(n_tracks))) in known:
            pass
        return track
    left = [track for row in range(n_tracks) if (track := track_at(row)) not in known]
    return left[rng.randrange(len(left))] if left else track_at(rng.randrange(n_tracks))
