"""Keys of event ids: how duplicates are recognised, and how a restart learns quickly which ids there were.

A closed segment has its keys beside it (`000000000001.keys`: uint64 little-endian, then their CRC-32). The file is
derived: where it is missing or damaged, the segment is read instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from service.events.frames import Record, scan
from service.events.schema import is_slate
from service.events.series import KEYS_SUFFIX
from service.events.turns import in_turns

Keys = npt.NDArray[np.uint64]
_CHECKSUM_BYTES = 4


def key_of(event_id: str) -> int:
    """64-bit hash of an event id, never 0. Two ids in a million share one with probability below 1e-7."""
    return int.from_bytes(hashlib.blake2b(event_id.encode(), digest_size=8).digest(), "little") or 1


def key_in(payload: bytes) -> int | None:
    """Key of a record's event; None for the service's own impressions, which are never sent again."""
    record: dict[str, Any] = orjson.loads(payload)
    return None if is_slate(record) else key_of(record["event_id"])


def as_keys(keys: Iterable[int]) -> Keys:
    """uint64 (n,), in the given order."""
    return np.frombuffer(array("Q", keys), np.uint64)


def store_keys(segment: Path, keys: Iterable[int]) -> None:
    """Put a segment's keys beside it; where that fails, they are not there."""
    data = as_keys(keys).astype("<u8").tobytes()
    path = segment.with_suffix(KEYS_SUFFIX)
    try:
        path.write_bytes(data + zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, "little"))
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()


def keys_of(segment: Path) -> Keys:
    """uint64 (n,): keys of a closed segment's feedback, in order."""
    stored = _stored(segment)
    if stored is not None:
        return stored
    with segment.open("rb") as source:
        keys = (key_in(found.payload) for found in in_turns(scan(source)) if isinstance(found, Record))
        return as_keys(key for key in keys if key is not None)


def _stored(segment: Path) -> Keys | None:
    try:
        data = segment.with_suffix(KEYS_SUFFIX).read_bytes()
    except FileNotFoundError:
        return None
    keys, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if len(keys) % 8 or zlib.crc32(keys).to_bytes(_CHECKSUM_BYTES, "little") != checksum:
        return None
    return np.frombuffer(keys, "<u8").astype(np.uint64)


def recent_keys(segments: list[Path], most: int) -> list[Keys]:
    """Keys of closed segments, oldest first: the newest segments that together have `most`."""
    groups: list[Keys] = []
    count = 0
    for segment in reversed(segments):
        if count >= most:
            break
        groups.append(keys_of(segment))
        count += len(groups[-1])
    return groups[::-1]
