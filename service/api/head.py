"""What the hot route reads of a request's headers."""

from __future__ import annotations

from collections.abc import Iterable

from service.api.auth import Bearer

_READ = frozenset(
    {
        b"authorization",
        b"x-request-id",
        b"x-reco-budget-ms",
        b"origin",
        b"host",
        b"access-control-request-method",
    }
)
_TWICE = b"given twice"


class Head:
    """A function of the headers alone, and never changed: requests with the same headers may share one.

    It outlives a request, so it holds no token, only its digest.
    """

    __slots__ = ("bearer", "budget", "host", "origin", "preflight", "request_id")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """`headers`: names in lower case."""
        authorization: list[bytes] = []
        self.request_id: bytes | None = None
        self.budget: bytes | None = None
        self.origin: bytes | None = None
        self.host = b""
        self.preflight = False
        for name, value in headers:
            if name in _READ:
                if name == b"authorization":
                    authorization.append(value)
                elif name == b"host":
                    self.host = value
                elif name == b"x-request-id":
                    self.request_id = value
                elif name == b"origin":
                    self.origin = value
                elif name == b"x-reco-budget-ms":
                    self.budget = value if self.budget is None else _TWICE
                else:
                    self.preflight = True
        self.bearer = Bearer(authorization)
