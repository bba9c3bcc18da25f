"""What the graph index finds, held against brute force that shares no code with the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from factories import tiny_dataset, trained_models

from models.als import als
from models.build.assemble import assemble
from models.data.dataset import Dataset
from models.data.read import read_dataset
from models.popularity import popularity
from models.trained import TrainedModel
from service.bundle.ids import IntIds
from service.bundle.reader import Bundle, load_bundle
from service.recommender.filters import EVERYTHING
from service.recommender.live import LiveBundle, go_live
from service.recommender.retrieval import FactorsRetriever
from service.recommender.user_state import UserState

Space = Literal["ip", "cosine", "l2"]
Vectors = npt.NDArray[np.float32]
N_ITEMS, N_USERS, DIM, K = 4000, 300, 32, 10


def als_like(seed: int) -> tuple[Vectors, Vectors]:
    """Items and users around shared tastes; item norms fall off as popularity does, as trained ALS vectors' do."""
    generator = np.random.default_rng(seed)
    tastes = generator.normal(size=(40, DIM))
    items = tastes[generator.integers(0, 40, N_ITEMS)] + 0.7 * generator.normal(size=(N_ITEMS, DIM))
    items *= ((1 + np.arange(N_ITEMS)) ** -0.4)[:, None]
    users = tastes[generator.integers(0, 40, N_USERS)] + 0.7 * generator.normal(size=(N_USERS, DIM))
    return items.astype(np.float32), users.astype(np.float32)


def two_towers(seed: int) -> tuple[Vectors, Vectors]:
    """Items and users drawn alike, as a two-tower network trained with a distance leaves them."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(60, DIM))
    items = centres[generator.integers(0, 60, N_ITEMS)] + 0.5 * generator.normal(size=(N_ITEMS, DIM))
    users = centres[generator.integers(0, 60, N_USERS)] + 0.5 * generator.normal(size=(N_USERS, DIM))
    return items.astype(np.float32), users.astype(np.float32)


def nearness(space: Space, items: Vectors, users: Vectors) -> npt.NDArray[np.float64]:
    """float64 (users, items), larger is nearer, from the definitions."""
    items, users = items.astype(np.float64), users.astype(np.float64)
    if space == "ip":
        return np.asarray(users @ items.T)
    if space == "cosine":
        lengths = np.outer(np.linalg.norm(users, axis=1), np.linalg.norm(items, axis=1))
        return np.asarray(users @ items.T / lengths)
    return -np.stack([np.linalg.norm(items - user, axis=1) for user in users])


def bundle_of(root: Path, items: Vectors, users: Vectors, space: Space, index: Any) -> Bundle:
    nothing = np.empty(0, np.int32)
    data = Dataset(
        name="vectors",
        user_ids=IntIds(np.arange(len(users))),
        item_ids=IntIds(np.arange(len(items))),
        user_rows=nothing,
        item_rows=nothing,
        weights=np.empty(0, np.float32),
        times=None,
        time_kind=None,
    )
    popular = TrainedModel(
        "popular",
        {
            "indptr": np.array([0, len(items)], np.int64),
            "items": np.arange(len(items), dtype=np.int32),
            "scores": np.zeros(len(items), np.float32),
            "user_segment": np.zeros(len(users), np.int32),
        },
    )
    factors = TrainedModel(
        "factors",
        {
            "item_rows": np.arange(len(items), dtype=np.int32),
            "item_vectors": items,
            "user_rows": np.arange(len(users), dtype=np.int32),
            "user_vectors": users,
        },
        space=space,
    )
    models = {"popular": popular, "vectors": factors}
    return load_bundle(assemble(root, data, models, default_model="vectors", index=index).path)


def recall(live: LiveBundle, truth: npt.NDArray[np.float64], k: int) -> float:
    """Share of the k nearest by definition that the service's retriever returns, over all users."""
    model, found = live.resolve("default"), 0
    for user, row in enumerate(truth):
        answer = model.retriever.retrieve(
            UserState(user, live.bundle.history_of(user), live=False), k, EVERYTHING
        )
        assert answer is not None
        assert len(set(answer.item_rows.tolist())) == k
        found += len(set(answer.item_rows.tolist()) & set(np.argsort(-row)[:k].tolist()))
    return found / (k * len(truth))


CASES = [("ip", als_like), ("cosine", two_towers), ("l2", two_towers)]


@pytest.mark.parametrize(("space", "draw"), CASES)
@pytest.mark.parametrize("index", ["hnsw", "ivf"])
def test_an_index_finds_nearly_all_that_brute_force_does(
    index: Literal["hnsw", "ivf"], space: Space, draw: Any, tmp_path: Path
) -> None:
    items, users = draw(3)
    bundle = bundle_of(tmp_path, items, users, space, index)
    live = go_live(bundle)
    retriever = live.resolve("default").retriever
    assert isinstance(retriever, FactorsRetriever)
    assert retriever.name == index
    truth = nearness(space, items, users)
    assert recall(live, truth, K) >= 0.95
    retrieval = bundle.models["vectors"].entry.retrieval
    assert retrieval is not None
    assert retrieval.index == index
    assert retrieval.recall == retrieval.recall_of(index)
    # All users were asked when it was measured, so the manifest says what is found here.
    assert retrieval.recall.at_10 == pytest.approx(recall(live, truth, K), abs=0.005)
    assert retrieval.recall.at_100 == pytest.approx(recall(live, truth, 100), abs=0.02)


@pytest.mark.parametrize(("space", "draw"), CASES)
def test_exact_search_finds_all_that_brute_force_does(space: Space, draw: Any, tmp_path: Path) -> None:
    items, users = draw(4)
    live = go_live(bundle_of(tmp_path, items, users, space, "none"))
    # float32 may order two items otherwise that float64 tells apart only behind the 7th digit.
    assert recall(live, nearness(space, items, users), K) >= 0.9995
    retrieval = live.resolve("default").data.entry.retrieval
    assert retrieval is not None
    assert (retrieval.retriever, retrieval.recall.at_10) == ("exact", 1.0)


@pytest.mark.parametrize("space", ["ip", "cosine", "l2"])
def test_scores_are_those_of_the_space(space: Space, tmp_path: Path) -> None:
    items, users = two_towers(5)
    truth = nearness(space, items, users[:20])
    if space == "l2":
        truth = -(truth**2)  # the service's score is minus the squared distance
    for choice in ("exact", "hnsw", "ivf"):
        live = go_live(bundle_of(tmp_path / choice, items, users, space, choice))
        for user in range(20):
            answer = live.resolve("default").retriever.retrieve(
                UserState(user, live.bundle.history_of(user), live=False), K, EVERYTHING
            )
            assert answer is not None
            np.testing.assert_allclose(answer.scores, truth[user, answer.item_rows], rtol=2e-3, atol=2e-3)
            assert (np.diff(answer.scores) <= 0).all()


def test_the_graph_of_a_catalogue_smaller_than_the_request_still_answers(tmp_path: Path) -> None:
    data = tiny_dataset()
    path = assemble(tmp_path, data, trained_models(data), default_model="als", index="hnsw").path
    live = go_live(load_bundle(path), retriever="hnsw")
    answer = live.resolve("als").retriever.retrieve(
        UserState(0, live.bundle.history_of(0), live=False), 100, EVERYTHING
    )
    assert answer is not None
    assert sorted(answer.item_rows.tolist()) == list(range(data.n_items))


def test_of_trained_als_the_recall_that_is_stored_is_the_recall_that_is_found(
    real_data: Path, tmp_path: Path
) -> None:
    data = read_dataset(real_data / "movielens-100k")
    trained = als.train(data, als.Config(), seed=1)
    models = {"popular": popularity.train(data, popularity.Config()), "als": trained}
    bundle = load_bundle(assemble(tmp_path, data, models, default_model="als", index="hnsw").path)
    retrieval = bundle.models["als"].entry.retrieval
    assert retrieval is not None
    assert retrieval.hnsw is not None
    live = go_live(bundle, retriever="hnsw")
    truth = np.full((data.n_users, data.n_items), -np.inf)
    vectors = trained.arrays
    truth[np.ix_(vectors["user_rows"], vectors["item_rows"])] = nearness(
        "ip", vectors["item_vectors"], vectors["user_vectors"]
    )
    assert recall(live, truth, K) == pytest.approx(retrieval.hnsw.recall.at_10, abs=0.01)
    assert recall(go_live(bundle, retriever="exact"), truth, K) >= 0.9995
