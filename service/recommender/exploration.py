"""Exploration: leave places of a slate to chance, and say exactly how likely each of them was.

A place's propensity is the probability of its item given the items before it, so that their product is the
probability of the slate. Off-policy evaluation divides by it: a wrong one makes every later estimate wrong.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from service.domain import Candidates, Exploration, ItemRows, Plan, Query, Scores

Floats = npt.NDArray[np.float64]
_NOBODY: ItemRows = np.empty(0, np.int32)
_LEAST = 2.0**-54
"""Half of what `Generator.random` counts in: in the place of 0, which has no logarithm."""


def explore(
    candidates: Candidates, k: int, settings: Exploration, rng: np.random.Generator
) -> tuple[ItemRows, Scores, tuple[float, ...]]:
    """Choose min(k, n) of n candidates, which stand best first.

    Returns item rows and scores in the order of the places, and the propensity of each place.
    """
    n = len(candidates.item_rows)
    k = min(k, n)
    if settings.kind == "epsilon":
        chosen, propensities = _epsilon(n, k, settings.strength, rng)
    else:
        chosen, propensities = _softmax(_standardised(candidates.scores), k, settings.strength, rng)
    return candidates.item_rows[chosen], candidates.scores[chosen], propensities


def explored(
    candidates: Candidates | None,
    query: Query,
    plan: Plan,
    settings: Exploration,
    newcomers: ItemRows = _NOBODY,
) -> tuple[Candidates | None, tuple[float, ...]]:
    """Explore among the first max(k, n_candidates) candidates by the query's seed; without any there is no chance.

    newcomers: item rows, unique, of eligible items without events, for the kind of that name.
    """
    if candidates is None:
        return None, ()
    pool = max(query.k, plan.n_candidates)
    if len(candidates.item_rows) > pool:
        candidates = Candidates(
            candidates.item_rows[:pool], candidates.scores[:pool], candidates.source, candidates.filtered
        )
    rng = np.random.Generator(np.random.PCG64(query.seed))
    if settings.kind == "newcomers":
        return _with_newcomers(candidates, query.k, settings.strength, newcomers, rng)
    rows, scores, propensities = explore(candidates, query.k, settings, rng)
    return Candidates(rows, scores, candidates.source, candidates.filtered), propensities


def _with_newcomers(
    candidates: Candidates, k: int, share: float, newcomers: ItemRows, rng: np.random.Generator
) -> tuple[Candidates, tuple[float, ...]]:
    """Each place: with probability `share` any of the m newcomers not placed yet, else the best candidate not placed.

    P(item) = (1 - share) [it is the best] + (share / m) [it is a newcomer]; without newcomers left the best is certain.
    A newcomer that is no candidate has no score: 0.
    """
    waiting = newcomers.tolist()
    among = set(waiting)
    scores = dict(zip(candidates.item_rows.tolist(), candidates.scores.tolist(), strict=True))
    best_last = list(scores)[::-1]
    placed: set[int] = set()
    propensities: list[float] = []
    rows: list[int] = []
    k = min(k, len(best_last))
    draws = rng.random(2 * k).tolist()
    for strays, where in zip(draws[:k], draws[k:], strict=True):
        while best_last[-1] in placed:  # a place takes one candidate at most: there are k
            best_last.pop()
        best, m = best_last[-1], len(waiting)
        item = waiting[int(where * m)] if m and strays < share else best
        newcomer = item in among
        odds = share if m else 0.0
        propensities.append((1.0 - odds) * (item == best) + (odds / m if newcomer else 0.0))
        if newcomer:
            among.remove(item)
            waiting.remove(item)
        placed.add(item)
        rows.append(item)
    found = np.array([scores.get(row, 0.0) for row in rows], np.float32)
    return Candidates(np.array(rows, np.int32), found, candidates.source, candidates.filtered), tuple(
        propensities
    )


def completed(propensities: tuple[float, ...], n_places: int) -> tuple[float, ...]:
    """Propensities of a whole slate: what the fallback added was certain, given what stood before it."""
    return propensities + (1.0,) * (n_places - len(propensities))


def _epsilon(n: int, k: int, epsilon: float, rng: np.random.Generator) -> tuple[list[int], tuple[float, ...]]:
    """Each place: with probability epsilon any of the m remaining, else the best of them.

    P(best) = 1 - epsilon + epsilon / m, P(another) = epsilon / m.
    """
    left = list(range(n - 1, -1, -1))  # the best last: taking it moves nothing
    chosen: list[int] = []
    propensities: list[float] = []
    draws = rng.random(2 * k).tolist()
    for strays, where in zip(draws[:k], draws[k:], strict=True):
        m = len(left)
        at = int(where * m) if strays < epsilon else 0
        chosen.append(left.pop(-1 - at))
        stray = epsilon / m
        propensities.append(stray if at else (1.0 - epsilon + stray if m > 1 else 1.0))
    return chosen, tuple(propensities)


def _softmax(
    logits: Floats, k: int, temperature: float, rng: np.random.Generator
) -> tuple[list[int], tuple[float, ...]]:
    """Draw k without replacement, each place in proportion to exp(logit / temperature) among the remaining.

    The Plackett-Luce model (Plackett, 1975), sampled at once: the k largest of logit / temperature + Gumbel noise
    come in its order (Kool et al., ICML 2019, section 2.3). The propensities are computed on the logarithmic scale,
    from the last place backwards, so that no sum is ever made smaller by a subtraction.
    """
    scaled = logits / temperature
    noise = -np.log(-np.log(np.maximum(rng.random(len(scaled)), _LEAST)))
    order = (-(scaled + noise)).argsort(kind="stable")
    ordered = scaled[order]
    remaining = np.logaddexp.accumulate(ordered[::-1])[::-1]
    propensities = np.exp(np.minimum(ordered[:k] - remaining[:k], 0.0))
    return order[:k].tolist(), tuple(propensities.tolist())


def _standardised(scores: Scores) -> Floats:
    """float64 (n,): scores in standard deviations of the pool, all 0 where they don't differ."""
    wide = scores.astype(np.float64)
    deviation = float(wide.std())
    if not 0.0 < deviation < np.inf:
        return np.zeros(len(wide))
    standardised: Floats = (wide - wide.mean()) / deviation
    return standardised
