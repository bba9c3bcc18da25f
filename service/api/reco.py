"""GET /reco/{model}/{user_id}: the hot route, a plain ASGI endpoint that the app calls before any framework.

Everything that can be is decided when a bundle goes live (`_Bound`); a request does what is left: headers, token,
ids, the pipeline, bytes, counts. There are two doors to one line: ASGI (`RecoRoute.__call__`), and a plain call that
hands over the whole answer at once (`RecoRoute.answer_now`), which the worker's own protocol takes where nothing has to
be waited for. They differ in how an answer is handed over, and in nothing that decides it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import numpy as np
import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.access_log import RequestRecord
from service.api.admission import AGE
from service.api.answering import slate_for
from service.api.cors import Cors, Headers
from service.api.error_handlers import SERVER_ERROR, Fault, envelope, fault_of
from service.api.head import Head
from service.api.ids import parse_budget_s, parse_k, parse_user_id
from service.api.response_cache import Kept, Key, PlanNumber, new_plan_number
from service.api.services import Services
from service.domain import Deadline, IdKind, ItemId, Plan, Query, Slate, UserId
from service.errors import ModelNotFound, NotReady, RequestError
from service.events.schema import NO_TREATMENTS, Impression
from service.policy.assignment import chance_of
from service.policy.experiments import Assignment
from service.recommender.live import LiveBundle
from service.recommender.pipeline import recommend
from service.recommender.plan import plan_for
from service.state.history import NOTHING
from service.state.memory import MemoryHistory
from service.telemetry import UNKNOWN_MODEL, ModelCounts

if TYPE_CHECKING:
    from service.state.history import Recent

PREFIX = "/reco/"
_METHODS = frozenset({"GET", "HEAD"})
_NOT_FOUND = Fault(404, "http_exception", "Not Found")
_NOT_ALLOWED = Fault(405, "http_exception", "Method Not Allowed", headers={"Allow": "GET, HEAD"})
_SHOWN_NAME = 64
_FIRST_ROW = np.zeros(1, np.int32)
_MOST_ASSIGNED = 4096


def _lines(headers: Headers) -> bytes:
    """Headers as they stand in an answer's head."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


@dataclass(frozen=True, slots=True)
class _Model:
    """`name`: as it was asked for. `lines`: the headers as they stand in an answer's head."""

    name: str
    plan: Plan
    counts: ModelCounts
    headers: Headers
    lines: bytes
    treatments: Mapping[str, str]
    number: PlanNumber = field(default_factory=new_plan_number)


class _Bound:
    """One live bundle's models with all that their requests need, by their segment of the path."""

    __slots__ = ("_assigned", "_telemetry", "kind", "live", "models")

    def __init__(self, live: LiveBundle, services: Services) -> None:
        self.live, self._telemetry = live, services.telemetry
        self._assigned: dict[Assignment, _Model] = {}
        self.kind: IdKind = live.bundle.manifest.user_id_kind
        self.models: dict[bytes, _Model] = {}
        for name in live.models:
            plan = plan_for(name, live)
            headers, counts = self._headers(plan), services.telemetry.model(plan.model)
            self.models[name.encode()] = _Model(name, plan, counts, headers, _lines(headers), NO_TREATMENTS)
        if services.experiments is not None:
            services.experiments.bind(live)

    def _headers(self, plan: Plan) -> Headers:
        return [
            (b"content-type", b"application/json"),
            (b"x-reco-bundle", self.live.bundle_id.encode()),
            (b"x-reco-model", plan.model.encode()),
        ]

    def under(self, assignment: Assignment, asked: _Model) -> _Model:
        """What a request needs that experiments or rules have a plan for."""
        model = self._assigned.get(assignment)
        if model is None:
            plan = assignment.plan
            headers = self._headers(plan)
            if assignment.header:
                headers.append((b"x-reco-treatment", assignment.header))
            counts = self._telemetry.model(plan.model)
            model = _Model(asked.name, plan, counts, headers, _lines(headers), assignment.treatments)
            if len(self._assigned) < _MOST_ASSIGNED:
                self._assigned[assignment] = model
        return model

    def find(self, segment: bytes) -> _Model:
        """Find a model by its path segment. Raises ModelNotFound."""
        model = self.models.get(segment)
        if model is None:
            name = unquote_to_bytes(segment)
            model = self.models.get(name)
            if model is None:
                raise ModelNotFound(name[:_SHOWN_NAME].decode(errors="replace"))
        return model


class _Answer:
    """An answer on its way out. `slate`: None for a refusal."""

    __slots__ = ("body", "compared", "counts", "headers", "lines", "recent", "slate", "status")

    def __init__(
        self, status: int, headers: Headers, lines: bytes | None, body: bytes, counts: ModelCounts,
        slate: Slate | None, recent: tuple[ItemId, ...] = (), compared: bool = False,
    ) -> None:  # fmt: skip
        """`recent`: what the user did since the bundle was built. `compared`: shadow plans are told of it."""
        self.status, self.headers, self.lines, self.body = status, headers, lines, body
        self.counts, self.slate, self.recent, self.compared = counts, slate, recent, compared


class _Asked:
    """What is read of a request; and, once it is found fit, what is to be answered."""

    __slots__ = ("head", "live", "method", "model", "query", "query_string", "raw_path", "scheme")
    query: Query
    model: _Model
    live: LiveBundle

    def __init__(self, method: str, scheme: str, raw_path: bytes, query_string: bytes, head: Head) -> None:
        self.method, self.scheme = method, scheme
        self.raw_path, self.query_string, self.head = raw_path, query_string, head


class RecoRoute:
    """The endpoint. Built in the lifespan; holds no request's state."""

    __slots__ = (
        "_bound", "_budget_s", "_cors", "_k", "_k_max", "_known_now", "_max_user_id", "_s", "_token_first", "_unknown",
        "_waits",
    )  # fmt: skip

    def __init__(self, services: Services) -> None:
        self._s = services
        settings = services.settings
        self._budget_s, self._k, self._k_max = settings.budget_s, settings.k, settings.k_max
        self._max_user_id = settings.max_user_id
        self._cors = Cors(settings.cors_origins)
        self._token_first = settings.check_order == "token,user,model"
        self._bound: _Bound | None = None
        self._unknown = services.telemetry.model(UNKNOWN_MODEL)
        history = services.history
        self._known_now = history.known_now if isinstance(history, MemoryHistory) else None
        self._waits = history is not None and self._known_now is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - a GET has no body
        """Answer one request."""
        s = self._s
        deadline = Deadline(self._budget_s, s.clock, scope.get(AGE, 0.0))
        raw_path = scope.get("raw_path") or scope["path"].encode()
        head = Head(scope["headers"])
        asked = _Asked(scope["method"], scope["scheme"], raw_path, scope["query_string"], head)
        request_id = s.request_ids.of(head.request_id)
        answer = self._read(asked, deadline, request_id)
        if answer is None:
            recent = NOTHING
            try:
                if s.history is not None:
                    assert asked.query.user_id is not None  # the path names one
                    recent = await s.history.recent(asked.query.user_id, deadline)
            except Exception as error:
                answer = self._failed(error, asked, request_id)
            else:
                answer = self._answer(asked, recent, deadline, request_id)
        slate = answer.slate
        headers = [
            *answer.headers,
            *self._cors.headers(head.origin),
            (b"content-length", b"%d" % len(answer.body)),
            (b"x-request-id", request_id),
        ]
        if s.serving.draining:
            headers.append((b"connection", b"close"))
        if slate is not None:
            headers.append((b"x-reco-source", slate.source.encode()))
            if slate.degraded:
                headers.append((b"x-reco-degraded", ",".join(slate.degraded).encode()))
            headers.append((b"server-timing", _timing(slate, deadline.now() - deadline.started_at)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if asked.method == "HEAD" else answer.body})
        self._account(asked, answer, deadline, request_id, deadline.now())

    def answer_now(
        self,
        url: bytes,
        head: Head,
        scheme: str,
        write: Callable[[int, bytes], None],
        age: float = 0.0,
    ) -> bool:
        """Answer a GET by one call of `write(status, headers and body)`; False, having done nothing, where it can't.

        That is while the worker drains, and where a user's history is kept outside this process's memory: there is
        something to wait for, or to say, that ASGI has the words for. `url`: path and query, as they came. `age`:
        seconds since the request arrived.
        """
        s = self._s
        if s.serving.draining or self._waits:
            return False
        deadline = Deadline(self._budget_s, s.clock, age)
        raw_path, _, query_string = url.partition(b"?")
        asked = _Asked("GET", scheme, raw_path, query_string, head)
        request_id = s.request_ids.of(head.request_id)
        answer = self._read(asked, deadline, request_id)
        if answer is None:
            known = self._known_now
            recent = NOTHING if known is None else known(asked.query.user_id)  # type: ignore[arg-type]  # read above
            answer = self._answer(asked, recent, deadline, request_id)
        slate, lines, body = answer.slate, answer.lines, answer.body
        if lines is None:
            lines = _lines(answer.headers)
        ended = deadline.now()
        told = b""
        if slate is not None:
            told = b"x-reco-source: %b\r\n%bserver-timing: %b\r\n" % (
                slate.source.encode(),
                b"x-reco-degraded: %b\r\n" % ",".join(slate.degraded).encode() if slate.degraded else b"",
                _timing(slate, ended - deadline.started_at),
            )
        write(
            answer.status,
            b"%b%bcontent-length: %d\r\nx-request-id: %b\r\n%b\r\n%b"
            % (lines, self._cors.lines(head.origin), len(body), request_id, told, body),
        )
        self._account(asked, answer, deadline, request_id, ended)
        return True

    def _read(self, asked: _Asked, deadline: Deadline, request_id: bytes) -> _Answer | None:
        """Check token, user and model in the order the settings give, then k and the budget.

        None: the request is fit, and `asked` holds its query, model and bundle. Else the answer that refuses it.
        """
        s, head = self._s, asked.head
        try:
            if asked.method not in _METHODS:
                return self._other_method(asked)
            segments = asked.raw_path.split(b"/", 4)
            if len(segments) != 4:
                return self._refuse(_NOT_FOUND, asked)
            s.gate.admit(head.bearer)
            bound = self._bind()
            if self._token_first:
                user_id = parse_user_id(segments[3], bound.kind, self._max_user_id)
                model = bound.find(segments[2])
            else:
                model = bound.find(segments[2])
                user_id = parse_user_id(segments[3], bound.kind, self._max_user_id)
            k = parse_k(asked.query_string, self._k, self._k_max) if asked.query_string else self._k
            if head.budget is not None:
                deadline.lower(parse_budget_s(head.budget, self._budget_s))
            query = Query(user_id, k)
            if s.experiments is not None or s.rules is not None:
                assignment = self._assigned(user_id, model.name, bound.live)
                if assignment is not None:
                    model = bound.under(assignment, model)
                    if model.plan.exploration is not None:
                        query = Query(user_id, k, seed=chance_of(request_id.decode(), user_id))
            asked.query, asked.model, asked.live = query, model, bound.live
        except Exception as error:
            return self._failed(error, asked, request_id)
        return None

    def _assigned(self, user_id: UserId, name: str, live: LiveBundle) -> Assignment | None:
        """What experiments and rules make of a request; None where it is nobody's business."""
        s = self._s
        assignment = None if s.experiments is None else s.experiments.assign(user_id, name, live)
        return assignment if s.rules is None else s.rules.applied(assignment, name, live)

    def _answer(self, asked: _Asked, recent: Recent, deadline: Deadline, request_id: bytes) -> _Answer:
        """Recommend. `recent`: what the user did since the bundle was built."""
        s, query, model, live = self._s, asked.query, asked.model, asked.live
        key = kept = None
        if s.cache is not None and model.plan.exploration is None and not recent.degraded:
            key = Key(model.number, query.user_id, query.k, recent.items)
            kept = s.cache.get(key)
        if kept is not None:
            body, slate = kept
            model.counts.slate(slate)
        else:
            try:
                slate = slate_for(query, model.plan, live, s, deadline, recent)
                body = _body(query.user_id, slate)
            except Exception as error:
                return self._failed(error, asked, request_id)
            if s.cache is not None and key is not None and not slate.degraded:
                s.cache.put(key, Kept(body, replace(slate, timings=())))
        # A kept answer took no time that a shadow's could be held against.
        compared = s.shadows is not None and kept is None
        return _Answer(200, model.headers, model.lines, body, model.counts, slate, recent.items, compared)

    def _failed(self, error: Exception, asked: _Asked, request_id: bytes) -> _Answer:
        """Answer a request that can't be answered as asked, whatever the reason."""
        s = self._s
        if isinstance(error, RequestError):
            return self._refuse(fault_of(error, s.settings.missing_token_status), asked)
        s.log.event(
            time.time(), "ERROR", "no answer could be made", error=error, request_id=request_id.decode()
        )
        return self._refuse(SERVER_ERROR, asked)

    def warm(self) -> None:
        """Run the line for a known user and for nobody by every model, before the first request has to.

        A process that was just forked copies the pages it writes to, and finds its caches empty: the first answer would
        take milliseconds. Nothing is counted or logged; what breaks is told when it is asked for.
        """
        if self._s.serving.live is None:
            return
        bound = self._bind()
        live, k = bound.live, self._s.settings.k
        known = live.bundle.user_ids.take(_FIRST_ROW)[0] if len(live.bundle.user_ids) else None
        for model in bound.models.values():
            for user_id in (known, None):
                deadline = Deadline(math.inf)
                with contextlib.suppress(Exception):
                    slate = recommend(Query(user_id, k), model.plan, live, deadline)
                    _body(user_id, slate)
                    _timing(slate, 0.0)

    def follow(self) -> None:
        """Bind what is live now, and let go of a bundle that no longer is, before the next request comes."""
        bound = self._bound
        if bound is not None and bound.live is not self._s.serving.live:
            self._bound = None
        if self._s.serving.live is not None:
            self._bind()

    def _bind(self) -> _Bound:
        """Read the one reference to what is live. Raises NotReady."""
        live = self._s.serving.live
        bound = self._bound
        if bound is None or bound.live is not live:
            if live is None:
                raise NotReady
            bound = self._bound = _Bound(live, self._s)
            if self._s.cache is not None:
                self._s.cache.clear()
        return bound

    def _other_method(self, asked: _Asked) -> _Answer:
        if asked.method == "OPTIONS" and asked.head.origin is not None and asked.head.preflight:
            return _Answer(200, self._cors.preflight_only(), None, b"", self._unknown, None)
        return self._refuse(_NOT_ALLOWED, asked)

    def _refuse(self, fault: Fault, asked: _Asked) -> _Answer:
        """Answer a fault, counted for the model in the path if the bundle holds it."""
        content_type, body = envelope([fault])
        headers: Headers = [(b"content-type", content_type.encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in fault.headers.items()]
        segments = asked.raw_path.split(b"/", 4)
        counts = self._unknown
        if self._bound is not None and len(segments) == 4:
            model = self._bound.models.get(segments[2])
            counts = model.counts if model is not None else counts
        return _Answer(fault.status, headers, None, body, counts, None)

    def _account(
        self, asked: _Asked, answer: _Answer, deadline: Deadline, request_id: bytes, ended: float
    ) -> None:
        """Count the answer and leave its line to the log. `ended`: when it was handed over, by the deadline's clock."""
        slate, counts = answer.slate, answer.counts
        seconds = ended - deadline.started_at
        counts.answered(answer.status, seconds)
        if slate is not None and ended > deadline.expires_at:
            counts.overruns += 1
        events = self._s.events
        if events is not None and slate is not None and asked.method == "GET":
            query, model = asked.query, asked.model
            events.emit(
                Impression(
                    time.time(), request_id.decode(), query.user_id, asked.live.bundle_id, counts.model, slate, seconds,
                    model.treatments, slate.propensities, None, query, model.plan, answer.recent,
                    self._s.settings.retriever,
                )
            )  # fmt: skip
        if answer.compared and slate is not None and self._s.shadows is not None:
            self._s.shadows.offer(asked.query, answer.recent, asked.model.name, asked.live, slate)
        log = self._s.log
        if log.requests:
            source, degraded = (None, ()) if slate is None else (slate.source, slate.degraded)
            log.request(
                RequestRecord(
                    time.time(), asked.method, asked.scheme, asked.head.host[:256], asked.raw_path[:2048],
                    asked.query_string[:2048], answer.status, seconds, request_id, counts.model, source, degraded,
                )
            )  # fmt: skip


async def answer_not_ready(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 503 to anything: there is nothing to serve with."""
    content_type, body = envelope([fault_of(NotReady())])
    await Response(body, 503, {"Retry-After": "1"}, media_type=content_type)(scope, receive, send)


def _body(user_id: UserId | None, slate: Slate) -> bytes:
    """The answer's JSON."""
    if type(user_id) is int:
        return b'{"user_id":%d,"items":%b}' % (user_id, orjson.dumps(slate.item_ids))
    return orjson.dumps({"user_id": user_id, "items": slate.item_ids})


def _timing(slate: Slate, total: float) -> bytes:
    """Say where the time went (`total`: all of it, seconds), in milliseconds, as Server-Timing has it."""
    timings = slate.timings
    if len(timings) == 2:  # the line's first stage and its last, as nearly always
        (_, seconds), (_, more) = timings
        return b"retrieve;dur=%.3f, complete;dur=%.3f, total;dur=%.3f" % (
            seconds * 1000, more * 1000, total * 1000,
        )  # fmt: skip
    parts = [f"{stage};dur={seconds * 1000:.3f}, " for stage, seconds in timings]
    return f"{''.join(parts)}total;dur={total * 1000:.3f}".encode()
