"""What the values of a bundle's float arrays are like, noted while their files are hashed.

A value is read from the disk once: while a block of it is in the processor's cache for the hash, the rest is told too.
What was noted rests on the manifest's word alone, and counts only after the hash and the header have borne that out.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from service.bundle.manifest import FileEntry, Manifest

BLOCK_BYTES = 1 << 20
"""Read at once: what a core's second-level cache holds beside the sums."""
MAX_HEADER_BYTES = 10_000
"""Of an array's header; the format's name and the header's length stand before it."""
_BEFORE_HEADER = 10
_WIDEST = 4096
"""Of a vector; a manifest admits no wider model."""


class Values:
    """Notes what one array of float32 is like, block by block.

    `not_finite`, `infinite`: number of the first value that is NaN or infinite, that is infinite; None where there is
    none. `norms`: float32 (n,) of a matrix's rows, `gram`: float64 (dim, dim), VᵀV to about 1e-5 of its largest entry;
    None where they were not asked for.
    """

    __slots__ = (
        "_count",
        "_first",
        "_width",
        "begin",
        "gram",
        "infinite",
        "norms",
        "not_finite",
        "step",
    )

    def __init__(self, entry: FileEntry, *, norms: bool = False, gram: bool = False) -> None:
        """Raises ValueError where the manifest's entry can't be right. Norms are those of a matrix, or not told."""
        if entry.dtype != "<f4" or entry.shape is None:
            raise ValueError("not an array of float32")
        shape, count = entry.shape, math.prod(entry.shape)
        norms = norms and len(shape) == 2 and 0 < shape[1] <= _WIDEST
        self.begin = entry.bytes - 4 * count
        """Where the values begin, if the manifest is right."""
        if not 0 <= self.begin <= _BEFORE_HEADER + MAX_HEADER_BYTES:
            raise ValueError("the file is too short for its shape, or too long")
        self._width, self._count = shape[1] if norms else 1, count
        row = 4 * self._width
        self.step = max(1, BLOCK_BYTES // row) * row
        """Bytes of a block: whole rows."""
        self._first = 0
        self.not_finite: int | None = None
        self.infinite: int | None = None
        self.norms: npt.NDArray[np.float32] | None = None
        self.gram: npt.NDArray[np.float64] | None = None
        if norms:
            self.norms = np.empty(0, np.float32)
            self.gram = np.zeros((self._width, self._width)) if gram else None

    def see(self, block: memoryview) -> None:
        """Note the next block's values: `step` bytes, or what is left. What makes no whole rows is passed over."""
        first, count = self._first, len(block) // 4
        if len(block) % (4 * self._width) or first + count > self._count:
            return  # not the file that the manifest means: its hash will say so
        self._first += count
        values = np.frombuffer(block, np.float32)
        if self.norms is None:
            finite = np.isfinite(values)
        else:
            if first == 0:
                self.norms = np.empty(self._count // self._width, np.float32)
            rows = values.reshape(-1, self._width)
            norms = self.norms[first // self._width :][: len(rows)]
            with np.errstate(all="ignore"):  # what is not usable is told by the norms
                np.sqrt(np.einsum("nd,nd->n", rows, rows), out=norms)
                if self.gram is not None:
                    self.gram += rows.T @ rows
            if np.isfinite(norms).all():
                return
            finite = np.isfinite(values)
        if finite.all():
            return
        if self.not_finite is None:
            self.not_finite = first + int(np.argmin(finite))
        if self.infinite is None:
            infinite = np.isinf(values)
            self.infinite = first + int(np.argmax(infinite)) if infinite.any() else None


def values_of(manifest: Manifest) -> dict[str, Values]:
    """Who notes what is asked of each float array, by file: of vectors their norms, where users are solved from a
    history also the Gram matrix. A file whose entry can't be right has nobody; it is refused for that later."""
    factors = [entry for entry in manifest.models.values() if entry.kind == "factors"]
    normed = {entry.files.get(role) for entry in factors for role in ("item_vectors", "user_vectors")}
    squared = {entry.files.get("item_vectors") for entry in factors if "gram" in entry.files}
    noted = {}
    for name, entry in manifest.files.items():
        try:
            noted[name] = Values(entry, norms=name in normed, gram=name in squared)
        except ValueError:
            continue
    return noted
