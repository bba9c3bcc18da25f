"""Bearer tokens: who may ask for what. Only digests are kept; a token is never stored, logged or compared in clear."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal

from service.errors import InputError, NotAuthenticated, NotPermitted, WrongToken
from service.settings import Settings

Scope = Literal["reco", "admin"]
SCOPES: tuple[Scope, ...] = ("reco", "admin")
MIN_TOKEN_CHARACTERS = 16
MAX_TOKEN_BYTES = 4096

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# RFC 6750, section 2.1: b64token.
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_PLACEHOLDER = re.compile(
    r"change.?(me|this)|your.?(own.?)?(token|secret|key)|default.?token|insert.?(token|here)|replace.?(me|this)|placeholder",
    re.IGNORECASE,
)
_MIN_DIFFERENT_CHARACTERS = 4
_HOW = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose token it is and what it opens. digest: the token's SHA-256."""

    name: str
    scopes: frozenset[Scope]
    digest: bytes = field(default=b"", repr=False)


ANYBODY = Caller("anonymous", frozenset(SCOPES))
"""Who asks when authentication is off."""


def parse_tokens(entries: Iterable[str], where: str) -> dict[bytes, Caller]:
    """Read `name:token[:scope|scope]` entries; blank ones and `#` comments are skipped.

    Returns SHA-256 digest -> caller. Raises InputError naming the source and the entry by number and name, never by
    token, for a malformed, short, guessable or repeated one.
    """
    callers: dict[bytes, Caller] = {}
    for number, raw in enumerate(entries, 1):
        entry = raw.strip()
        if not entry or entry.startswith("#"):
            continue
        place = f"{where}, entry {number}"
        name, colon, rest = entry.partition(":")
        if not colon or _NAME.fullmatch(name) is None:
            raise InputError(f"{place}: not 'name:token' or 'name:token:scope|scope'")
        token, _, scopes = rest.partition(":")
        place = f"{place} ({name})"
        _check_strength(token, place)
        wanted = [scope.strip() for scope in scopes.split("|")] if scopes else ["reco"]
        known = frozenset(scope for scope in SCOPES if scope in wanted)
        if len(known) != len(set(wanted)):
            raise InputError(f"{place}: unknown scope in {scopes!r:.80}; there are: {', '.join(SCOPES)}")
        digest = sha256(token.encode()).digest()
        if digest in callers:
            raise InputError(f"{place}: the same token was given to {callers[digest].name!r} already")
        callers[digest] = Caller(name, known, digest)
    return callers


def _check_strength(token: str, place: str) -> None:
    if not token:
        raise InputError(f"{place}: the token is empty; {_HOW}")
    if _TOKEN.fullmatch(token) is None:
        raise InputError(f"{place}: a token is made of letters, digits and -._~+/ with = at the end; {_HOW}")
    if len(token) < MIN_TOKEN_CHARACTERS:
        raise InputError(f"{place}: the token is shorter than {MIN_TOKEN_CHARACTERS} characters; {_HOW}")
    if _PLACEHOLDER.search(token) is not None or len(set(token)) < _MIN_DIFFERENT_CHARACTERS:
        raise InputError(f"{place}: the token looks like a placeholder; {_HOW}")


class Bearer:
    """What the `Authorization` headers of a request say: the SHA-256 of its token, or why there is none."""

    __slots__ = ("digest", "fault")

    def __init__(self, authorization: Sequence[bytes]) -> None:
        """`authorization`: the value of every such header."""
        self.digest: bytes | None = None
        self.fault: type[NotAuthenticated | WrongToken] = NotAuthenticated
        if not authorization:
            return
        if len(authorization) > 1:
            self.fault = WrongToken
            return
        scheme, _, token = authorization[0].partition(b" ")
        token = token.strip()
        if scheme.lower() != b"bearer" or not token:
            return
        if len(token) > MAX_TOKEN_BYTES:
            self.fault = WrongToken
            return
        self.digest = sha256(token).digest()


class Gate:
    """Decides over the `Authorization` headers of a request. `callers` is replaced whole, so a request sees one set."""

    __slots__ = ("_file", "_from_variable", "_stamp", "callers", "open")

    def __init__(self, settings: Settings) -> None:
        """Raises InputError when authentication is on and there is no token, or one is not fit to be one."""
        self.open = not settings.auth
        self._file = settings.tokens_file
        self._stamp: tuple[int, int, int] | None = None
        given = settings.tokens.get_secret_value() if settings.tokens is not None else ""
        self._from_variable: Mapping[bytes, Caller] = parse_tokens(given.split(","), "RECO_TOKENS")
        self.callers: Mapping[bytes, Caller] = self._from_variable
        if self.open:
            return
        if self._file is not None:
            self._stamp = _stamp(self._file)
            self.callers = self._read(self._file)
        if not self.callers:
            raise InputError(
                "authentication is on and there is no token: set RECO_TOKENS='name:token,…' or RECO_TOKENS_FILE, "
                f"or RECO_AUTH=off to let everybody in; {_HOW}"
            )

    def _read(self, file: Path) -> dict[bytes, Caller]:
        try:
            text = file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"RECO_TOKENS_FILE: {file}: {error}") from None
        callers = parse_tokens(text.splitlines(), str(file))
        for digest, caller in self._from_variable.items():
            callers.setdefault(digest, caller)
        return callers

    def refresh(self) -> bool:
        """Read the token file again if it changed; True if it did.

        Raises InputError for a file that is not fit; the tokens known before then stay, and the file is not tried
        again until it changes once more.
        """
        if self.open or self._file is None:
            return False
        stamp = _stamp(self._file)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        callers = self._read(self._file)
        if not callers:
            raise InputError(f"RECO_TOKENS_FILE: {self._file}: holds no token")
        self.callers = callers
        return True

    def admit(self, bearer: Bearer, scope: Scope = "reco") -> Caller:
        """Name the caller.

        Raises NotAuthenticated (no bearer token at all), WrongToken (an unknown one, or two headers) or NotPermitted.
        """
        if self.open:
            return ANYBODY
        digest = bearer.digest
        if digest is None:
            raise bearer.fault
        # The lookup's time depends on a digest only, which nobody can steer towards a stored one; the comparison
        # that decides takes the same time for every digest.
        found = self.callers.get(digest)
        if found is None or not hmac.compare_digest(found.digest, digest):
            raise WrongToken
        if scope not in found.scopes:
            raise NotPermitted(scope)
        return found


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
