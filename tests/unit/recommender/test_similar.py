"""Item to item."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import write_tiny_bundle

from service.bundle.reader import load_bundle
from service.errors import InvalidRequest, ItemNotFound
from service.recommender.live import LiveBundle, go_live
from service.recommender.similar import similar


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    return go_live(load_bundle(write_tiny_bundle(Path(tmp_path_factory.mktemp("artifacts")))))


@pytest.mark.parametrize("model", ["als", "knn", "ease"])
def test_neighbours_share_the_items_taste_and_leave_it_out(live: LiveBundle, model: str) -> None:
    found = similar(10 + 2 * 6, 5, model, live)
    items = [item for item, _ in found]
    assert len(set(items)) == 5
    assert 22 not in items
    assert [(item - 10) // 2 % 2 for item in items if isinstance(item, int)] == [0] * 5
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_an_item_outside_the_catalogue_is_not_found(live: LiveBundle) -> None:
    with pytest.raises(ItemNotFound, match="11"):
        similar(11, 5, "als", live)


def test_a_model_without_a_notion_of_similarity_says_so(live: LiveBundle) -> None:
    with pytest.raises(InvalidRequest, match="popular"):
        similar(10, 5, "popular", live)
