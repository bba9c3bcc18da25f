"""What features are credited with, and the base, are the score that the trees give and the line serves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import tiny_dataset, trained_models, two_stage_model, write_tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from running import BEARER, running, settings_for

from service.bundle.reader import load_bundle
from service.bundle.two_stage import TREE_DTYPES, TreeArrays
from service.domain import Deadline, Plan, Query
from service.recommender.explanation import explain
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend
from service.recommender.ranking.attribution import attributed
from service.recommender.ranking.trees import Forest

N_FEATURES = 4
VALUES = (-1.5, 0.0, 0.5, 2.25)
ITEMS = [10 + 2 * row for row in range(40)]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tiny_dataset()
    root = tmp_path_factory.mktemp("attribution")
    models = {**trained_models(data), "ranked": two_stage_model(data)}
    write_tiny_bundle(root, dataset=data, models=models, default_model="ranked")
    return root


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    data = tiny_dataset()
    models = {**trained_models(data), "ranked": two_stage_model(data)}
    return go_live(
        load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("live"), dataset=data, models=models))
    )


def forest(draw: np.random.Generator, sizes: list[int]) -> TreeArrays:
    """Trees of any shape: a random leaf is split until there are so many."""
    columns: list[list[float]] = []
    indptr = [0]
    for leaves in sizes:
        nodes: list[list[float]] = [[-1, 0, 0, -1, -1, draw.normal()]]
        for _ in range(leaves - 1):
            at = draw.choice([place for place, node in enumerate(nodes) if node[0] < 0])
            asked = [int(draw.integers(N_FEATURES)), draw.choice(VALUES), int(draw.integers(2))]
            nodes[at] = [*asked, len(nodes), len(nodes) + 1, 0]
            nodes += [[-1, 0, 0, -1, -1, draw.normal()] for _ in range(2)]
        columns += nodes
        indptr.append(len(columns))
    kinds = (np.int32, np.float32, np.uint8, np.int32, np.int32, np.float32)
    arrays = [np.array(column, kind) for column, kind in zip(zip(*columns, strict=True), kinds, strict=True)]
    return TreeArrays.of(dict(zip(TREE_DTYPES, (np.array(indptr, np.int64), *arrays), strict=True)), 0.25)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    row=st.lists(st.sampled_from((*VALUES, -9.0, 9.0, float("nan"))), min_size=4, max_size=4),
)
def test_base_and_credits_are_the_forests_score(seed: int, sizes: list[int], row: list[float]) -> None:
    trees = forest(np.random.default_rng(seed), sizes)
    assert trees.fault(N_FEATURES) is None
    values = np.array(row, np.float32)
    parts, base = attributed(trees, values)
    assert base + parts.sum() == pytest.approx(float(Forest(trees).scores(values[None])[0]), abs=1e-9)
    assert not parts[np.setdiff1d(np.arange(N_FEATURES), trees.feature)].any()


def test_a_split_is_credited_with_its_change_of_the_childrens_mean() -> None:
    columns = ([0, -1, 1, -1, -1], [0.5, 0, 2, 0, 0], [0] * 5, [1, -1, 3, -1, -1], [2, -1, 4, -1, -1])
    kinds = (np.int32, np.float32, np.uint8, np.int32, np.int32)
    arrays = [np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    value = np.array([0, -1, 0, 2, 4], np.float32)
    trees = TreeArrays.of(dict(zip(TREE_DTYPES, (np.array([0, 5]), *arrays, value), strict=True)), 0.5)
    parts, base = attributed(trees, np.array([1, np.nan], np.float32))
    assert base == 1.5  # the bias and the mean of -1 and (2 + 4) / 2
    assert parts.tolist() == [2.0, -1.0]


@settings(max_examples=60, deadline=None)
@given(
    query=st.one_of(
        st.sampled_from(range(100, 280, 3)).map(lambda user: Query(user, 5)),
        st.lists(st.sampled_from(ITEMS), min_size=1, max_size=8, unique=True).map(
            lambda history: Query(None, 5, history=tuple(history))
        ),
    )
)
def test_base_and_contributions_are_the_served_score(live: LiveBundle, query: Query) -> None:
    slate = recommend(query, Plan("ranked"), live, Deadline.none())
    for item, score in list(zip(slate.item_ids, slate.scores, strict=True))[: slate.n_personal]:
        told = explain(query, item, "ranked", live).ranker
        if slate.source not in {"personal", "fold_in"}:  # nothing was ranked
            assert told is None
            continue
        assert told is not None
        sizes = [abs(one.contribution) for one in told.contributions]
        assert told.base + sum(one.contribution for one in told.contributions) == pytest.approx(score)
        assert told.model == "ranked"
        assert told.score == pytest.approx(score)
        assert sizes == sorted(sizes, reverse=True)


def test_what_the_ranker_did_not_score_has_no_attribution(live: LiveBundle) -> None:
    assert explain(Query(None, 1, history=(10, 14)), 14, "ranked", live).ranker is None
    assert explain(Query(None, 1, history=(10, 14)), 18, "ease", live).ranker is None


async def test_the_answer_tells_the_largest_and_the_sum_of_the_others(artifacts: Path) -> None:
    async with running(settings_for(artifacts)) as (_, client):
        asked = {"user_id": 112, "k": 1, "model": "ranked"}
        slate = (await client.post("/v1/recommend", json=asked, headers=BEARER)).json()
        (item,) = slate["items"]
        body = {"user_id": 112, "item_id": item["item_id"], "model": "ranked", "most": 2}
        told = (await client.post("/v1/explain", json=body, headers=BEARER)).json()
    ranker = told["ranker"]
    assert (ranker["model"], ranker["attribution"], told["model"]) == ("ranked", "path_unweighted", "ease")
    assert [set(one) for one in ranker["contributions"]] == [{"feature", "contribution", "value"}] * 2
    total = ranker["base"] + sum(one["contribution"] for one in ranker["contributions"]) + ranker["others"]
    assert total == pytest.approx(ranker["score"]) == pytest.approx(item["score"])
