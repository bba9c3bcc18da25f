"""External ids and their rows: sorted, memory-mapped, searched in place, so a worker holds no dict of users."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from service.domain import IdKind

UNKNOWN = -1


class Ids(Protocol):
    """Unique ids in ascending order; an id's place is its row."""

    kind: IdKind

    def __len__(self) -> int:
        """Count the ids."""

    def row_of(self, identifier: Any) -> int:
        """Row of an id, or UNKNOWN (also for an id of the other kind)."""

    def rows_of(self, identifiers: Iterable[Any]) -> npt.NDArray[np.int32]:
        """int32 (n,): rows of ids, UNKNOWN where there is none."""

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> list[Any]:
        """Ids of rows, in the order of the rows."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What to store: name suffix -> array."""


class IntIds:
    """int64 ids. `values`: int64 (n,), strictly ascending."""

    kind: IdKind = "int64"

    def __init__(self, values: npt.NDArray[np.int64]) -> None:
        if values.ndim != 1 or values.dtype != np.int64:
            raise ValueError(f"ids must be int64 (n,), got {values.dtype} {values.shape}")
        if len(values) > 1 and not bool((values[1:] > values[:-1]).all()):
            raise ValueError("ids must be unique and ascending")
        self.values = values
        # bisect over a memoryview is C all the way and makes no numpy scalars.
        self._view = np.ascontiguousarray(values).data.toreadonly()
        self._first = int(values[0]) if len(values) else 0
        self._dense = len(values) > 0 and int(values[-1]) - self._first == len(values) - 1
        self._len = len(values)

    def __len__(self) -> int:
        return self._len

    def row_of(self, identifier: Any) -> int:
        """Row of an id, or UNKNOWN (also for an id of the other kind)."""
        if type(identifier) is not int:
            return UNKNOWN
        if self._dense:
            row = identifier - self._first
            return row if 0 <= row < self._len else UNKNOWN
        row = bisect_left(self._view, identifier)
        return row if row < self._len and self._view[row] == identifier else UNKNOWN

    def rows_of(self, identifiers: Iterable[Any]) -> npt.NDArray[np.int32]:
        """int32 (n,): rows of ids, UNKNOWN where there is none."""
        return np.fromiter((self.row_of(i) for i in identifiers), dtype=np.int32)

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> list[Any]:
        """Ids of rows, in the order of the rows."""
        taken: list[Any] = self.values.take(rows).tolist()
        return taken

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What to store: name suffix -> array."""
        return {"values": self.values}


class _Keys(Sequence[bytes]):
    """The ids' UTF-8 bytes as a sequence that bisect can walk."""

    def __init__(self, blob: bytes | memoryview, offsets: npt.NDArray[np.int64]) -> None:
        self._blob, self._offsets = blob, np.ascontiguousarray(offsets).data.toreadonly()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: Any) -> Any:
        return bytes(self._blob[self._offsets[row] : self._offsets[row + 1]])


class StrIds:
    """String ids in ascending order of their UTF-8 bytes.

    blob: uint8 (total bytes,), the ids end to end. offsets: int64 (n + 1,), where each begins.
    """

    kind: IdKind = "str"

    def __init__(self, blob: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        if blob.ndim != 1 or blob.dtype != np.uint8 or offsets.ndim != 1 or offsets.dtype != np.int64:
            raise ValueError("string ids must be uint8 (bytes,) and int64 (n + 1,)")
        if (
            len(offsets) < 1
            or offsets[0] != 0
            or offsets[-1] != len(blob)
            or bool((np.diff(offsets) <= 0).any())
        ):
            raise ValueError("string id offsets must rise from 0 to the blob's length; no id may be empty")
        self.blob, self.offsets = blob, offsets
        self._keys = _Keys(np.ascontiguousarray(blob).data.toreadonly(), offsets)
        previous = b""
        for row in range(len(self._keys)):
            key = self._keys[row]
            if key <= previous:
                raise ValueError(f"string ids must be unique and ascending (row {row})")
            try:
                key.decode()
            except UnicodeDecodeError as error:
                raise ValueError(f"string id at row {row} is not UTF-8") from error
            previous = key

    @classmethod
    def of(cls, identifiers: Iterable[str]) -> StrIds:
        """Build from unique ids in any order."""
        keys = sorted(identifier.encode() for identifier in identifiers)
        offsets = np.zeros(len(keys) + 1, np.int64)
        np.cumsum([len(key) for key in keys], out=offsets[1:])
        return cls(np.frombuffer(b"".join(keys), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row_of(self, identifier: Any) -> int:
        """Row of an id, or UNKNOWN (also for an id of the other kind)."""
        if type(identifier) is not str:
            return UNKNOWN
        try:
            key = identifier.encode()
        except UnicodeEncodeError:  # a lone surrogate: no stored id has one
            return UNKNOWN
        row = bisect_left(self._keys, key)
        return row if row < len(self) and self._keys[row] == key else UNKNOWN

    def rows_of(self, identifiers: Iterable[Any]) -> npt.NDArray[np.int32]:
        """int32 (n,): rows of ids, UNKNOWN where there is none."""
        return np.fromiter((self.row_of(i) for i in identifiers), dtype=np.int32)

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> list[Any]:
        """Ids of rows, in the order of the rows."""
        return [self._keys[row].decode() for row in rows.tolist()]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What to store: name suffix -> array."""
        return {"blob": self.blob, "offsets": self.offsets}
