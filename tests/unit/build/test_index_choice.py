"""What a build serves: the fastest search of those that find enough, and nothing beside it that is not used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from models.build import index as chooser
from models.build.index import IndexChoice, SearchableModel, make_searchable
from models.trained import TrainedModel

N, DIM = 600, 16
Choose = Callable[..., SearchableModel]


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Choose:
    """Make a model searchable, its searches having taken so many microseconds: exact, in cells, by graph."""
    draw = np.random.default_rng(2)
    vectors = draw.normal(size=(N + 100, DIM)).astype(np.float32)
    trained = TrainedModel(
        "factors",
        {
            "item_rows": np.arange(N, dtype=np.int32),
            "item_vectors": vectors[:N],
            "user_rows": np.arange(100, dtype=np.int32),
            "user_vectors": vectors[N:],
        },
        space="cosine",
    )
    monkeypatch.setattr(chooser, "CELLS_FROM", 100)

    def made(*took: float, choice: IndexChoice = "auto", **settings: Any) -> SearchableModel:
        left = list(took)
        monkeypatch.setattr(chooser, "_median_microseconds", lambda _search, _queries: left.pop(0))
        for name, value in settings.items():
            monkeypatch.setattr(chooser, name, value)
        found = make_searchable(trained, choice=choice)
        assert not left  # as many searches were timed
        return found

    return made


def what_it_holds(model: SearchableModel) -> tuple[str, bool, bool]:
    """What serves, and whether there are a graph and cells; the manifest tells of no other."""
    cells = "cell_starts" in model.arrays
    assert (model.index is not None) == (model.retrieval.hnsw is not None)
    assert cells == (model.retrieval.ivf is not None) == ("cell_centroids" in model.arrays)
    return model.retrieval.retriever, model.index is not None, cells


def test_the_fastest_search_serves_if_it_is_worth_its_lost_recall(choose: Choose) -> None:
    assert what_it_holds(choose(100, 10, 50)) == ("ivf", False, True)
    assert what_it_holds(choose(100, 60, 50)) == ("hnsw", True, False)
    assert what_it_holds(choose(100, 90, 80)) == ("exact", True, False)


def test_a_large_catalogue_has_a_graph_only_where_cells_find_too_little(
    choose: Choose, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert what_it_holds(choose(100, 10, _GRAPH_UP_TO=N - 1)) == ("ivf", False, True)
    assert what_it_holds(choose(100, 90, _GRAPH_UP_TO=N - 1)) == ("exact", False, False)
    monkeypatch.setattr("models.build.cells._LARGEST_SHARE", 0.0)  # the fewest cells, and no more
    assert what_it_holds(choose(100, 10, 20, _GRAPH_UP_TO=N - 1)) == ("hnsw", True, False)


def test_cells_are_not_tried_where_an_exact_search_reads_little(choose: Choose) -> None:
    assert what_it_holds(choose(100, 10, CELLS_FROM=N + 1)) == ("hnsw", True, False)


def test_what_is_asked_for_is_served_however_fast_it_is(choose: Choose) -> None:
    assert what_it_holds(choose(100, 900, choice="ivf")) == ("ivf", False, True)
    assert what_it_holds(choose(100, 900, choice="hnsw")) == ("hnsw", True, False)
    assert what_it_holds(choose(100, 1, choice="exact")) == ("exact", True, False)
    assert what_it_holds(choose(choice="none")) == ("exact", False, False)


def test_all_that_was_tried_is_told_with_its_recall(choose: Choose) -> None:
    model = choose(100, 10, 50)
    tried = model.retrieval.measured
    assert {"n_probe" in one for one in tried} == {True, False}
    assert all(0 <= one["recall_at_100"] <= 1 for one in tried)
    probes = [one["n_probe"] for one in tried if "n_probe" in one]
    assert probes == sorted(probes)
    assert model.retrieval.ivf is not None
    assert (probes[-1], model.retrieval.recall) == (model.retrieval.ivf.n_probe, model.retrieval.ivf.recall)
    assert model.retrieval.recall.at_10 >= chooser.RECALL_WANTED
