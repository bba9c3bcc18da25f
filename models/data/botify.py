"""Botify, a music recommender of a course: track catalogue, listening log, recommendation lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl

from models.data.dataset import Dataset
from models.data.events import EventTable, Signal, read_events
from models.data.features import FeatureTable, features
from models.data.tables import naming, open_bytes
from service.errors import DataError, InputError

LOOKS_FOR = "tracks.json or tracks.json.gz (one JSON object a line), optionally the log data.json beside it"
TRACKS = ("tracks.json", "tracks.json.gz")
LOGS = ("data.json", "data.json.gz")
_NEVER_FEATURES = frozenset({"track", "recommendations"})
_KEYS: tuple[tuple[str, str, Literal["user", "item"]], ...] = (
    ("user", "tracks", "user"),
    ("item_id", "recommendations", "item"),
    ("track", "recommendations", "item"),
)
"""Key, list and what the key is, of the line formats in use."""


@dataclass(frozen=True, slots=True)
class RecommendationLists:
    """Lists of item ids made elsewhere, best first.

    by: whose list it is. keys: int64 (n,), a user's or an item's id; (0,) where `by` is `all`.
    indptr: int64 (n_lists + 1,), items: int64; list i is items[indptr[i]:indptr[i + 1]]. `all` has one list.
    """

    by: Literal["user", "item", "all"]
    keys: npt.NDArray[np.int64]
    indptr: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def of(self, i: int) -> npt.NDArray[np.int64]:
        """int64 (m,): the i-th list."""
        return self.items[self.indptr[i] : self.indptr[i + 1]]


def _beside(path: Path, names: tuple[str, ...]) -> Path | None:
    if path.is_file():
        return path if path.name in names else None
    return next((path / name for name in names if (path / name).is_file()), None)


def accepts(path: Path) -> bool:
    """Whether there is a track catalogue."""
    return _beside(path, TRACKS) is not None


def read(path: Path, columns: Mapping[str, str], progress: bool) -> Dataset:
    """Read tracks as items and, where there is a log, listens as events (share heard in signal `time`).

    Without a log the data set has items and no events. Raises DataError.
    """
    if columns:
        raise InputError("--column does not go with --reader botify, whose keys are known")
    tracks = _beside(path, TRACKS)
    if tracks is None:
        raise DataError(path, f"no tracks; looked for {LOOKS_FOR}")
    log = _beside(path, LOGS)
    listens = read_listens(log) if log else pl.DataFrame(schema=_LOG_SCHEMA)
    keys = {"user_id": "user", "item_id": "track", "timestamp": "timestamp", "time": "time"}
    events = EventTable(log or tracks, listens.lazy(), keys, (Signal("time", 0, 1),))
    return read_events(path.name.split(".")[0], events, items=read_tracks(tracks), progress=progress)


def read_tracks(path: Path) -> FeatureTable:
    """Read the catalogue: `track` is the item id; title, artist and what else there is are features."""
    rows: list[dict[str, Any]] = []
    for row, line in json_lines(path):
        if not isinstance(line.get("track"), int) or isinstance(line.get("track"), bool):
            raise DataError(path, "not a whole number", row=row, column="track", value=line.get("track"))
        rows.append({"item_id": line["track"]} | {k: v for k, v in line.items() if k not in _NEVER_FEATURES})
    with naming(path):
        frame = pl.DataFrame(rows, infer_schema_length=None, strict=False)
    if frame.is_empty():
        raise DataError(path, "no tracks in it")
    return features(path, frame, "item_id", split=False)


_LOG_SCHEMA = {"user": pl.Int64, "track": pl.Int64, "timestamp": pl.Int64, "time": pl.Float64}


def read_listens(path: Path) -> pl.DataFrame:
    """Read a listening log in its order: user, track, timestamp (int64) and time (float64). Raises DataError."""
    rows: list[tuple[Any, ...]] = []
    for row, line in json_lines(path):
        for key in _LOG_SCHEMA:
            allowed = (int, float) if key == "time" else (int,)
            if not isinstance(line.get(key), allowed) or isinstance(line.get(key), bool):
                raise DataError(path, "not a number", row=row, column=key, value=line.get(key))
        rows.append(tuple(line[key] for key in _LOG_SCHEMA))
    return pl.DataFrame(rows, schema=_LOG_SCHEMA, orient="row")


def read_recommendations(path: Path) -> RecommendationLists:
    """Read recommendation lists: one JSON object a line, by user or by item, or one array for everybody.

    Accepted lines: {"user", "tracks"}, {"item_id", "recommendations"}, {"track", ..., "recommendations"}.
    Raises DataError naming row and key: a line of another kind than the first, an id that is no whole number,
    two lists for one key.
    """
    with naming(path), open_bytes(path) as file:
        begins = file.read(64).lstrip()[:1]
        if begins == b"[":
            file.seek(0)
            return _everybody(path, file.read())
    lists: dict[int, list[int]] = {}
    kind: tuple[str, str, Literal["user", "item"]] | None = None
    for row, line in json_lines(path):
        kind = kind or next((known for known in _KEYS if known[0] in line and known[1] in line), None)
        if kind is None:
            raise DataError(path, f"no recommendations in it; the keys are {', '.join(line)}", row=row)
        (key,) = _whole(path, row, kind[0], [line.get(kind[0])])
        if key in lists:
            raise DataError(path, "a second list for this key", row=row, column=kind[0], value=key)
        lists[key] = _whole(path, row, kind[1], line.get(kind[1]))
    if kind is None:
        raise DataError(path, "the file is empty")
    return _packed(kind[2], list(lists), list(lists.values()))


def _everybody(path: Path, text: bytes) -> RecommendationLists:
    try:
        items = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise DataError(path, f"not JSON: {error}") from error
    return _packed("all", [], [_whole(path, None, "array", items)])


def _packed(
    by: Literal["user", "item", "all"], keys: list[int], lists: list[list[int]]
) -> RecommendationLists:
    indptr = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(items) for items in lists], out=indptr[1:])
    return RecommendationLists(
        by, np.array(keys, np.int64), indptr, np.array([item for items in lists for item in items], np.int64)
    )


def _whole(path: Path, row: int | None, key: str, values: Any) -> list[int]:
    if not isinstance(values, list):
        raise DataError(path, "not a list", row=row, column=key, value=values)
    for value in values:
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            raise DataError(path, "not a whole number from 0", row=row, column=key, value=value)
    return values


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (row from 1, object) of a file with one JSON object a line; blank lines are passed over."""
    with naming(path), open_bytes(path) as file:
        for row, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                line = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                raise DataError(path, f"not JSON: {error}", row=row) from error
            if not isinstance(line, dict):
                raise DataError(path, "not a JSON object", row=row)
            yield row, line
