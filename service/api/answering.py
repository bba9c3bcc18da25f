"""What every route but the hot one does around the pipeline: one bundle, one rescue, one disclosure, one count."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from service.api.guarded import deadline_of, services_of
from service.api.services import Services
from service.domain import Deadline, Plan, Query, Slate
from service.errors import NotReady, RequestError
from service.events.schema import NO_TREATMENTS, Impression
from service.policy.assignment import chance_of
from service.policy.experiments import Assignment
from service.recommender.live import LiveBundle
from service.recommender.pipeline import recommend
from service.recommender.plan import plan_for
from service.state.history import NOTHING, Recent

_HISTORY = ("history",)
"""Named in `degraded` where a user's recent history could not be read."""


def live_of(services: Services) -> LiveBundle:
    """The one reference that a request reads. Raises NotReady."""
    live = services.serving.live
    if live is None:
        raise NotReady
    return live


def assigned(
    query: Query, model_name: str, event_id: str, live: LiveBundle, services: Services
) -> tuple[Query, Assignment]:
    """Decide once how a query is answered: by the user's treatments, or by the model that was asked for.

    `event_id`: of the impression that will be logged. Raises ModelNotFound.
    """
    experiments = services.experiments
    assignment = None if experiments is None else experiments.assign(query.user_id, model_name, live)
    if services.rules is not None:
        assignment = services.rules.applied(assignment, model_name, live)
    if assignment is None:
        return query, Assignment(plan_for(model_name, live), NO_TREATMENTS, b"")
    if assignment.plan.exploration is not None:
        query = dataclasses.replace(query, seed=chance_of(event_id, query.user_id))
    return query, assignment


def ruled(plan: Plan, live: LiveBundle, services: Services) -> Assignment:
    """The plan of a route that takes no part in experiments, under the rules that hold now."""
    if services.rules is not None:
        plan = services.rules.on(plan, "default", live)
    return Assignment(plan, NO_TREATMENTS, b"")


async def recent_of(queries: Sequence[Query], services: Services, deadline: Deadline) -> list[Recent]:
    """What the users did since the bundle was built; nothing for a query that brings its own history."""
    recents = [NOTHING] * len(queries)
    if services.history is not None:
        asked = [n for n, query in enumerate(queries) if query.user_id is not None and query.history is None]
        users = [user_id for n in asked if (user_id := queries[n].user_id) is not None]
        for n, recent in zip(asked, await services.history.recent_many(users, deadline), strict=True):
            recents[n] = recent
    return recents


async def slate_of(
    query: Query, plan: Plan, live: LiveBundle, services: Services, deadline: Deadline
) -> tuple[Slate, Recent]:
    """Run the line for one user, with what they did since the bundle was built, which is returned too.

    Raises as `slate_for`.
    """
    (recent,) = await recent_of((query,), services, deadline)
    return slate_for(query, plan, live, services, deadline, recent), recent


def log_shown(
    request: Request,
    query: Query,
    slate: Slate,
    assignment: Assignment,
    live: LiveBundle,
    recent: Recent,
    *,
    part: int | None = None,
    retriever: str | None = None,
) -> None:
    """Leave an answer's impression to the event log, where there is one.

    `part`: see `Impression`. `retriever`: the route's own choice, if it is not the settings'.
    """
    services = services_of(request)
    log = services.events
    if log is not None:
        deadline = deadline_of(request)
        seconds = deadline.now() - deadline.started_at
        request_id: str = request.state.request_id
        plan = assignment.plan
        log.emit(
            Impression(
                time.time(), request_id, query.user_id, live.bundle_id, plan.model, slate, seconds,
                assignment.treatments, slate.propensities, part, query, plan, recent.items,
                retriever or services.settings.retriever,
            )
        )  # fmt: skip


def slate_for(
    query: Query,
    plan: Plan,
    live: LiveBundle,
    services: Services,
    deadline: Deadline,
    recent: Recent = NOTHING,
) -> Slate:
    """Run the line and count its slate; a line that breaks is answered by what is popular, as one that is late is.

    `recent`: what the user did since the bundle was built. Raises RequestError for a query that can't be
    answered as asked.
    """
    if recent.items:
        query = dataclasses.replace(query, recent=recent.items)
    try:
        slate = recommend(query, plan, live, deadline)
    except RequestError:
        raise
    except Exception as error:
        services.log.event(
            time.time(), "ERROR", "the line broke; answering with what is popular", error=error
        )
        slate = recommend(query, Plan("popular"), live, deadline)
        slate = dataclasses.replace(slate, degraded=(*slate.degraded, "error"))
    if recent.degraded:
        slate = dataclasses.replace(slate, degraded=(*_HISTORY, *slate.degraded))
    services.telemetry.model(plan.model).slate(slate)
    return slate


def slate_response(
    request: Request, document: Any, slate: Slate, plan: Plan, live: LiveBundle, treatments: bytes = b""
) -> Response:
    """Answer with a document made of a slate, disclose in headers and log what made it, and count the answer."""
    services, deadline = services_of(request), deadline_of(request)
    headers = {"X-Reco-Model": plan.model, "X-Reco-Source": slate.source, **degraded_header(slate.degraded)}
    if treatments:
        headers["X-Reco-Treatment"] = treatments.decode()
    response = bundle_response(document, live, slate.timings, deadline, headers)
    request.state.disclosed = (plan.model, slate.source, slate.degraded)
    counts = services.telemetry.model(plan.model)
    seconds = deadline.now() - deadline.started_at
    counts.answered(200, seconds)
    if deadline.started_at + seconds > deadline.expires_at:
        counts.overruns += 1
    return response


def bundle_response(
    document: Any,
    live: LiveBundle,
    timings: Iterable[tuple[str, float]],
    deadline: Deadline,
    headers: Mapping[str, str],
) -> Response:
    """Answer with a document, its bundle, and where the time went."""
    total = ("total", deadline.now() - deadline.started_at)
    timing = ", ".join(f"{stage};dur={seconds * 1000:.3f}" for stage, seconds in (*timings, total))
    return Response(
        orjson.dumps(document, option=orjson.OPT_NON_STR_KEYS),
        media_type="application/json",
        headers={"X-Reco-Bundle": live.bundle_id, "Server-Timing": timing, **headers},
    )


def degraded_header(degraded: Iterable[str]) -> dict[str, str]:
    """Name what was skipped; nothing when nothing was."""
    names = ",".join(degraded)
    return {"X-Reco-Degraded": names} if names else {}
