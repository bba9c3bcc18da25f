"""What is kept of the popular lists, and what is walked in C, is what the lists say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import write_tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.reader import Bundle, load_bundle
from service.bundle.store import ArtifactStore
from service.recommender.filters import Eligible
from service.recommender.popular import PopularHeads
from service.recommender.retrieval import PopularRetriever

N_ITEMS = 40
LISTS = st.integers(0, 2)  # everybody's, and those of two segments
ROWS = st.frozensets(st.integers(0, N_ITEMS - 1), max_size=N_ITEMS)
FEW = st.frozensets(st.integers(0, N_ITEMS - 1), max_size=6)
QUESTIONS = st.tuples(
    LISTS, st.integers(1, N_ITEMS + 5), st.one_of(FEW, ROWS), FEW, st.one_of(st.none(), ROWS)
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root: Path = tmp_path_factory.mktemp("popular")
    write_tiny_bundle(root)
    return load_bundle(ArtifactStore(root).current())


def test_they_answer_what_the_lists_answer(bundle: Bundle) -> None:
    lists = PopularRetriever(bundle.models["popular"])
    heads = PopularHeads(bundle.models["popular"])

    @settings(max_examples=600, deadline=None, derandomize=True, database=None)
    @given(QUESTIONS)
    def check(
        question: tuple[int, int, frozenset[int], frozenset[int], frozenset[int] | None],
    ) -> None:
        number, n, excluded, taken, allowed = question
        mask = None if allowed is None else np.isin(np.arange(N_ITEMS), list(allowed))
        rules = Eligible(np.array(sorted(excluded), np.int32), mask)
        expected = lists.walk(number, n, rules, taken)
        for _ in range(2):  # what is kept is given again
            found = heads.walk(number, n, rules, taken)
            assert found.item_rows.tolist() == expected.item_rows.tolist()
            assert found.scores.tolist() == expected.scores.tolist()
            assert (found.source, found.filtered) == (expected.source, expected.filtered)
            assert found.item_rows.dtype == expected.item_rows.dtype

    check()
