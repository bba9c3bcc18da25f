"""A bundle measured through the serving line: judged again in plain Python, by cohort, by source, at a cost."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle
from reference_judge import judge

from models.evaluation.beyond_accuracy import Training
from models.evaluation.costs import measure_costs, overlap
from models.evaluation.held_out import HeldOut, ItemCodes, training_of_bundle, training_of_rows
from models.evaluation.replay import cohorts_of, replay
from models.evaluation.run import Examiner, evaluate_model, genre_one_hots
from service.bundle.ids import IntIds
from service.bundle.reader import load_bundle
from service.errors import InputError, ModelNotFound
from service.recommender.live import LiveBundle, go_live
from service.recommender.plan import plan_for

UNKNOWN_USER, UNKNOWN_ITEM = 5, 7
KINDS = ("popular", "als", "knn", "ease", "lists")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    return go_live(load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("tiny"), index="hnsw")))


@pytest.fixture(scope="module")
def test_rows(live: LiveBundle) -> tuple[list[int], list[int]]:
    """Three unseen items for most users, two cold ones among them, an unknown user, and an unknown item."""
    draw = np.random.default_rng(3)
    users, items = [], []
    for row in range(0, len(live.bundle.user_ids), 2):
        unseen = np.setdiff1d(np.arange(len(live.bundle.item_ids)), live.bundle.history_of(row))
        users += [live.bundle.user_ids.take(np.array([row]))[0]] * 3
        items += live.bundle.item_ids.take(draw.choice(unseen, 3, replace=False))
    return [*users, UNKNOWN_USER, users[0], users[0]], [*items, items[0], UNKNOWN_ITEM, items[0]]


def train_pairs(live: LiveBundle) -> list[tuple[int, int]]:
    bundle = live.bundle
    return [
        (user, item)
        for row, user in enumerate(bundle.user_ids.take(np.arange(len(bundle.user_ids))))
        for item in bundle.item_ids.take(bundle.history_of(row))
    ]


@pytest.mark.parametrize("model", KINDS)
def test_agrees_with_the_plain_reference(
    live: LiveBundle, test_rows: tuple[list[int], list[int]], model: str
) -> None:
    evaluation = evaluate_model(live, model, *test_rows, k=(3, 10))
    recs = dict(zip(evaluation.replay.user_ids, evaluation.replay.item_ids, strict=True))
    for k in (3, 10):
        slow = judge(recs, zip(*test_rows, strict=True), train_pairs(live), k)  # type: ignore[arg-type]
        assert {name: pytest.approx(evaluation.metrics[name], abs=1e-12) for name in slow} == slow


def test_every_test_user_counts_also_an_unknown_one(
    live: LiveBundle, test_rows: tuple[list[int], list[int]]
) -> None:
    evaluation = evaluate_model(live, "als", *test_rows)
    assert evaluation.users == len(set(test_rows[0])) == evaluation.users_with_recs
    assert evaluation.test_rows == len(set(zip(*test_rows, strict=True)))
    assert UNKNOWN_USER in evaluation.replay.user_ids


def test_unknown_item_is_relevant_and_never_found(live: LiveBundle) -> None:
    user = live.bundle.user_ids.take(np.array([0]))[0]
    item = replay(live, plan_for("als", live), [user], k=1).item_ids[0][0]
    assert evaluate_model(live, "als", [user], [item], k=1).metrics["Recall@1"] == 1
    assert evaluate_model(live, "als", [user, user], [item, UNKNOWN_ITEM], k=1).metrics["Recall@1"] == 0.5


def test_intervals_hold_their_metrics_and_population_metrics_have_none(
    live: LiveBundle, test_rows: tuple[list[int], list[int]]
) -> None:
    evaluation = evaluate_model(live, "als", *test_rows)
    for name, (low, high) in evaluation.ci.items():
        assert low <= evaluation.metrics[name] <= high
    assert set(evaluation.metrics) - set(evaluation.ci) == {"coverage@10", "Gini@10"}
    assert evaluation.ci == evaluate_model(live, "als", *test_rows).ci


@pytest.mark.parametrize("model", KINDS)
@pytest.mark.parametrize("split", ["by_cohort", "by_source"])
def test_groups_are_a_partition_of_the_users(
    live: LiveBundle, test_rows: tuple[list[int], list[int]], model: str, split: str
) -> None:
    evaluation = evaluate_model(live, model, *test_rows)
    groups = getattr(evaluation, split).values()
    assert sum(group.users for group in groups) == evaluation.users
    for name in ("NDCG@10", "Recall@10", "Serendipity@10"):
        mean = sum(group.metrics[name] * group.users for group in groups) / evaluation.users
        assert mean == pytest.approx(evaluation.metrics[name])


def test_cohorts_say_what_the_model_has_of_a_user(tmp_path: Path) -> None:
    dataset = tiny_dataset()
    models = trained_models(dataset)
    als = models["als"]
    kept = als.arrays["user_rows"] >= 10  # the first ten users keep their history and lose their vector
    arrays = {
        **als.arrays,
        "user_rows": als.arrays["user_rows"][kept],
        "user_vectors": als.arrays["user_vectors"][kept],
    }
    models["als"] = type(als)("factors", arrays, space="ip", parameters=als.parameters)
    live = go_live(load_bundle(write_tiny_bundle(tmp_path, dataset=dataset, models=models)))
    users = live.bundle.user_ids.take(np.array([3, 20, 59]))
    assert cohorts_of(live, "als", [*users, UNKNOWN_USER]) == ["fold_in", "warm", "cold", "cold"]
    assert cohorts_of(live, "knn", [*users, UNKNOWN_USER]) == ["warm", "warm", "cold", "cold"]
    assert cohorts_of(live, "lists", [*users, UNKNOWN_USER]) == ["warm", "warm", "cold", "cold"]
    answers = replay(live, plan_for("als", live), [*users, UNKNOWN_USER], k=5)
    assert answers.sources == ["fold_in", "personal", "segment_popular", "popular"]


def test_replay_keeps_the_users_order_and_shares_add_up(live: LiveBundle) -> None:
    users = live.bundle.user_ids.take(np.array([30, 4, 57]))
    answers = replay(live, plan_for("lists", live), users, k=10)
    assert answers.user_ids == users
    assert [len(items) for items in answers.item_ids] == [10, 10, 10]
    assert sum(answers.place_shares().values()) == pytest.approx(1)
    # Lists hold seven items, the cold user none: three and ten of thirty places are filled up.
    assert answers.place_shares()["personal"] == pytest.approx(14 / 30)
    assert answers.n_personal[:2].tolist() == [7, 7]


def test_unknown_model_is_refused(live: LiveBundle) -> None:
    with pytest.raises(ModelNotFound):
        evaluate_model(live, "nope", [100], [10])


def test_nothing_held_out_is_refused(live: LiveBundle) -> None:
    with pytest.raises(InputError, match="no held-out rows"):
        evaluate_model(live, "als", [], [])


def test_mixed_ids_are_refused() -> None:
    with pytest.raises(InputError, match="all integers or all text"):
        HeldOut.of([1, "1"], [1, 2], ItemCodes(IntIds(np.array([1, 2]))))


def test_codes_name_unknown_items_the_same_way_every_time() -> None:
    codes = ItemCodes(IntIds(np.array([10, 20])))
    assert codes.encode([20, 99, 10, 55, 99]).tolist() == [1, 3, 0, 2, 3]
    assert codes.encode([55, 77]).tolist() == [2, 4]
    assert codes.decode(np.array([4, 0, 3])) == [77, 10, 99]
    assert codes.table([[10, 99, 20], []], 2).tolist() == [[0, 3], [-1, -1]]


def test_popularity_by_rows_counts_repeats_and_the_bundle_s_history_pairs(live: LiveBundle) -> None:
    codes = ItemCodes(IntIds(np.array([10, 20])))
    by_rows = training_of_rows([1, 1, 2, 2], [10, 10, 10, 30], codes)
    assert (by_rows.interactions.tolist(), by_rows.users.tolist(), by_rows.n_users) == (
        [3, 0, 1],
        [2, 0, 1],
        2,
    )
    assert by_rows.catalogue == 2
    history = training_of_bundle(live.bundle)
    pairs = train_pairs(live)
    assert (int(history.interactions.sum()), history.n_users) == (
        len(pairs),
        len({user for user, _ in pairs}),
    )


def test_training_rows_replace_the_bundle_s_popularity(
    live: LiveBundle, test_rows: tuple[list[int], list[int]]
) -> None:
    pairs = train_pairs(live)
    twice = [*pairs, *pairs]
    codes = ItemCodes(live.bundle.item_ids)
    training = training_of_rows([user for user, _ in twice], [item for _, item in twice], codes)
    examiner = Examiner.of(live.bundle, *test_rows, codes=codes, training=training)
    doubled = examiner.examine(live, "als", [10]).metrics
    single = evaluate_model(live, "als", *test_rows).metrics
    assert doubled["avgpop@10"] == pytest.approx(2 * single["avgpop@10"])
    assert doubled["ARP@10"] == pytest.approx(single["ARP@10"])
    assert doubled["coverage@10"] == single["coverage@10"]


def test_diversity_rests_on_the_catalogue_s_genres(live: LiveBundle) -> None:
    one_hots = genre_one_hots(live.bundle)
    assert one_hots is not None
    assert one_hots.toarray()[:5].tolist() == [[1, 1], [0, 1], [0, 1], [0, 1], [1, 1]]


def test_text_ids_are_evaluated_alike(tmp_path: Path) -> None:
    dataset = tiny_dataset(ids="str")
    live = go_live(load_bundle(write_tiny_bundle(tmp_path, dataset=dataset)))
    users = live.bundle.user_ids.take(np.arange(6))
    top = replay(live, plan_for("als", live), users, k=2).item_ids
    evaluation = evaluate_model(live, "als", users, [items[1] for items in top], k=2)
    assert (evaluation.metrics["HR@2"], evaluation.metrics["MRR@2"]) == (1, 0.5)


# -- costs --------------------------------------------------------------------------------------------------


def test_overlap_is_the_share_of_the_exact_answers_found() -> None:
    exact = np.array([[1, 2, 3], [4, 5, -1]])
    assert overlap(exact[:, ::-1], exact) == 1
    assert overlap(np.array([[3, 9, 1], [-1, -1, 4]]), exact) == pytest.approx(3 / 5)
    assert overlap(np.empty((0, 3), np.int64), np.empty((0, 3), np.int64)) == 1


@pytest.mark.parametrize("index", ["hnsw", "ivf"])
@pytest.mark.parametrize("by_index", [True, False])
def test_search_cost_compares_index_and_exact_whichever_serves(
    test_rows: tuple[list[int], list[int]], by_index: bool, index: Literal["hnsw", "ivf"], tmp_path: Path
) -> None:
    bundle = load_bundle(write_tiny_bundle(tmp_path, index=index))
    served = index if by_index else "exact"
    asked = go_live(bundle, retriever=served)
    examiner = Examiner.of(bundle, *test_rows)
    evaluation = examiner.examine(asked, "als", [10])
    costs = measure_costs(examiner, asked, evaluation, k=10)
    assert costs.search is not None
    assert (costs.search.served, costs.search.index) == (served, index)
    side = costs.search.indexed if by_index else costs.search.exact
    assert side["NDCG@10"] == pytest.approx(evaluation.metrics["NDCG@10"])
    assert costs.as_json()["search"]["delta"] == pytest.approx(
        costs.search.indexed["NDCG@10"] - costs.search.exact["NDCG@10"], abs=1e-5
    )
    assert 0.9 <= costs.search.overlap <= 1


def test_fallback_cost_is_what_its_places_bring(
    live: LiveBundle, test_rows: tuple[list[int], list[int]]
) -> None:
    examiner = Examiner.of(live.bundle, *test_rows)
    evaluation = examiner.examine(live, "lists", [10])
    costs = measure_costs(examiner, live, evaluation, k=10)
    assert costs.fallback is not None
    answers = evaluation.replay
    own = [
        items[:n] if source == "personal" else []
        for items, n, source in zip(answers.item_ids, answers.n_personal, answers.sources, strict=True)
    ]
    slow = judge(dict(zip(answers.user_ids, own, strict=True)), zip(*test_rows, strict=True), None, 10)  # type: ignore[arg-type]
    assert costs.fallback.without["NDCG@10"] == pytest.approx(slow["NDCG@10"])
    assert costs.fallback.users == pytest.approx(
        np.mean([source != "personal" for source in answers.sources])
    )
    filled = 10 * len(own) - sum(map(len, own))
    assert costs.fallback.places == pytest.approx(filled / (10 * len(own)))
    assert costs.fallback.topped_up_places == pytest.approx(
        sum(3 for source in answers.sources if source == "personal") / (10 * len(own))
    )


def test_popularity_is_not_its_own_fallback(live: LiveBundle, test_rows: tuple[list[int], list[int]]) -> None:
    examiner = Examiner.of(live.bundle, *test_rows)
    costs = measure_costs(examiner, live, examiner.examine(live, "popular", [10]), k=10)
    assert costs.fallback is None
    assert costs.search is None
    assert costs.as_json()["fallback"] is None


def test_seen_items_let_through_cost_accuracy_on_unseen_truth(
    live: LiveBundle, test_rows: tuple[list[int], list[int]]
) -> None:
    examiner = Examiner.of(live.bundle, *test_rows)
    evaluation = examiner.examine(live, "ease", [10])
    costs = measure_costs(examiner, live, evaluation, k=10)
    assert costs.served["Recall@10"] == pytest.approx(evaluation.metrics["Recall@10"])
    assert costs.with_seen["Recall@10"] < costs.served["Recall@10"]


def test_exposure_counts_every_recommended_place(
    live: LiveBundle, test_rows: tuple[list[int], list[int]]
) -> None:
    evaluation = evaluate_model(live, "als", *test_rows)
    shown = list(itertools.chain.from_iterable(evaluation.replay.item_ids))
    assert int(evaluation.exposure.sum()) == len(shown)
    rows = live.bundle.item_ids.rows_of(shown)
    assert np.bincount(rows, minlength=len(evaluation.exposure)).tolist() == evaluation.exposure.tolist()


def test_training_lookup_is_zero_outside_the_catalogue() -> None:
    training = Training(np.array([4, 2]), np.array([3, 2]), 5)
    assert training.at(training.users, np.array([1, 9, -1])).tolist() == [2, 0, 0]
    nothing = np.empty(0, np.int64)
    assert Training(nothing, nothing, 0).at(nothing, np.array([3])).tolist() == [0]
