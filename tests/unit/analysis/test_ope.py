from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pytest
from factories import write_tiny_bundle
from made_logs import START_MS, feedback, slate, written

from models.analysis.explored import RewardModel, explored_slots
from models.analysis.log import opened
from models.analysis.ope import Evaluation, Interaction, degrees_of, evaluate
from models.analysis.target import of_file, of_plan
from models.commands.experiment_ope import parsed_plan
from models.evaluation.opening import open_published
from models.events_table import SCHEMA, row_of
from service.bundle.store import ArtifactStore
from service.cli import main
from service.domain import AttributeCap, Candidates, Deadline, Exploration, Plan, Query, Reranking
from service.errors import DataError, InputError
from service.recommender.exploration import explore
from service.recommender.pipeline import recommend

RUNS = 50
ESTIMATES = ("IPS", "SNIPS", "DR")


def table(records: list[Mapping[str, Any]]) -> pl.LazyFrame:
    return pl.DataFrame([row_of(record) for record in records], schema=SCHEMA).lazy()


def evaluated(
    events: pl.LazyFrame, rows: list[tuple[str, int, int, float]], folder: Path, **more: Any
) -> Evaluation:
    explored = explored_slots(events, "click")
    path = folder / "target.parquet"
    frame = pl.DataFrame(rows, orient="row", schema=["request_id", "position", "item_id", "probability"])
    frame.with_columns(pl.col("item_id").cast(pl.String)).write_parquet(path)
    return evaluate(explored, of_file(path, explored, RewardModel(explored.slots)), **more)


def covered(found: list[Evaluation], truth: float) -> dict[str, int]:
    return {
        name: sum(
            one.lower <= truth <= one.upper for run in found for one in run.estimates if one.name == name
        )
        for name in ESTIMATES
    }


def test_by_hand(tmp_path: Path) -> None:
    # Two users, a slate each, two places. Weights .5/.5, 0/.25, .5/.25, 1/.5; rewards 1, 1, 0, 1.
    events = table([
        slate("a", 1, START_MS, [1, 2], propensities=[0.5, 0.25]),
        slate("b", 2, START_MS, [3, 4], propensities=[0.25, 0.5]),
        feedback("c1", "click", 1, START_MS, item_id=1, request_id="a"),
        feedback("c2", "click", 1, START_MS, item_id=2, request_id="a"),
        feedback("c3", "click", 2, START_MS, item_id=4, request_id="b"),
        feedback("c4", "click", 2, START_MS, item_id=4, request_id="b"),  # a second click earns no more
        feedback("c5", "click", 1, START_MS, item_id=4, request_id="b"),  # of somebody else
        feedback("c6", "click", 2, START_MS, item_id=3, request_id="a"),  # of another request
    ])  # fmt: skip
    rows = [("a", 0, 1, 0.5), ("b", 0, 3, 0.5), ("b", 1, 4, 1.0)]
    found = evaluated(events, rows, tmp_path, clip=1.5)
    values = {one.name: one.value for one in found.estimates}
    assert (found.slates, found.users, found.logged.value) == (2, 2, 1.5)
    assert values["IPS"] == pytest.approx((1 * 1 + 0 + 2 * 0 + 2 * 1) / 2)
    # Place 0: (1 * 1 + 2 * 0) / 3. Place 1: (0 * 1 + 2 * 1) / 2.
    assert values["SNIPS"] == pytest.approx(1 / 3 + 1)
    assert values["clipped IPS"] == pytest.approx((1 + 1.5) / 2)
    assert "DR" not in values  # the target is not told whole
    assert found.weights.effective == pytest.approx(25 / 9)
    assert (found.weights.none, found.weights.clipped, found.weights.largest) == (0.25, 0.5, 2.0)
    # Products up to a place: 1, 0 and 2, 4.
    cascade = evaluated(events, rows, tmp_path, interaction="cascade")
    assert cascade.estimates[0].value == pytest.approx((1 + 0 + 0 + 4) / 2)


def test_intervals_cover_the_truth_where_places_are_drawn_apart(tmp_path: Path) -> None:
    pools = [np.arange(0, 5), np.arange(5, 10), np.arange(10, 15)]
    rng = np.random.default_rng(0)
    logged = rng.dirichlet(np.full(5, 3.0), 3)
    earns = rng.uniform(0.05, 0.6, (3, 5))
    target = np.exp(5 * earns)
    target /= target.sum(axis=1, keepdims=True)
    truth = float((target * earns).sum())
    found = []
    for seed in range(RUNS):
        rng = np.random.default_rng(1000 + seed)
        records: list[Mapping[str, Any]] = []
        rows = []
        for request in range(400):
            user, name = request % 150, f"r{request}"
            chosen = [int(rng.choice(5, p=logged[place])) for place in range(3)]
            items = [int(pools[place][at]) for place, at in enumerate(chosen)]
            chances = [float(logged[place, at]) for place, at in enumerate(chosen)]
            records.append(slate(name, user, START_MS, items, propensities=chances))
            for place, at in enumerate(chosen):
                if rng.random() < earns[place, at]:
                    records.append(
                        feedback(
                            f"{name}{place}", "click", user, START_MS, item_id=items[place], request_id=name
                        )
                    )
                rows += [(name, place, int(pools[place][a]), float(target[place, a])) for a in range(5)]
        found.append(evaluated(table(records), rows, tmp_path))
    assert min(covered(found, truth).values()) >= 0.9 * RUNS, covered(found, truth)
    of_log = float((logged * earns).sum())
    assert sum(run.logged.lower <= of_log <= run.logged.upper for run in found) >= 0.9 * RUNS
    assert max(covered(found, of_log).values()) < 0.5 * RUNS  # so the weights are what brings it there
    errors = {
        name: np.mean([next(e for e in run.estimates if e.name == name).standard_error for run in found])
        for name in ESTIMATES
    }
    assert errors["DR"] < errors["IPS"]  # what the model explains need not be weighed
    assert not any(run.weights.warnings for run in found[:1])


def test_intervals_cover_the_truth_where_a_place_depends_on_those_above(tmp_path: Path) -> None:
    """The service's own exploration, and people who like an item less below a better one."""
    logged, target = np.array([2.0, 1.5, 1.0, 0.5, 0.0], np.float32), np.array([0.0, 0.3, 0.9, 1.1, 0.6])
    earns = np.array([0.2, 0.3, 0.4, 0.5, 0.6])

    def chance_of(slate_: tuple[int, ...]) -> float:
        left, chance = list(range(5)), 1.0
        for item in slate_:
            weights = np.exp(target[left])
            chance *= float(weights[left.index(item)] / weights.sum())
            left.remove(item)
        return chance

    def reward(items: tuple[int, ...] | list[int]) -> list[float]:
        return [earns[items[0]], earns[items[1]] * (0.3 if items[0] > items[1] else 1.0)]

    truth = sum(chance_of(pair) * sum(reward(pair)) for pair in permutations(range(5), 2))
    candidates = Candidates(np.arange(5, dtype=np.int32), logged, "personal", filtered=True)
    found = []
    for seed in range(RUNS):
        rng = np.random.default_rng(2000 + seed)
        records: list[Mapping[str, Any]] = []
        rows = []
        for request in range(400):
            user, name = request % 150, f"r{request}"
            chosen, _, chances = explore(candidates, 2, Exploration("softmax", 1.0), rng)
            items = [int(item) for item in chosen]
            records.append(slate(name, user, START_MS, items, propensities=list(chances)))
            left = list(range(5))
            for place, (item, likely) in enumerate(zip(items, reward(items), strict=True)):
                if rng.random() < likely:
                    records.append(
                        feedback(f"{name}{place}", "click", user, START_MS, item_id=item, request_id=name)
                    )
                weights = np.exp(target[left])
                rows += [
                    (name, place, a, float(w)) for a, w in zip(left, weights / weights.sum(), strict=True)
                ]
                left.remove(item)
        found.append(evaluated(table(records), rows, tmp_path, interaction="cascade"))
    assert min(covered(found, truth).values()) >= 0.9 * RUNS, covered(found, truth)


@pytest.mark.parametrize(
    "plan",
    [
        "als,n_candidates=12,epsilon=0.4",
        "als,n_candidates=12,temperature=0.7",
        "als,n_candidates=12,epsilon=0.4,rerank=mmr,relevance=0.3",
        "als,n_candidates=12,epsilon=0.4,rerank=dpp,window=4,cap=kind:2",
        "knn,n_candidates=12,epsilon=0.4,rerank=calibrated,attribute=genres,relevance=0.2",
    ],
)
@pytest.mark.parametrize("interaction", ["independent", "cascade"])
def test_the_logging_plan_itself_has_weights_of_one(
    tmp_path: Path, plan: str, interaction: Interaction
) -> None:
    write_tiny_bundle(tmp_path)
    live = open_published(tmp_path)
    policy = parsed_plan(plan)
    records: list[Mapping[str, Any]] = []
    for request in range(60):
        user = 100 + 3 * (request % 20)
        # What a user did before is in the log, so the replay must know it at the time of each request.
        recent = tuple(10 + 2 * (n // 20) for n in range(request) if n % 20 == request % 20)
        served = recommend(Query(user, 3, recent=recent, seed=request), policy, live, Deadline.none())
        at = START_MS + 1000 * request
        records.append(
            slate(f"r{request}", user, at, list(served.item_ids), propensities=served.propensities)  # type: ignore[arg-type]
        )
        records.append(feedback(f"v{request}", "view", user, at + 1, item_id=10 + 2 * (request // 20)))
    events = table(records)
    explored = explored_slots(events, "click")
    target = of_plan(policy, events, explored, RewardModel(explored.slots), live)
    assert target.probability == pytest.approx(explored.slots["propensity"].to_numpy(), rel=1e-6)
    found = evaluate(explored, target, interaction=interaction)
    assert found.weights.mean == pytest.approx(1.0)
    assert found.estimates[0].value == pytest.approx(found.logged.value)


def test_a_certain_plan_puts_all_its_weight_on_its_best_item(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    live = open_published(tmp_path)
    records: list[Mapping[str, Any]] = []
    best: dict[str, Any] = {}
    for user in range(100, 220, 3):
        served = recommend(
            Query(user, 2, seed=user), Plan("als", 10, Exploration("epsilon", 0.5)), live, Deadline.none()
        )
        best[f"r{user}"] = recommend(Query(user, 2), Plan("als"), live, Deadline.none()).item_ids[0]
        records.append(
            slate(f"r{user}", user, START_MS, list(served.item_ids), propensities=served.propensities)  # type: ignore[arg-type]
        )
    explored = explored_slots(table(records), "click")
    target = of_plan(Plan("als"), table(records), explored, RewardModel(explored.slots), live)
    first = explored.slots.with_columns(p=pl.Series(target.probability)).filter(pl.col("position") == 0)
    assert {row["event_id"]: row["p"] for row in first.iter_rows(named=True)} == {
        row["event_id"]: float(str(best[row["event_id"]]) == row["item_id"])
        for row in first.iter_rows(named=True)
    }
    assert 0 < first["p"].sum() < len(first)


def test_a_target_that_the_log_never_shows_is_warned_of(tmp_path: Path) -> None:
    events = table([slate(f"r{n}", n, START_MS, [1], propensities=[0.5 + 0.001 * n]) for n in range(200)])
    found = evaluated(events, [(f"r{n}", 0, 9, 1.0) for n in range(200)], tmp_path)
    assert any("the log never shows" in warning for warning in found.weights.warnings)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", 0, 1, 1.5)], "column 'probability': must be in"),
        ([("a", 0, 1, 0.5), ("a", 0, 1, 0.5)], "column 'item_id': stands twice at place 0 of a"),
        ([("a", 0, 1, 0.9), ("a", 0, 2, 0.9)], "place 0 of a adds up to 1.8"),
    ],
)
def test_a_target_that_is_no_distribution_is_refused(
    tmp_path: Path, rows: list[tuple[str, int, int, float]], message: str
) -> None:
    events = table([slate("a", 1, START_MS, [1], propensities=[0.5])])
    with pytest.raises(DataError, match=message):
        evaluated(events, rows, tmp_path)


def test_a_log_without_propensities_or_with_wrong_ones_is_refused() -> None:
    with pytest.raises(InputError, match="no slate has propensities"):
        explored_slots(table([slate("a", 1, START_MS, [1])]), "click")
    with pytest.raises(InputError, match=r"'a', place 2: propensity 0.0 is not in \(0, 1\]"):
        explored_slots(table([slate("a", 1, START_MS, [1, 2], propensities=[0.5, 0.0])]), "click")
    with pytest.raises(InputError, match="'a' has not one propensity a place"):
        explored_slots(table([slate("a", 1, START_MS, [1, 2], propensities=[0.5])]), "click")


def test_plans_are_parsed_and_faults_named() -> None:
    assert parsed_plan("als") == Plan("als")
    assert parsed_plan("als,n_candidates=50,epsilon=0.1") == Plan("als", 50, Exploration("epsilon", 0.1))
    assert parsed_plan("als,n_candidates=50,rerank=dpp,window=5,relevance=0.5,cap=artist:2") == Plan(
        "als", 50, reranking=Reranking("dpp", 0.5, 5, AttributeCap("artist", 2))
    )
    for text, message in [
        ("als,rerank=mmr", "rerank needs n_candidates"),
        ("als,n_candidates=5,rerank=best", "must be one of mmr, dpp, calibrated"),
        ("als,n_candidates=5,rerank=mmr,temperature=1", "orders by score again"),
        ("als,n_candidates=5,rerank=mmr,window=3", "window is of rerank=dpp"),
        ("als,n_candidates=5,rerank=calibrated", "needs attribute"),
        ("als,n_candidates=5,rerank=dpp,relevance=1", "from 0 to 0.99"),
        ("als,n_candidates=5,rerank=mmr,cap=artist", "cap must be an attribute"),
        ("als,n_candidates=5,relevance=0.5", "relevance goes with rerank"),
        ("als,epsilon=0.1", "needs n_candidates"),
        ("als,n_candidates=5,epsilon=2", "from 0 to 1"),
        ("als,n_candidates=5,epsilon=.1,temperature=1", "exclude"),
        ("als,depth=5", "no setting 'depth'"),
        ("als,epsilon", "a name, = and a value"),
    ]:
        with pytest.raises(InputError, match=message):
            parsed_plan(text)


def test_the_command_tells_estimates_and_what_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_bundle(tmp_path / "artifacts")
    assert ArtifactStore(tmp_path / "artifacts").current().is_dir()
    records = [slate("plain", 100, START_MS, [10, 12])]
    for n in range(40):
        records.append(slate(f"r{n}", 100 + 3 * (n % 10), START_MS, [10 + 2 * (n % 4)], propensities=[0.25]))
        if n % 3 == 0:
            records.append(
                feedback(
                    f"c{n}",
                    "click",
                    100 + 3 * (n % 10),
                    START_MS,
                    item_id=10 + 2 * (n % 4),
                    request_id=f"r{n}",
                )
            )
    log = written(tmp_path, records)
    flags = ["--plan", "popular,n_candidates=8,temperature=1", "--artifacts", str(tmp_path / "artifacts")]
    assert main(["experiment", "ope", "--events", str(log), *flags]) == 0
    summary = orjson.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["left_out"] == {"certain": 1, "nameless": 0}
    assert summary["logged"]["value"] == pytest.approx(14 / 40)
    assert set(summary["estimates"]) == {"IPS", "SNIPS", "clipped IPS", "clipped SNIPS", "DR", "clipped DR"}
    assert main(["experiment", "ope", "--events", str(log), "--plan", "als"]) == 2
    assert "--plan needs --artifacts" in capsys.readouterr().err
    with opened(log) as read:
        assert explored_slots(read.events, "click").certain == 1


def test_intervals_widen_where_a_few_users_carry_the_weight() -> None:
    rng = np.random.default_rng(2)
    normal = rng.normal(size=2_000)
    assert degrees_of(normal) == pytest.approx(1_999, rel=0.15)
    heavy = np.concatenate([normal * 0.01, [50.0, 60.0]])
    assert degrees_of(heavy) < 5
    assert degrees_of(np.zeros(9)) == 8
    assert degrees_of(np.array([1.0, -1.0])) == 1
