"""Sums of regression trees, run over a whole pool at once in numpy.

A tree asks of a row `value > threshold` at each inner node and goes right where it holds. Here a question is put to
all rows together and its answers are one bit a row; which rows reach a node is then a bitwise `and` of its parent's
rows and an answer. So the work on a node is a few words for the whole pool, whatever the shape of the tree. (Bits for
the comparisons of a forest, feature by feature, are QuickScorer's idea, Lucchese et al., SIGIR 2015; there they are
masks of leaves, here of rows.)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from service.bundle.two_stage import TreeArrays

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint64]
_WORD = 64
_MOST_LEVELS = 12
"""Of a symmetric tree: one deeper has more leaves than nodes of any other shape would want."""


class Forest:
    """Trees made ready to run. Immutable; threads and forked workers share it."""

    def __init__(self, trees: TreeArrays) -> None:
        self.n_trees, self.bias = len(trees), trees.bias
        self._questions = _Questions(trees)
        self._paths: _Symmetric | _AnyShape = _Symmetric.of(trees, self._questions) or _AnyShape(
            trees, self._questions
        )
        values = self._paths.values
        self._values = np.ascontiguousarray(values, np.float64).ravel()
        self._first_of = (np.arange(self.n_trees) * values.shape[1])[:, None]
        self._ones = np.ones(self.n_trees)

    @property
    def n_questions(self) -> int:
        """How many different comparisons the trees make."""
        return self._questions.count

    @property
    def is_symmetric(self) -> bool:
        """Whether every tree asks the same on all of a level: no walk is needed then."""
        return isinstance(self._paths, _Symmetric)

    def scores(self, features: Floats) -> npt.NDArray[np.float64]:
        """float64 (n,): each row's sum over the trees. features: float32 (n, n_features), NaN where unknown.

        Fastest where a feature's values stand side by side (Fortran order).
        """
        n = len(features)
        bits = self._paths.bits(self._questions.answers(features.T))
        wide = len(bits) > 8
        flags = np.unpackbits(bits.view(np.uint8).reshape(len(bits), -1), axis=1, bitorder="little")
        numbers = flags[-1].astype(np.uint16) if wide else flags[-1]
        for one in flags[-2::-1]:
            numbers += numbers
            numbers |= one
        at = numbers.reshape(self.n_trees, -1) + self._first_of
        total: npt.NDArray[np.float64] = self._ones @ self._values.take(at)
        return total[:n] + self.bias


class _Questions:
    """Every different comparison of the trees, once. `of_node`: intp, which one a node makes; -1 at a leaf."""

    def __init__(self, trees: TreeArrays) -> None:
        inner = np.flatnonzero(trees.feature >= 0)
        order = np.lexsort((trees.threshold[inner], trees.nan_right[inner], trees.feature[inner]))
        keys = np.stack(
            (
                trees.feature[inner][order].astype(np.float64),
                trees.nan_right[inner][order].astype(np.float64),
                trees.threshold[inner][order].astype(np.float64),
            )
        )
        new = np.ones(len(inner), np.bool_)
        new[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
        self.of_node = np.full(len(trees.feature), -1, np.intp)
        self.of_node[inner[order]] = new.cumsum() - 1
        different = keys[:, new]
        self.count: int = different.shape[1]
        edges = np.flatnonzero((different[:2, 1:] != different[:2, :-1]).any(axis=0)) + 1
        self._blocks: list[tuple[int, bool, slice, Floats]] = []
        for begin, end in pairwise(
            (0, *edges.tolist(), self.count) if self.count else ()
        ):  # stumps ask nothing
            feature, nan_right, _ = different[:, begin].tolist()
            thresholds = different[2, begin:end, None].astype(np.float32)
            self._blocks.append((int(feature), bool(nan_right), slice(begin, end), thresholds))

    def answers(self, columns: Floats) -> Words:
        """uint64 (count + 1, words): bit r of a question's words, from the lowest, is row r's. The last is no to all.

        columns: float32 (n_features, n).
        """
        n = columns.shape[1]
        width = max(1, -(-n // _WORD)) * _WORD
        padded = np.zeros((len(columns), width), np.float32)
        padded[:, :n] = columns
        above = np.empty((self.count + 1, width), np.bool_)
        above[-1] = False
        for feature, nan_right, span, thresholds in self._blocks:
            block = above[span]
            if nan_right:  # NaN is not below anything either
                np.less_equal(padded[feature], thresholds, out=block)
                np.logical_not(block, out=block)
            else:
                np.greater(padded[feature], thresholds, out=block)
        packed = np.packbits(above.reshape(-1), bitorder="little")
        return packed.view("<u8").reshape(self.count + 1, width // _WORD)


class _Symmetric:
    """Trees that ask the same on all of a level, as CatBoost grows them: a leaf's number is the answers side by side.

    values: float64 (n_trees, n_leaves), by that number; the root's answer is the lowest bit.
    """

    def __init__(self, asked: npt.NDArray[np.intp], values: npt.NDArray[np.float64]) -> None:
        self._asked, self.values = asked, values

    @classmethod
    def of(cls, trees: TreeArrays, questions: _Questions) -> _Symmetric | None:
        """Read the trees so; None where one of them isn't symmetric."""
        levels: list[list[int]] = []
        leaves: list[dict[int, float]] = []
        for begin in trees.indptr[:-1].tolist():
            nodes: list[int] = [begin]
            asked: list[int] = []
            while (question := int(questions.of_node[nodes[0]])) >= 0:
                if (questions.of_node[nodes] != question).any() or len(asked) == _MOST_LEVELS:
                    return None
                asked.append(question)
                # All left children, then all right ones: place p of the next level has this answer as its top bit.
                nodes = (begin + np.concatenate((trees.left[nodes], trees.right[nodes]))).tolist()
            if (trees.feature[nodes] >= 0).any():
                return None
            levels.append(asked)
            leaves.append(dict(enumerate(trees.value[nodes].tolist())))
        depth = max(1, *map(len, levels)) if levels else 1
        values = np.zeros((len(trees), 1 << depth))
        for tree, of_tree in enumerate(leaves):
            values[tree, list(of_tree)] = list(of_tree.values())
        padded = [asked + [questions.count] * (depth - len(asked)) for asked in levels]
        return cls(np.array(padded, np.intp).reshape(len(trees), depth).T.copy(), values)

    def bits(self, answers: Words) -> Words:
        """uint64 (n_bits, n_trees, words): the leaves' numbers, bit by bit from the lowest."""
        return answers.take(self._asked, axis=0)


@dataclass(frozen=True, slots=True)
class _Level:
    """Inner nodes of one depth, of all trees. Their children stand all left ones first, then all right ones.

    parents: places among the children of the level above; questions: what they ask. leaves: places of the children
    that are leaves.
    """

    parents: npt.NDArray[np.intp]
    questions: npt.NDArray[np.intp]
    leaves: npt.NDArray[np.intp]


class _AnyShape:
    """Trees of any shape. values: float64 (n_trees, width), by the leaf's number within its tree."""

    def __init__(self, trees: TreeArrays, questions: _Questions) -> None:
        n_trees = len(trees)
        tree_of = np.repeat(np.arange(n_trees), np.diff(trees.indptr))
        base = trees.indptr[tree_of]
        leaf = trees.feature < 0
        before = np.concatenate(([0], leaf.cumsum()))
        number = before[:-1] - before[base]
        self._n_bits = max(1, int(number[leaf].max(initial=0)).bit_length())
        self.values = np.zeros((n_trees, 1 << self._n_bits))
        self.values[tree_of[leaf], number[leaf]] = trees.value[leaf]
        nodes = trees.indptr[:-1].astype(np.intp)
        self._roots = n_trees
        met = [nodes[leaf[nodes]]]
        self._stumps = np.flatnonzero(leaf[nodes])
        self._levels: list[_Level] = []
        while len(inner := np.flatnonzero(~leaf[nodes])):
            asked = nodes[inner]
            nodes = np.concatenate((base[asked] + trees.left[asked], base[asked] + trees.right[asked]))
            leaves = np.flatnonzero(leaf[nodes])
            met.append(nodes[leaves])
            self._levels.append(_Level(inner, questions.of_node[asked], leaves))
        found = np.concatenate(met)
        self._n_leaves = len(found)
        # Where each (number, tree) finds its leaf among those met, level by level; the one past the end has no rows.
        self._leaf_at = np.full((1 << self._n_bits) * n_trees, self._n_leaves, np.intp)
        self._leaf_at[number[found] * n_trees + tree_of[found]] = np.arange(self._n_leaves)

    def bits(self, answers: Words) -> Words:
        """uint64 (n_bits, n_trees, words): the leaves' numbers, bit by bit from the lowest."""
        words = answers.shape[1]
        leaves = np.empty((self._n_leaves + 1, words), np.uint64)
        leaves[-1] = 0
        rows = np.full((self._roots, words), ~np.uint64(0))
        end = len(self._stumps)
        leaves[:end] = ~np.uint64(0)
        for level in self._levels:
            here = rows.take(level.parents, axis=0)
            asked = answers.take(level.questions, axis=0)
            rows = np.empty((2 * len(here), words), np.uint64)
            np.bitwise_and(here, asked, out=rows[len(here) :])
            np.bitwise_xor(here, rows[len(here) :], out=rows[: len(here)])
            begin, end = end, end + len(level.leaves)
            rows.take(level.leaves, axis=0, out=leaves[begin:end], mode="clip")
        by_number = leaves.take(self._leaf_at, axis=0).reshape(1 << self._n_bits, -1)
        bits = np.empty((self._n_bits, self._roots, words), np.uint64)
        for bit in range(self._n_bits):
            with_bit = by_number.reshape(-1, 2, 1 << bit, by_number.shape[1])[:, 1]
            np.bitwise_or.reduce(with_bit, axis=(0, 1), out=bits[bit].reshape(-1))
        return bits
