"""Shadow plans: compared in idle time only, bounded, and of no consequence to what is served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from factories import write_tiny_bundle

import service.policy.shadow as shadow_module
from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.domain import Deadline, Plan, Query
from service.policy.comparing import overlap
from service.policy.experiments_file import read_experiments
from service.policy.shadow import IDLE_S, MAX_WAITING, Shadows
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend
from service.telemetry import Telemetry

ONE = "[shadows.other]\nmodel = 'knn'\non = ['default']\n"


class Rig:
    """Shadow plans, their metrics, and a clock that stands still."""

    def __init__(self, text: str, live: LiveBundle, folder: Path) -> None:
        (folder / "e.toml").write_text(text, encoding="utf-8")
        self.live, self.now, self.said = live, 0.0, list[str]()
        self.telemetry = Telemetry(budget_s=0.05)
        declared = read_experiments(folder / "e.toml")
        self.shadows = Shadows(
            declared,
            self.telemetry,
            clock=lambda: self.now,
            say=lambda *_, shadow, error: self.said.append(shadow),
        )

    def offer(
        self, user: int = 100, model: str = "default", k: int = 5, recent: tuple[int, ...] = ()
    ) -> None:
        query = Query(user, k)
        served = recommend(query, Plan("als"), self.live, Deadline.none())
        self.shadows.offer(query, recent, model, self.live, served)

    def runs(self, result: str, shadow: str = "other") -> float:
        self.shadows.flush_counts()
        labels = {"shadow": shadow, "result": result}
        return self.telemetry.registry.get_sample_value("reco_shadow_runs_total", labels) or 0.0

    def mean(self, metric: str) -> float:
        total, count = (
            self.telemetry.registry.get_sample_value(f"reco_shadow_{metric}_{part}", {"shadow": "other"})
            for part in ("sum", "count")
        )
        assert total is not None
        assert count
        return total / count

    def up_to(self, metric: str, bound: str) -> float:
        labels = {"shadow": "other", "le": bound}
        value = self.telemetry.registry.get_sample_value(f"reco_shadow_{metric}_bucket", labels)
        assert value is not None
        return value

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110 - what is awaited is a metric
                await asyncio.sleep(IDLE_S)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    root = tmp_path_factory.mktemp("shadowed")
    write_tiny_bundle(root)
    return go_live(load_bundle(ArtifactStore(root).current()), clock=lambda: 0.0)  # retrieving costs nothing


@pytest.fixture
def rig(live: LiveBundle, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(ONE, live, tmp_path)
    yield made
    made.shadows.close()


async def test_it_compares_what_was_served_with_what_it_would_have_been(rig: Rig, live: LiveBundle) -> None:
    users = [100, 103, 106, 109]
    for user in users:
        rig.offer(user)
    await rig.until(lambda: rig.runs("compared") == len(users))
    alike = [
        overlap(*(recommend(Query(user, 5), Plan(m), live, Deadline.none()).item_ids for m in ("als", "knn")))
        for user in users
    ]
    assert rig.mean("overlap_at_k") == pytest.approx(sum(alike) / len(alike))
    assert 0 <= rig.mean("rank_biased_overlap") <= 1
    assert rig.up_to("kendall_tau", "-1.0") <= rig.up_to("kendall_tau", "1.0") <= len(users)
    assert rig.up_to("latency_delta_seconds", "0.0") == len(users)  # its clock stands still


async def test_it_knows_what_the_user_did_since(rig: Rig, live: LiveBundle) -> None:
    """Unseen items become seen: the shadow's slate must leave them out, as the served line's does."""
    first = recommend(Query(100, 5), Plan("knn"), live, Deadline.none()).item_ids
    recent = tuple(item for item in first if isinstance(item, int))
    rig.offer(100, recent=recent)
    await rig.until(lambda: rig.runs("compared") == 1)
    served = recommend(Query(100, 5), Plan("als"), live, Deadline.none()).item_ids
    shadow = recommend(Query(100, 5, recent=recent), Plan("knn"), live, Deadline.none()).item_ids
    assert rig.mean("overlap_at_k") == pytest.approx(overlap(served, shadow))
    assert overlap(served, shadow) != overlap(served, first)


async def test_nothing_runs_before_the_loop_is_idle(rig: Rig) -> None:
    rig.offer()
    assert rig.runs("compared") == 0
    await rig.until(lambda: rig.runs("compared") == 1)


async def test_while_requests_come_it_waits(rig: Rig) -> None:
    """Between any two looks at the loop another request comes, until they stop."""
    looks = 0
    wake = rig.shadows._wake

    def counted() -> None:
        nonlocal looks
        looks += 1
        if looks < 20:
            rig.offer()
        wake()
        if looks < 20:
            assert rig.runs("compared") == 0

    rig.shadows._wake = counted  # type: ignore[method-assign]  # the moment before it looks
    rig.offer()
    await rig.until(lambda: rig.runs("compared") == 20)
    assert looks >= 20


async def test_the_queue_is_bounded_and_what_is_turned_away_is_counted(rig: Rig) -> None:
    for _ in range(MAX_WAITING + 7):
        rig.offer()
    assert rig.runs("full") == 7
    await rig.until(lambda: rig.runs("compared") == MAX_WAITING)


async def test_what_waited_too_long_is_dropped(rig: Rig) -> None:
    rig.offer()
    rig.now = 100.0
    await rig.until(lambda: rig.runs("late") == 1)
    assert rig.runs("compared") == 0


async def test_what_costs_too_much_is_left_out(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_module, "BUDGET_S", -1.0)
    rig.offer()
    await rig.until(lambda: rig.runs("dear") == 1)
    assert rig.runs("compared") == 0


async def test_a_failing_shadow_is_counted_and_told_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(shadow_module, "recommend", broken)
    for _ in range(3):
        rig.offer()
    await rig.until(lambda: rig.runs("failed") == 3)
    assert rig.said == ["other"]


async def test_other_models_are_not_compared(rig: Rig) -> None:
    rig.offer(model="als")
    rig.offer(model="default")
    await rig.until(lambda: rig.runs("compared") == 1)


async def test_a_share_is_compared(live: LiveBundle, tmp_path: Path) -> None:
    rig = Rig(ONE + "share = 0.25\n", live, tmp_path)
    for _ in range(400):
        rig.offer()
    taken = MAX_WAITING + rig.runs("full")
    assert 60 < taken < 140
    rig.shadows.close()


async def test_a_closed_one_runs_no_more(rig: Rig) -> None:
    rig.offer()
    rig.shadows.close()
    await asyncio.sleep(3 * IDLE_S)
    assert rig.runs("compared") == 0


async def test_a_bundle_without_the_model_is_not_compared(live: LiveBundle, tmp_path: Path) -> None:
    rig = Rig("[shadows.other]\nmodel = 'gone'\n", live, tmp_path)
    rig.offer()
    await asyncio.sleep(3 * IDLE_S)
    assert [rig.runs(result) for result in ("compared", "failed", "dear")] == [0, 0, 0]
