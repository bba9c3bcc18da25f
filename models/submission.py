"""The competition's file: one row a user, the ten items as text. Written, checked, stamped.

Columns `user_id,item_id`; `item_id` is the list as `[a, b, …]`. The file holds nothing else; which bundle and model
it came from stands beside it, in `<file>.json`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from models.evaluation.files import write_whole
from service.bundle.ids import UNKNOWN, Ids
from service.domain import IdKind, ItemId, UserId
from service.errors import DataError, InputError

COLUMNS = ["user_id", "item_id"]
MOST_ITEMS = 10
_INTEGER = re.compile(r"0|[1-9][0-9]{0,17}")


@dataclass(frozen=True, slots=True)
class Submission:
    """What a checked file holds: item ids by user, in the file's order."""

    items: Mapping[UserId, tuple[ItemId, ...]]
    sha256: str


def format_items(items: Sequence[ItemId]) -> str:
    """Write a list of item ids as the competition does: `[1, 2, 3]`.

    Raises InputError for a text id that would not be read back, such as one that holds ", ".
    """
    text = f"[{', '.join(map(str, items))}]"
    if items and _split(text) != [str(item) for item in items]:
        bad = next(item for item in items if _split(f"[{item}]") != [str(item)])
        raise InputError(f"item id {bad!r} can't stand in a submission: the list would not be read back")
    return text


def write_submission(
    path: Path, user_ids: Sequence[UserId], item_ids: Sequence[Sequence[ItemId]], stamp: Mapping[str, Any]
) -> Path:
    """Write the file, complete or not at all, and `<path>.json` with `stamp`, its sha256, rows and time.

    Returns the path of the stamp. Raises InputError for an id that the format can't hold.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((user, format_items(items)) for user, items in zip(user_ids, item_ids, strict=True))
    raw = text.getvalue().encode()
    write_whole(path, raw)
    beside = path.with_name(path.name + ".json")
    document = {
        **stamp,
        "rows": len(user_ids),
        "sha256": hashlib.sha256(raw).hexdigest(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_whole(beside, orjson.dumps(document, option=orjson.OPT_INDENT_2))
    return beside


def validate_submission(
    path: Path,
    *,
    user_kind: IdKind = "int64",
    item_kind: IdKind = "int64",
    k: int = MOST_ITEMS,
    catalogue: Ids | None = None,
    users: Sequence[UserId] | None = None,
) -> Submission:
    """Check a file against the competition's rules and read it back.

    Exactly k items a user, at most MOST_ITEMS; no empty field, no repeated user, no repeated item; every id reads
    back as an id of its kind, is in `catalogue` if given, and the users are exactly `users`, in that order, if given.
    Raises InputError for no such file; DataError naming row and column of the first breach.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if not 1 <= k <= MOST_ITEMS:
        raise InputError(f"a submission holds 1 to {MOST_ITEMS} items a user, not {k}")
    raw = path.read_bytes()
    found: dict[UserId, tuple[ItemId, ...]] = {}
    lists = _ItemLists(path, item_kind, k, catalogue)
    for row, (user_text, items_text) in _rows(path, raw):
        user = _identifier(path, row, "user_id", user_text, user_kind)
        if user in found:
            raise DataError(path, "this user came before", row=row, column="user_id", value=user)
        found[user] = lists.read(row, items_text)
    if not found:
        raise DataError(path, "holds no users")
    if users is not None:
        _check_users(path, list(found), users)
    return Submission(found, hashlib.sha256(raw).hexdigest())


def _rows(path: Path, raw: bytes) -> Iterator[tuple[int, tuple[str, str]]]:
    try:
        reader = csv.reader(io.StringIO(raw.decode(), newline=""), strict=True)
        header = next(reader, [])
        if header != COLUMNS:
            raise DataError(path, f"the columns must be {','.join(COLUMNS)}, not {','.join(header)}")
        for row, fields in enumerate(reader, start=1):
            if len(fields) != len(COLUMNS):
                raise DataError(path, f"{len(fields)} fields where the header has {len(COLUMNS)}", row=row)
            for column, value in zip(COLUMNS, fields, strict=True):
                if not value:
                    raise DataError(path, "the field is empty", row=row, column=column)
            yield row, (fields[0], fields[1])
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(path, f"not a CSV file in UTF-8: {error}") from error


class _ItemLists:
    """Reads the lists of one file. Ids are parsed once each, however often they come."""

    def __init__(self, path: Path, kind: IdKind, k: int, catalogue: Ids | None) -> None:
        self._path, self._kind, self._k, self._catalogue = path, kind, k, catalogue
        self._known: dict[str, ItemId] = {}

    def read(self, row: int, text: str) -> tuple[ItemId, ...]:
        """One field. Raises DataError naming the row for a list that is not k distinct items."""
        parts = _split(text)
        if parts is None:
            raise self._fault(row, "must be a list such as [1, 2, 3]", text)
        if len(parts) != self._k:
            raise self._fault(row, f"must hold exactly {self._k} items, holds {len(parts)}", text)
        known = self._known
        items = tuple(known[part] if part in known else self._item(row, part) for part in parts)
        if len(set(items)) != len(items):
            repeated = next(item for place, item in enumerate(items) if item in items[:place])
            raise self._fault(row, "an item came twice", repeated)
        return items

    def _item(self, row: int, part: str) -> ItemId:
        item = _identifier(self._path, row, "item_id", part, self._kind)
        if self._catalogue is not None and self._catalogue.row_of(item) == UNKNOWN:
            raise self._fault(row, "no such item in the catalogue", item)
        return self._known.setdefault(part, item)

    def _fault(self, row: int, reason: str, value: object) -> DataError:
        return DataError(self._path, reason, row=row, column="item_id", value=value)


def _identifier(path: Path, row: int, column: str, text: str, kind: IdKind) -> int | str:
    if kind == "str":
        if not text:
            raise DataError(path, "missing id", row=row, column=column)
        return text
    if _INTEGER.fullmatch(text) is None:
        raise DataError(path, "not an integer id", row=row, column=column, value=text)
    return int(text)


def _split(text: str) -> list[str] | None:
    """Parts of `[a, b]`; None where the text is no such list."""
    if not (text.startswith("[") and text.endswith("]")) or len(text) < 2:
        return None
    inner = text[1:-1]
    return inner.split(", ") if inner else []


def _check_users(path: Path, found: list[UserId], wanted: Sequence[UserId]) -> None:
    for row, (has, should) in enumerate(zip(found, wanted, strict=False), start=1):
        if has != should:
            raise DataError(
                path, f"this row should be of user {should!r}", row=row, column="user_id", value=has
            )
    if len(found) != len(wanted):
        raise DataError(path, f"holds {len(found)} users, {len(wanted)} were asked for")
