"""Every error the project raises on purpose. No HTTP in here: `service.api.error_handlers` maps type to status.

RecoError
├── InputError            bad input or usage; the command line exits 2
│   └── DataError         ... in a data file: names file, row, column, value
├── BundleRefused         a bundle that must not be served; the command line exits 3
├── StageUnavailable      a stage of the line that can't run here and now; the slate is served without it
└── RequestError          this request can't be answered as asked
    ├── InvalidRequest    malformed id, k, filter, body (422)
    ├── UserNotFound      the id is outside the range users can have (404)
    ├── ModelNotFound     no such model in the live bundle (404)
    ├── ItemNotFound      no such item in the catalogue (404)
    ├── NotAuthenticated  no credentials (401)
    ├── WrongToken        credentials that nobody was given (401)
    ├── NotPermitted      a live token without the scope (403)
    ├── NotReady          no bundle is live yet (503)
    ├── Overloaded        more is asked than can be answered in time (503)
    └── EventsUnavailable the event log can't be written just now (503)
"""

from __future__ import annotations

from pathlib import Path


class RecoError(Exception):
    """Base of the tree; `str(error)` is one message meant for a person."""


class InputError(RecoError):
    """Bad input or usage. The message says what is wrong, where, and what to do next."""


class DataError(InputError):
    """A data file that breaks its schema.

    `row` counts data rows from 1 (the header is not a row), as a person counts them in a spreadsheet below
    the header; None where the fault is the whole file's or column's.
    """

    def __init__(
        self,
        file: str | Path,
        reason: str,
        *,
        row: int | None = None,
        column: str | None = None,
        value: object = None,
    ) -> None:
        self.file, self.reason, self.row, self.column, self.value = str(file), reason, row, column, value
        where = self.file
        if row is not None:
            where += f", row {row}"
        if column is not None:
            where += f", column {column!r}"
        if value is not None:
            reason = f"{reason} (found {value!r})"
        super().__init__(f"{where}: {reason}")


class StageUnavailable(RecoError):
    """A stage can't run for this request; `stage` is the name that `degraded` gives it."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        super().__init__(f"stage {stage!r} can't run")


class BundleRefused(RecoError):
    """A bundle failed verification; names the file inside the bundle and the reason."""

    def __init__(self, file: str, reason: str) -> None:
        self.file, self.reason = file, reason
        super().__init__(f"bundle refused: {file}: {reason}")


class RequestError(RecoError):
    """A request that can't be answered as asked."""


class InvalidRequest(RequestError):
    """A malformed part of a request. `location` is a path such as ("query", "k"); `kind` is a stable key."""

    def __init__(self, location: tuple[str | int, ...], kind: str, message: str) -> None:
        self.location, self.kind = location, kind
        super().__init__(message)


class UserNotFound(RequestError):
    """The user id is outside the range that users can have. (An unknown id within it is a cold user.)"""

    def __init__(self, user_id: object) -> None:
        super().__init__(f"User {user_id} not found")


class ModelNotFound(RequestError):
    """The live bundle holds no model of that name."""

    def __init__(self, model: str) -> None:
        super().__init__(f"Model {model} not found")


class ItemNotFound(RequestError):
    """The catalogue holds no item of that id."""

    def __init__(self, item_id: object) -> None:
        super().__init__(f"Item {item_id} not found")


class NotAuthenticated(RequestError):
    """No credentials were presented."""

    def __init__(self) -> None:
        super().__init__("Not authenticated: send 'Authorization: Bearer <token>'")


class WrongToken(RequestError):
    """The presented token belongs to nobody."""

    def __init__(self) -> None:
        super().__init__("Authorization failed: the bearer token is not known")


class NotPermitted(RequestError):
    """A live token that lacks the scope the route asks for."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"This token lacks the scope {scope!r}")


class NotReady(RequestError):
    """No bundle is live yet."""

    def __init__(self) -> None:
        super().__init__("The service is not ready yet")


class Overloaded(RequestError):
    """More is asked than can be answered in time."""

    def __init__(self) -> None:
        super().__init__("More is asked than can be answered in time; come again")


class EventsUnavailable(RequestError):
    """The event log can't be written just now; what was sent may be sent again."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Events cannot be written: {reason}")
