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


def test_the_first_that_may_be_shown_are_answered_in_the_order_of_the_list(bundle: Bundle) -> None:
    model = bundle.models["popular"]
    indptr, items, scores = (model.arrays[role] for role in ("indptr", "items", "scores"))
    popular = PopularRetriever(model)

    @settings(max_examples=600, deadline=None, derandomize=True, database=None)
    @given(QUESTIONS)
    def check(
        question: tuple[int, int, frozenset[int], frozenset[int], frozenset[int] | None],
    ) -> None:
        number, n, excluded, taken, allowed = question
        mask = None if allowed is None else np.isin(np.arange(N_ITEMS), list(allowed))
        rules = Eligible(np.array(sorted(excluded), np.int32), mask)
        shown = [
            place
            for place in range(indptr[number], indptr[number + 1])
            if items[place] not in excluded | taken and (allowed is None or items[place] in allowed)
        ][:n]
        for _ in range(2):  # what is kept is given again
            found = popular.walk(number, n, rules, taken)
            assert found.item_rows.tolist() == items[shown].tolist()
            assert found.scores.tolist() == scores[shown].tolist()
            assert (found.source, found.filtered) == ("segment_popular" if number else "popular", True)
            assert found.item_rows.dtype == np.int32

    check()
