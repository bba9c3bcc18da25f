"""What can go wrong for a client.

RecoClientError
├── ServiceUnreachable     no connection, or it broke
│   └── TimedOut           no answer in time
├── AnswerNotUnderstood    something answered, but not this service
└── RequestRefused         an error answer; carries status, kind, request_id, faults
    ├── Unauthorized       401: no token, or an unknown one
    ├── Forbidden          403: the token lacks the scope
    ├── NotFound           404: user, model, item or address
    ├── InvalidQuestion    any other 4xx; `faults` names the fields
    └── ServerFailed       5xx
        └── ServiceUnready 503
"""

from __future__ import annotations

from dataclasses import dataclass


class RecoClientError(Exception):
    """Base of the tree; `str(error)` is one message meant for a person."""


class ServiceUnreachable(RecoClientError):
    """No connection, or it broke before the answer was whole."""


class TimedOut(ServiceUnreachable):
    """No answer in time."""


class AnswerNotUnderstood(RecoClientError):
    """The answer is none that the service gives: a proxy's page, another service."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request. `location` is a path such as ("body", "k")."""

    location: tuple[str | int, ...]
    kind: str
    message: str


class RequestRefused(RecoClientError):
    """An error answer.

    status: HTTP's. kind: stable name of the error, such as `model_not_found`. request_id: what to look for in the
    service's log, None if the answer named none. faults: what was wrong, by field.
    """

    def __init__(
        self, status: int, kind: str, message: str, request_id: str | None, faults: tuple[Fault, ...] = ()
    ) -> None:
        self.status, self.kind, self.message = status, kind, message
        self.request_id, self.faults = request_id, faults
        where = f" [request {request_id}]" if request_id else ""
        super().__init__(f"{status} {kind}: {message}{where}")


class Unauthorized(RequestRefused):
    """No token was sent, or nobody was given this one."""


class Forbidden(RequestRefused):
    """The token lacks the scope."""


class NotFound(RequestRefused):
    """No such user, model, item or address."""


class InvalidQuestion(RequestRefused):
    """The request is malformed, too large, or of the wrong method or type."""


class ServerFailed(RequestRefused):
    """The service failed."""


class ServiceUnready(ServerFailed):
    """The service can't answer yet, or not any more."""


def refused(
    status: int, kind: str, message: str, request_id: str | None, faults: tuple[Fault, ...] = ()
) -> RequestRefused:
    """Make the error of a status."""
    by_status = {401: Unauthorized, 403: Forbidden, 404: NotFound, 503: ServiceUnready}
    error = by_status.get(status) or (ServerFailed if status >= 500 else InvalidQuestion)
    return error(status, kind, message, request_id, faults)
