"""Text columns without pickle: strings end to end in one byte array, and where each begins."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def pack_text(values: Iterable[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Pack strings: uint8 (total bytes,) of UTF-8 and int64 (n + 1,) offsets."""
    encoded = [value.encode() for value in values]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(value) for value in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), np.uint8), offsets


class TextColumn(Sequence[str]):
    """Strings read in place. Raises ValueError when the arrays don't fit each other or aren't UTF-8."""

    def __init__(self, blob: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> None:
        if blob.dtype != np.uint8 or offsets.dtype != np.int64 or blob.ndim != 1 or offsets.ndim != 1:
            raise ValueError("text must be uint8 (bytes,) and int64 (n + 1,)")
        if (
            len(offsets) < 1
            or offsets[0] != 0
            or offsets[-1] != len(blob)
            or bool((np.diff(offsets) < 0).any())
        ):
            raise ValueError("text offsets must not fall, and run from 0 to the blob's length")
        self._blob, self._offsets = blob.data, offsets
        try:
            bytes(self._blob).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"text is not UTF-8: {error}") from error

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        return bytes(self._blob[self._offsets[row] : self._offsets[row + 1]]).decode(errors="replace")
