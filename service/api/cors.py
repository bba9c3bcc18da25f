"""Cross-origin answers. Never with credentials: a bearer token is sent by the page's own code, not by the browser."""

from __future__ import annotations

from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

_EXPOSED = (
    b"X-Request-Id, X-Reco-Bundle, X-Reco-Model, X-Reco-Source, X-Reco-Degraded, X-Reco-Treatment, "
    b"Server-Timing, WWW-Authenticate, Retry-After"
)
_PREFLIGHT: Headers = [
    (b"access-control-allow-methods", b"GET, HEAD, POST, OPTIONS"),
    (b"access-control-allow-headers", b"Authorization, Content-Type, X-Request-Id, X-Reco-Budget-Ms"),
    (b"access-control-max-age", b"600"),
]


class Cors:
    """Which origins may read answers."""

    __slots__ = ("_any", "_any_lines", "_origins")

    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(origin.encode("latin-1", "replace") for origin in origins)
        self._any: Headers | None = None
        self._any_lines: bytes | None = None
        if b"*" in self._origins:
            self._any = [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", _EXPOSED)]
            self._any_lines = self.lines(None)

    def headers(self, origin: bytes | None) -> Headers:
        """Headers of any answer to a request from `origin`."""
        if self._any is not None:
            return self._any
        if origin is None or origin not in self._origins:
            return [(b"vary", b"Origin")]
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"Origin"),
        ]

    def lines(self, origin: bytes | None) -> bytes:
        """The same as they stand in an answer's head."""
        if self._any_lines is not None:
            return self._any_lines
        return b"".join([b"%b: %b\r\n" % header for header in self.headers(origin)])

    @staticmethod
    def preflight_only() -> Headers:
        """Headers that the answer to a preflight has besides `headers`."""
        return _PREFLIGHT
