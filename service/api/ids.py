"""Ids and numbers as they come in a URL. Strict: one spelling for one id, so none is another's alias."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from service.domain import IdKind, UserId
from service.errors import InvalidRequest, UserNotFound

MAX_DIGITS = 18
MAX_ID_BYTES = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_INTEGER = re.compile(rb"-?[0-9]{1,18}")
_DECIMAL = re.compile(rb"[0-9]{1,9}(\.[0-9]{1,6})?")
_USER_ID = ("path", "user_id")


def parse_user_id(segment: bytes, kind: IdKind, max_user_id: int) -> UserId:
    """Read a path segment as a user id of the bundle's kind. Raises InvalidRequest or UserNotFound."""
    if not segment.isalnum():
        segment = unquote_to_bytes(segment)
    if kind == "str":
        return _text(segment)
    # bytes.isdigit is true of ASCII digits only.
    if not segment.isdigit() or len(segment) > MAX_DIGITS:
        message = f"Input should be a valid integer of 1 to {MAX_DIGITS} ASCII digits"
        raise InvalidRequest(_USER_ID, "int_parsing", message)
    user_id = int(segment)
    if user_id > max_user_id:
        raise UserNotFound(user_id)
    return user_id


def _text(raw: bytes) -> str:
    if not 1 <= len(raw) <= MAX_ID_BYTES:
        kind = "string_too_long" if raw else "string_too_short"
        raise InvalidRequest(_USER_ID, kind, f"Input should be 1 to {MAX_ID_BYTES} bytes of UTF-8")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(_USER_ID, "string_unicode", "Input should be valid UTF-8") from None
    if _CONTROL.search(text):
        raise InvalidRequest(_USER_ID, "string_pattern_mismatch", "Input should hold no control characters")
    return text


def parse_k(query: bytes, default: int, k_max: int) -> int:
    """Read `k` from a raw query string; other parameters are passed over. Raises InvalidRequest."""
    given: bytes | None = None
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if name == b"k" or (b"%" in name and unquote_to_bytes(name) == b"k"):
            if given is not None:
                raise InvalidRequest(("query", "k"), "int_parsing", "Input should be given once")
            given = unquote_to_bytes(value)
    if given is None:
        return default
    if _INTEGER.fullmatch(given) is None:
        raise InvalidRequest(("query", "k"), "int_parsing", "Input should be a valid integer")
    k = int(given)
    if k < 1:
        raise InvalidRequest(
            ("query", "k"), "greater_than_equal", "Input should be greater than or equal to 1"
        )
    if k > k_max:
        raise InvalidRequest(
            ("query", "k"), "less_than_equal", f"Input should be less than or equal to {k_max}"
        )
    return k


def parse_budget_s(value: bytes, most_s: float) -> float:
    """Read `X-Reco-Budget-Ms` into seconds; it can lower the budget, never raise it. Raises InvalidRequest."""
    if _DECIMAL.fullmatch(value) is None:
        raise InvalidRequest(
            ("header", "x-reco-budget-ms"), "float_parsing", "Input should be a number of milliseconds"
        )
    return min(float(value) / 1000, most_s)
