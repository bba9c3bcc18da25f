"""Rules move candidates and lose none; pins stand first; calibration brings a slate nearer to its user's history."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import tiny_dataset, write_tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from service.bundle.reader import load_bundle
from service.domain import Candidates, Deadline, Plan, Query, Reranking, Rule
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend
from service.recommender.reranking import calibrated
from service.recommender.rules import matches, pinned, weighed

N = 40
COMEDY = Rule("c", "boost", "genres", ("comedy",), strength=3.0)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    return go_live(load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("live"))))


candidates = st.lists(st.integers(0, N - 1), min_size=1, max_size=30, unique=True).flatmap(
    lambda rows: st.lists(st.floats(-50, 50, width=32), min_size=len(rows), max_size=len(rows)).map(
        lambda scores: Candidates(
            np.array(rows, np.int32), -np.sort(-np.array(scores, np.float32)), "personal", filtered=True
        )
    )
)
rules = st.lists(
    st.builds(
        Rule,
        name=st.just("r"),
        action=st.sampled_from(("pin", "boost", "bury")),
        attribute=st.sampled_from(("genres", "kind", "colour")),
        values=st.just(("comedy", "series")),
        items=st.one_of(st.just(()), st.lists(st.sampled_from([10, 12, 50, 999]), min_size=1).map(tuple)),
        strength=st.floats(0.1, 10),
        most=st.integers(1, 5),
    ),
    max_size=4,
).map(tuple)


@settings(deadline=None)
@given(found=candidates, of=rules)
def test_no_candidate_is_added_or_lost_and_scores_still_fall(
    live: LiveBundle, found: Candidates, of: tuple[Rule, ...]
) -> None:
    moved = weighed(found, of, live.bundle)
    assert sorted(moved.item_rows) == sorted(found.item_rows)
    assert (np.diff(moved.scores) <= 1e-4 * np.abs(moved.scores).max()).all()
    first = pinned(moved, of, live.bundle)
    assert first is not None
    assert sorted(first.item_rows) == sorted(found.item_rows)
    pairs = dict(zip(moved.item_rows.tolist(), moved.scores.tolist(), strict=True))
    assert [pairs[row] for row in first.item_rows.tolist()] == first.scores.tolist()


@settings(deadline=None)
@given(found=candidates, of=rules)
def test_pins_stand_first_and_are_as_many_as_they_may_be(
    live: LiveBundle, found: Candidates, of: tuple[Rule, ...]
) -> None:
    first = pinned(found, of, live.bundle)
    assert first is not None
    rows = first.item_rows.tolist()
    at, taken = 0, set[int]()
    for rule in of:
        if rule.action != "pin":
            continue
        fit = [
            row
            for row, fits in zip(
                found.item_rows.tolist(), matches(found, rule, live.bundle).tolist(), strict=True
            )
            if fits and row not in taken
        ][: rule.most]
        assert rows[at : at + len(fit)] == fit
        at, taken = at + len(fit), taken | set(fit)
    rest = [row for row in found.item_rows.tolist() if row not in taken]
    assert rows[at:] == rest


@settings(deadline=None)
@given(found=candidates)
def test_a_boost_never_lets_its_item_fall_and_a_burial_never_rise(
    live: LiveBundle, found: Candidates
) -> None:
    mask = matches(found, COMEDY, live.bundle)
    before = {row: place for place, row in enumerate(found.item_rows.tolist())}
    for action, sign in (("boost", 1), ("bury", -1)):
        rule = Rule("c", action, "genres", ("comedy",), strength=2.0)  # type: ignore[arg-type]  # one of the two
        after = weighed(found, (rule,), live.bundle).item_rows.tolist()
        for row, fits in zip(found.item_rows.tolist(), mask.tolist(), strict=True):
            if fits:
                assert sign * (before[row] - after.index(row)) >= 0


def test_a_boost_is_so_many_standard_deviations(live: LiveBundle) -> None:
    found = Candidates(np.array([1, 2, 3, 4], np.int32), np.array([4, 3, 2, 1], np.float32), "personal")
    moved = weighed(found, (Rule("r", "boost", items=(18,), strength=2.0),), live.bundle)  # item 18 is row 4
    assert moved.item_rows.tolist() == [1, 4, 2, 3]
    assert moved.scores[moved.item_rows.tolist().index(4)] == pytest.approx(1 + 2 * np.std([4, 3, 2, 1]))


def test_rules_hold_in_the_line_for_known_users_and_newcomers(live: LiveBundle) -> None:
    pin = Rule("p", "pin", items=(10, 12, 88), most=2)
    for user in (100, 5):
        plain = recommend(Query(user, 5, exclude_seen=False), Plan("als", 40), live, Deadline.none())
        ruled = recommend(
            Query(user, 5, exclude_seen=False), Plan("als", 40, rules=(pin,)), live, Deadline.none()
        )
        assert set(ruled.item_ids[:2]) <= {10, 12, 88}
        assert ruled.source == plain.source
        assert len(set(ruled.item_ids)) == 5


def test_what_was_seen_or_filtered_is_not_pinned(live: LiveBundle) -> None:
    seen = live.bundle.item_ids.take(live.bundle.history_of(0)[:1])[0]
    pin = Rule("p", "pin", items=(seen,))
    slate = recommend(Query(100, 10), Plan("als", 40, rules=(pin,)), live, Deadline.none())
    assert seen not in slate.item_ids


@settings(deadline=None, max_examples=60)
@given(data=st.data(), n=st.integers(2, 20), values=st.integers(1, 5))
def test_calibration_takes_each_item_once_and_weight_one_keeps_the_order(
    data: st.DataObject, n: int, values: int
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    relevance = -np.sort(-rng.random(n))
    shares = np.eye(values)[rng.integers(0, values, n)]
    wanted = rng.random(values) + 0.01
    wanted /= wanted.sum()
    k = data.draw(st.integers(1, n))
    chosen = calibrated(relevance, shares, wanted, k, 0.5)
    assert len(set(chosen)) == len(chosen) == k
    assert calibrated(relevance, shares, wanted, k, 1.0) == list(range(k))


def test_calibration_follows_the_papers_criterion_by_brute_force() -> None:
    rng = np.random.default_rng(3)
    relevance, shares = -np.sort(-rng.random(8)), np.eye(3)[rng.integers(0, 3, 8)]
    wanted, weight = np.array([0.7, 0.2, 0.1]), 0.4

    def worth(places: list[int]) -> float:
        slate = 0.99 * shares[places].mean(axis=0) + 0.01 * wanted
        divergence = float((wanted * np.log(wanted / slate)).sum())
        return weight * float(relevance[places].sum()) - (1 - weight) * divergence

    chosen: list[int] = []
    for _ in range(5):
        left = [place for place in range(8) if place not in chosen]
        chosen.append(max(left, key=lambda place: worth([*chosen, place])))
    assert calibrated(relevance, shares, wanted, 5, weight) == chosen


def test_a_calibrated_slate_is_nearer_to_the_history(tmp_path: Path) -> None:
    live = go_live(load_bundle(write_tiny_bundle(tmp_path, dataset=tiny_dataset(n_users=60, n_items=40))))
    kinds = live.bundle.attributes["genres"]
    comedies = [row for row in range(40) if row % 4 == 0]
    history = tuple(live.bundle.item_ids.take(np.array(comedies[:3], np.int32)))

    def comedy_share(plan: Plan) -> float:
        slate = recommend(Query(None, 4, history=history), plan, live, Deadline.none())
        rows = live.bundle.item_ids.rows_of(slate.item_ids)
        return float(np.mean([row % 4 == 0 for row in rows]))

    assert set(kinds.values) == {"comedy", "drama"}
    plain = Plan("als", 30)
    fair = Plan("als", 30, reranking=Reranking("calibrated", 0.2, attribute="genres"))
    # The history is half comedy, half drama: every fourth row is both.
    assert comedy_share(plain) < comedy_share(fair)
    same = Plan("als", 30, reranking=Reranking("calibrated", 1.0, attribute="genres"))
    assert comedy_share(same) == comedy_share(plain)
