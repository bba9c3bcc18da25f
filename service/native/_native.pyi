from typing import Any

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float32]
_Rows = npt.NDArray[np.int32]

INSTRUCTIONS: str
"""What the processor offers and is used: `avx512vnni`, `avx2`, or `plain`.

RECO_NATIVE_INSTRUCTIONS in the environment names less than that, for tests and comparisons."""

class Scan:
    """Exact nearest vectors. Holds what it is given; its answers don't depend on the processor."""

    def __init__(
        self,
        vectors: _Floats,
        squared: bool,
        rows: _Rows | None = None,
        positions: _Rows | None = None,
        centroids: Scan | None = None,
        starts: _Rows | None = None,
    ) -> None:
        """vectors: (n, dim). squared: rank by falling squared distance instead of by inner product.

        rows: (n,), each vector's row of the catalogue; positions: (n_rows,), each row's vector, -1: none. Without
        them a row is a vector's place. centroids: of cells; the vectors starts[c]:starts[c + 1] are cell c's, starts
        (n_cells + 1,). Raises TypeError and ValueError for arrays that don't fit.
        """

    def search(
        self,
        query: npt.NDArray[Any],
        n: int,
        excluded: npt.NDArray[Any] | None,
        mask: npt.NDArray[np.bool_] | None,
        /,
    ) -> tuple[_Rows, _Floats]:
        """Rows of the best n, best first (of equal scores the lower place), and their scores.

        excluded: int32 rows that must not be among them. mask: (n_rows,), True for rows that may.
        """

    def search_cells(
        self,
        query: npt.NDArray[Any],
        n: int,
        excluded: npt.NDArray[Any] | None,
        mask: npt.NDArray[np.bool_] | None,
        n_probe: int,
        /,
    ) -> tuple[_Rows, _Floats]:
        """As `search`, but only in cells near the query: `n_probe` of them for the best ten of all, more where more is
        asked for or where excluded and masked rows are in the way; the same on every processor. Raises ValueError
        without cells.
        """

    def scores(self, query: npt.NDArray[Any], rows: npt.NDArray[Any], /) -> _Floats:
        """Scores of these rows, as `search` gives them; NaN where a row has no vector."""

    @property
    def read(self) -> int:
        """How many vectors' codes the last search read."""

class Sums:
    """Sums of a history's rows of a square matrix, as CSR or dense, each weighed by how recent its item is."""

    def __init__(
        self,
        n_items: int,
        recency: _Floats | None,
        indptr: npt.NDArray[np.int64] | None = None,
        indices: _Rows | None = None,
        weights: _Floats | None = None,
        dense: _Floats | None = None,
    ) -> None:
        """recency: the last is the newest item's weight; items older than it reaches don't count. None: 1 each."""

    def scores(self, history: npt.NDArray[Any], /) -> _Floats:
        """(n_items,); -inf where a sparse matrix says nothing of an item. history: int32, oldest first."""

    def best(
        self,
        history: npt.NDArray[Any],
        n: int,
        excluded: npt.NDArray[Any] | None,
        mask: npt.NDArray[np.bool_] | None,
        /,
    ) -> tuple[_Rows, _Floats]:
        """The best n rows of what `scores` tells, as `top` finds them."""

    def pairs(self, history: npt.NDArray[Any], rows: npt.NDArray[Any], /) -> _Floats:
        """(len(history), len(rows)): the matrix's entries; 0 where it has none. Each of `rows` once."""

class Forest:
    """Sums of regression trees, over all rows of a pool at once."""

    def __init__(
        self,
        indptr: npt.NDArray[np.int64],
        feature: _Rows,
        threshold: _Floats,
        nan_right: npt.NDArray[np.uint8],
        left: _Rows,
        right: _Rows,
        value: _Floats,
        bias: float,
    ) -> None:
        """Arrays as `TreeArrays` has them. Raises ValueError where they are no trees."""

    def scores(self, columns: _Floats, /) -> npt.NDArray[np.float64]:
        """(n,): each row's sum over the trees and the bias. columns: (n_features or more, n), NaN where unknown."""

    @property
    def n_questions(self) -> int:
        """How many different comparisons the trees make."""

def first_twin(indptr: npt.NDArray[Any], items: npt.NDArray[Any], width: int, /) -> int | None:
    """The first row of a CSR that names an entry twice.

    indptr: int64 (n + 1,). items: int32, of 0..width - 1. Raises ValueError for offsets or entries that are not.
    """

def graph_fault(
    file: npt.NDArray[np.uint8], vectors: _Floats, m: int, max_level: int, entry_point: int, /
) -> str | None:
    """What is wrong with a saved graph index behind its header; None: every link, label and level is as it must be.

    file: (bytes,), all of it. vectors: (n, dim); element by element the file must hold them bit for bit. m: most links
    above level 0. Raises ValueError for numbers that no index has.
    """

def top(
    scores: _Floats, n: int, excluded: npt.NDArray[Any] | None, mask: npt.NDArray[np.bool_] | None, /
) -> tuple[_Rows, _Floats]:
    """Places of the best n scores, best first (of equal ones the lower), and the scores; -inf is never among them."""

def first_eligible(
    items: _Rows, scores: _Floats, begin: int, end: int, n: int, excluded: npt.NDArray[Any],
    mask: npt.NDArray[np.bool_] | None, /,
) -> tuple[_Rows, _Floats]:  # fmt: skip
    """Of items[begin:end], in their order, the first n that may be shown, and their scores.

    excluded: int32 rows that may not. mask: (n_rows,), True for rows that may; None: all. Raises TypeError and
    ValueError for arrays and places that don't fit.
    """
