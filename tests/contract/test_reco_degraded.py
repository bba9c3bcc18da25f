"""The budget: what is left out when it is short, how that is told, and that an answer comes whatever breaks."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle
from running import BEARER, running, settings_for

from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.domain import Candidates
from service.recommender.filters import Eligible
from service.recommender.live import LiveBundle, go_live
from service.recommender.retrieval import PopularRetriever, Retriever
from service.recommender.user_state import UserState
from service.settings import Settings

WARM = tiny_dataset().user_ids.take(tiny_dataset().user_rows[:1])[0]


class ManualClock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class SlowRetriever:
    """A retriever that takes its time."""

    def __init__(self, inner: Retriever, pass_time: Callable[[], None]) -> None:
        self.inner, self.pass_time = inner, pass_time
        self.calls = 0

    def retrieve(self, user: UserState, n: int, rules: Eligible) -> Candidates | None:
        self.calls += 1
        self.pass_time()
        return self.inner.retrieve(user, n, rules)


class BrokenRetriever:
    """A retriever with a bug."""

    def retrieve(self, user: UserState, n: int, rules: Eligible) -> Candidates | None:
        raise ZeroDivisionError("a detail that nobody outside should read")


class BrokenPopular(PopularRetriever):
    """The last resort, with a bug too."""

    def walk(self, *args: object) -> Candidates:
        raise ZeroDivisionError("a detail that nobody outside should read")

    def retrieve(self, user: UserState, n: int, rules: Eligible) -> Candidates | None:
        raise ZeroDivisionError("a detail that nobody outside should read")

    def segment_of(self, user: UserState) -> int:
        raise ZeroDivisionError("a detail that nobody outside should read")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def budgeted(artifacts: Path) -> Settings:
    return settings_for(artifacts, budget_ms=50)


def with_retriever(live: LiveBundle, name: str, retriever: Retriever) -> LiveBundle:
    model = dataclasses.replace(live.models[name], retriever=retriever)
    models = {key: model if known.name == name else known for key, known in live.models.items()}
    return dataclasses.replace(live, models=models)


def live_of(artifacts: Path, clock: Callable[[], float]) -> LiveBundle:
    return go_live(load_bundle(ArtifactStore(artifacts).current()), clock=clock)


async def test_a_model_that_overruns_is_left_out_and_popular_items_answer(
    artifacts: Path, clock: ManualClock
) -> None:
    def pass_time() -> None:
        clock.now += 0.2

    live = live_of(artifacts, clock)
    slow = SlowRetriever(live.models["als"].retriever, pass_time)
    async with running(budgeted(artifacts), live=with_retriever(live, "als", slow), clock=clock) as (
        _,
        client,
    ):
        for calls in (1, 2):  # the first may be a hiccup; the second makes it a cost
            late = await client.get(f"/reco/als/{WARM}", headers=BEARER)
            assert (late.status_code, late.headers["X-Reco-Degraded"], slow.calls) == (200, "overrun", calls)

        for _ in range(3):
            answer = await client.get(f"/reco/als/{WARM}", headers=BEARER)
            assert (answer.status_code, len(answer.json()["items"])) == (200, 10)
            assert answer.headers["X-Reco-Degraded"] == "retrieve"
            assert answer.headers["X-Reco-Source"] in ("popular", "segment_popular")
        assert slow.calls == 2
        popular = await client.get(f"/reco/popular/{WARM}", headers=BEARER)
        assert answer.json() == popular.json()
        assert "X-Reco-Degraded" not in popular.headers

        text = (await client.get("/metrics")).text
    assert 'reco_degraded_total{model="als",stage="retrieve"} 3.0' in text
    assert 'reco_degraded_total{model="als",stage="overrun"} 2.0' in text
    assert 'reco_budget_overruns_total{model="als"} 2.0' in text
    assert 'reco_budget_overruns_total{model="popular"}' not in text
    assert 'reco_source_total{model="als",source="segment_popular"} 3.0' in text
    assert 'reco_request_duration_seconds_bucket{le="0.05",model="als"} 3.0' in text
    assert 'reco_request_duration_seconds_count{model="als"} 5.0' in text


async def test_one_slow_model_leaves_the_others_alone(artifacts: Path, clock: ManualClock) -> None:
    def pass_time() -> None:
        clock.now += 0.2

    live = live_of(artifacts, clock)
    slow = SlowRetriever(live.models["knn"].retriever, pass_time)
    async with running(budgeted(artifacts), live=with_retriever(live, "knn", slow), clock=clock) as (
        _,
        client,
    ):
        for _ in range(2):
            await client.get(f"/reco/knn/{WARM}", headers=BEARER)
        answer = await client.get(f"/reco/als/{WARM}", headers=BEARER)
    assert answer.headers["X-Reco-Source"] == "personal"
    assert "X-Reco-Degraded" not in answer.headers


async def test_the_caller_lowers_the_budget_and_cannot_raise_it(artifacts: Path, clock: ManualClock) -> None:
    def pass_time() -> None:
        clock.now += 0.03

    live = live_of(artifacts, clock)
    live = with_retriever(live, "als", SlowRetriever(live.models["als"].retriever, pass_time))
    async with running(budgeted(artifacts), live=live, clock=clock) as (_, client):
        url = f"/reco/als/{WARM}"
        within = await client.get(url, headers=BEARER)
        assert "X-Reco-Degraded" not in within.headers
        lowered = await client.get(url, headers={**BEARER, "X-Reco-Budget-Ms": "20"})
        raised = await client.get(url, headers={**BEARER, "X-Reco-Budget-Ms": "500000"})
        nothing = await client.get(url, headers={**BEARER, "X-Reco-Budget-Ms": "0"})
        assert nothing.headers["X-Reco-Degraded"] == "retrieve"
    assert (lowered.headers["X-Reco-Degraded"], len(lowered.json()["items"])) in (
        ("overrun", 10),
        ("retrieve", 10),
    )
    assert "X-Reco-Degraded" not in raised.headers

    def pass_more_time() -> None:
        clock.now += 0.2

    live = live_of(artifacts, clock)
    live = with_retriever(live, "als", SlowRetriever(live.models["als"].retriever, pass_more_time))
    async with running(budgeted(artifacts), live=live, clock=clock) as (_, client):
        raised = await client.get(url, headers={**BEARER, "X-Reco-Budget-Ms": "500000"})
    assert raised.headers["X-Reco-Degraded"] == "overrun"


async def test_a_line_that_breaks_is_answered_by_what_is_popular(
    artifacts: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    live = with_retriever(go_live(load_bundle(ArtifactStore(artifacts).current())), "als", BrokenRetriever())
    async with running(settings_for(artifacts), live=live) as (_, client):
        answer = await client.get(f"/reco/als/{WARM}", headers=BEARER)
        popular = await client.get(f"/reco/popular/{WARM}", headers=BEARER)
        text = (await client.get("/metrics")).text
    assert (answer.status_code, answer.json()) == (200, popular.json())
    assert answer.headers["X-Reco-Degraded"] == "error"
    assert 'reco_degraded_total{model="als",stage="error"} 1.0' in text
    assert "ZeroDivisionError" in capfd.readouterr().out


async def test_when_nothing_can_answer_the_500_says_nothing_of_why(
    artifacts: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    live = go_live(load_bundle(ArtifactStore(artifacts).current()))
    broken = BrokenPopular(live.bundle.models["popular"])
    live = dataclasses.replace(with_retriever(live, "popular", broken), popular=broken)
    async with running(settings_for(artifacts), live=live) as (_, client):
        response = await client.get("/reco/popular/1", headers=BEARER)
        text = (await client.get("/metrics")).text
    assert response.status_code == 500
    assert response.json() == {
        "errors": [{"error_key": "server_error", "error_message": "Internal Server Error", "error_loc": None}]
    }
    assert 'reco_requests_total{model="popular",status="500"} 1.0' in text
    assert "a detail that nobody outside should read" in capfd.readouterr().out


async def test_a_request_keeps_the_bundle_it_began_with(artifacts: Path, tmp_path: Path) -> None:
    other = tiny_dataset(seed=8)
    write_tiny_bundle(tmp_path, dataset=other, models=trained_models(other))
    first = go_live(load_bundle(ArtifactStore(artifacts).current()))
    second = go_live(load_bundle(ArtifactStore(tmp_path).current()))
    async with running(settings_for(artifacts), live=first) as (app, client):
        serving = app.state.services.serving

        def swap() -> None:
            serving.live = second

        serving.live = with_retriever(first, "als", SlowRetriever(first.models["als"].retriever, swap))
        before = await client.get(f"/reco/als/{WARM}", headers=BEARER)
        after = await client.get(f"/reco/als/{WARM}", headers=BEARER)
    async with running(settings_for(artifacts), live=first) as (_, client):
        pure = await client.get(f"/reco/als/{WARM}", headers=BEARER)
    assert (before.headers["X-Reco-Bundle"], before.json()) == (first.bundle_id, pure.json())
    assert after.headers["X-Reco-Bundle"] == second.bundle_id


async def test_a_bundle_that_was_replaced_is_let_go_without_waiting_for_a_request(artifacts: Path) -> None:
    first, second = live_of(artifacts, time.perf_counter), live_of(artifacts, time.perf_counter)
    gone = weakref.ref(first.models["als"].retriever)
    async with running(settings_for(artifacts), live=None) as (app, client):
        serving = app.state.services.serving
        serving.live = first
        assert (await client.get(f"/reco/als/{WARM}", headers=BEARER)).status_code == 200
        serving.live = second
        del first
        async with asyncio.timeout(20):
            while gone() is not None:
                await asyncio.sleep(0.01)
                gc.collect()
