"""The request line: user state, retrieve, filter, rank, rules, rerank, explore, complete.

Every served, evaluated or submitted slate is its work.
"""

from __future__ import annotations

from service.domain import Candidates, Deadline, Plan, Query, Slate
from service.errors import StageUnavailable
from service.recommender.costs import StageCost
from service.recommender.exploration import completed, explored
from service.recommender.fallback import complete
from service.recommender.filters import Eligible, among, drop_ineligible, eligible
from service.recommender.live import LiveBundle, LiveModel
from service.recommender.ranking.pool import Pool
from service.recommender.reranking import reranked
from service.recommender.rules import pinned, weighed
from service.recommender.user_state import UserState, user_state


def recommend(query: Query, plan: Plan, live: LiveBundle, deadline: Deadline) -> Slate:
    """Turn a user into exactly k unique, eligible, unseen items while the eligible catalogue has k.

    A stage runs only if its expected cost fits before the deadline; one that doesn't is named in `degraded` and the
    fallback answers in its stead. Raises ModelNotFound, and InvalidRequest for a filter the catalogue can't apply.
    """
    model = live.resolve(plan.model)
    bundle = live.bundle
    user = user_state(query, bundle)
    rules = eligible(query, user, bundle)
    started = deadline.now()
    candidates: Candidates | None = None
    pool: Pool | None = None
    degraded: tuple[str, ...] = ()
    if model.ranking is not None:
        pool, degraded, retrieved = _gather(user, query, plan, model, rules, deadline)
    elif deadline.fits(model.retrieve_cost.upper, started):
        try:
            candidates = model.retrieve(user, max(query.k, plan.n_candidates), rules)
        except StageUnavailable as missing:
            degraded = (missing.stage,)
        retrieved = deadline.now()
        model.retrieve_cost.observe(retrieved - started)
        if retrieved > deadline.expires_at:
            degraded = (*degraded, "overrun")
    else:
        model.retrieve_cost.skipped()
        retrieved = started
        degraded = ("retrieve",)
    if candidates is not None and not candidates.filtered:
        candidates = drop_ineligible(candidates, rules)
    timings: tuple[tuple[str, float], ...] = (("retrieve", retrieved - started),)
    propensities: tuple[float, ...] | None = None
    chosen = retrieved
    if pool is not None:
        candidates, told, chosen = _rank(user, pool, plan, model, deadline)
        timings, degraded = (*timings, ("rank", chosen - retrieved)), (*degraded, *told)
    if plan.rules:
        candidates = _weighed(candidates, user, query, plan, rules, live)
    if plan.reranking is not None and candidates is not None and len(candidates.item_rows):
        began = chosen
        candidates, told, chosen = _rerank(candidates, query, plan, model, live, user, deadline)
        timings, degraded = (*timings, ("rerank", chosen - began)), (*degraded, *told)
    candidates = pinned(candidates, plan.rules, bundle)
    if plan.exploration is not None:
        newcomers = (
            among(live.newcomers, rules) if plan.exploration.kind == "newcomers" else live.newcomers[:0]
        )
        candidates, propensities = explored(candidates, query, plan, plan.exploration, newcomers)
        began, chosen = chosen, deadline.now()
        timings = (*timings, ("explore", chosen - began))
    rows, scores, source, n_personal, top_up = complete(candidates, query.k, user, rules, live.popular)
    item_ids = bundle.item_ids.take(rows)
    timings = (*timings, ("complete", deadline.now() - chosen))
    return Slate(  # by place: names would cost a third of a microsecond
        item_ids, scores.tolist(), source, n_personal, top_up, degraded, timings,
        None if propensities is None else completed(propensities, len(rows)),
        None if pool is None else pool.found_by(rows),
    )  # fmt: skip


def _gather(
    user: UserState, query: Query, plan: Plan, model: LiveModel, rules: Eligible, deadline: Deadline
) -> tuple[Pool | None, tuple[str, ...], float]:
    """Ask the sources that fit: their pool, what `degraded` is told, and the clock's reading after it."""
    assert model.ranking is not None
    gatherer = model.ranking.gatherer
    wanted = max(query.k, plan.n_candidates)
    pool, told = gatherer.gather(user, rules, deadline, n=wanted, skip=plan.left_out)
    ended = deadline.now()
    if len(told) == len(gatherer.sources):
        return None, ("retrieve",), ended
    return pool, (*told, "overrun") if ended > deadline.expires_at else told, ended


def _rank(
    user: UserState, pool: Pool, plan: Plan, model: LiveModel, deadline: Deadline
) -> tuple[Candidates, tuple[str, ...], float]:
    """Rank if it fits, else keep the order of retrieval: candidates, what `degraded` is told, the clock's reading."""
    assert model.ranking is not None
    if "rank" in plan.left_out:
        return pool.in_retrieval_order(), (), deadline.now()
    started = deadline.now()
    if not deadline.fits(model.rank_cost.upper, started):
        model.rank_cost.skipped()
        return pool.in_retrieval_order(), ("rank",), deadline.now()
    candidates, told = model.ranking.rank(user, pool), model.ranking.missing(user, pool)
    ended = deadline.now()
    model.rank_cost.observe(ended - started)
    return candidates, (*told, "overrun") if ended > deadline.expires_at else told, ended


def _weighed(
    candidates: Candidates | None,
    user: UserState,
    query: Query,
    plan: Plan,
    rules: Eligible,
    live: LiveBundle,
) -> Candidates:
    """What the rules of the business make of the candidates; of what is popular where there are none."""
    if candidates is None:
        wanted = max(query.k, plan.n_candidates)
        candidates = live.popular.walk(live.popular.segment_of(user), wanted, rules, frozenset())
    return weighed(candidates, plan.rules, live.bundle)


def _rerank(
    candidates: Candidates,
    query: Query,
    plan: Plan,
    model: LiveModel,
    live: LiveBundle,
    user: UserState,
    deadline: Deadline,
) -> tuple[Candidates, tuple[str, ...], float]:
    """Rerank if it fits: the candidates, what `degraded` is told, and the clock's reading after it."""
    assert plan.reranking is not None
    cost = model.rerank_costs.setdefault((plan.reranking, plan.n_candidates), StageCost())
    started = deadline.now()
    if not deadline.fits(cost.upper, started):
        cost.skipped()
        return candidates, ("rerank",), started
    candidates = reranked(candidates, query.k, plan, model, live.bundle, user.history)
    ended = deadline.now()
    cost.observe(ended - started)
    return candidates, ("overrun",) if ended > deadline.expires_at else (), ended
