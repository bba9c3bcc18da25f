"""Search of item vectors by the compiled scan (`service/native/scan.c` says how), and their cosines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from service.domain import ItemRows, Scores, Space
from service.native import Scan

Positions = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Cells:
    """An inverted file: vectors in cells, each around a centroid.

    centroids: float32 (n_cells, dim). starts: int32 (n_cells + 1,): vectors starts[c]:starts[c + 1] are cell c's.
    """

    centroids: npt.NDArray[np.float32]
    starts: npt.NDArray[np.int32]


class ExactIndex:
    """vectors: float32 (n, dim), mapped or not; fastest by falling norm, where the space is `ip`.

    rows: int32 (n,), each vector's row of the catalogue; position_of: int32 (n_rows,), each row's vector, -1 for none.
    Without them a row is a vector's place. `search(query, n, excluded, mask)` gives the best n rows, best first, of
    equal scores the lower place, and their scores: float32, inner products, or -|q - v|^2 in space l2; fewer if
    fewer are left. `excluded` (int32 rows, None for none) are not among them, nor what `mask` (bool (n_rows,), None
    for everything) doesn't let through. `scores(query, rows)`: the same scores of given rows, NaN where one has no
    vector. `search_cells(query, n, excluded, mask, n_probe)`: `search`, but only in the `n_probe` cells whose centroids
    score highest, or some more (`Scan.search_cells`).
    """

    def __init__(
        self,
        vectors: npt.NDArray[np.float32],
        space: Space,
        rows: ItemRows | None = None,
        position_of: ItemRows | None = None,
        cells: Cells | None = None,
    ) -> None:
        self.vectors, self.space, self.size = vectors, space, len(vectors)
        squared = space == "l2"
        if cells is None:
            self._scan = Scan(vectors, squared, rows, position_of)
        else:
            centroids = Scan(cells.centroids, squared)
            self._scan = Scan(vectors, squared, rows, position_of, centroids, cells.starts)
        # Bound once: a search is short enough for a call between to show.
        self.search, self.scores = self._scan.search, self._scan.scores
        self.search_cells = self._scan.search_cells

    @property
    def read(self) -> int:
        """How many vectors the last search read; the rest could not win."""
        return self._scan.read

    @cached_property
    def _norms(self) -> Scores:
        norms: Scores = np.sqrt(np.einsum("nd,nd->n", self.vectors, self.vectors))
        return norms

    def cosines(self, position: int) -> Scores:
        """float32 (n,): cosine of every vector with the one at `position`."""
        norms = self._norms
        cosines: Scores = (self.vectors @ self.vectors[position]) / (norms * norms[position])
        return cosines

    def cosines_between(self, some: Positions, others: Positions) -> Scores:
        """float32 (len(some), len(others)): cosines of every pair of vectors."""
        norms = self._norms
        cosines: Scores = self.vectors[some] @ self.vectors[others].T
        cosines /= norms[some][:, None] * norms[others]
        return cosines
