"""Both clients against the real service: the async one in process, the sync one over a socket."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from running import BEARER, TOKEN, listening, running, settings_for

from service.app import create_app
from service.client import (
    AsyncRecoClient,
    Filter,
    Forbidden,
    InvalidQuestion,
    NotFound,
    Question,
    RecoClient,
    ServiceUnreachable,
    ServiceUnready,
    TimedOut,
    Unauthorized,
)

ADMIN_ONLY = "wB7nQe2sVd9kLz4tHy1p"


@pytest.fixture(scope="module")
def url(artifacts: Path) -> Iterator[str]:
    app = create_app(settings_for(artifacts, tokens=f"shop:{TOKEN},ops:{ADMIN_ONLY}:admin"))
    with listening(app) as (host, port):
        yield f"http://{host}:{port}"


@pytest.fixture
def reco(url: str) -> Iterator[RecoClient]:
    with RecoClient(url, token=TOKEN) as client:
        yield client


@pytest.fixture
async def async_reco(artifacts: Path) -> AsyncIterator[AsyncRecoClient]:
    async with (
        running(settings_for(artifacts)) as (app, _),
        AsyncRecoClient("http://service", token=TOKEN, transport=httpx.ASGITransport(app=app)) as client,
    ):
        yield client


class TestSync:
    def test_the_hot_route_with_all_it_discloses(self, reco: RecoClient) -> None:
        answer = reco.recommend(100, k=5, model="als", request_id="mine-1")
        assert (answer.user_id, len(answer.items)) == (100, 5)
        assert (answer.request_id, answer.model, answer.source, answer.degraded) == (
            "mine-1",
            "als",
            "personal",
            (),
        )
        assert answer.bundle == reco.models().bundle
        assert {"retrieve", "complete", "total"} <= set(answer.timings_ms)

    def test_a_degraded_answer_says_so(self, reco: RecoClient) -> None:
        answer = reco.recommend(100, budget_ms=0.001)
        assert answer.degraded == ("retrieve",)
        assert answer.source == "segment_popular"

    def test_the_same_items_from_both_routes(self, reco: RecoClient) -> None:
        slate = reco.v1_recommend(Question(user_id=103, k=8))
        assert slate.item_ids == reco.recommend(103, k=8).items
        assert {item.source for item in slate.items} == {"personal"}

    def test_histories_and_filters(self, reco: RecoClient) -> None:
        asked = Question(history=[10, 14], k=40, filter=Filter(deny=[18], attributes={"kind": ["film"]}))
        slate = reco.v1_recommend(asked)
        assert slate.source == "fold_in"
        assert not {10, 14, 18, 30, 50, 70} & set(slate.item_ids)

    def test_a_batch_keeps_order_and_carries_errors(self, reco: RecoClient) -> None:
        batch = reco.batch(
            [Question(user_id=100, k=2), Question(user_id=100, model="nope"), Question(user_id=103, k=3)]
        )
        assert [result.answer is None for result in batch.results] == [False, True, False]
        assert batch.results[2].unwrap().item_ids == reco.recommend(103, k=3).items
        with pytest.raises(NotFound) as error:
            batch.results[1].unwrap()
        assert error.value.kind == "model_not_found"
        assert error.value.request_id == batch.request_id

    def test_similar_models_and_health(self, reco: RecoClient) -> None:
        neighbours = reco.similar(10, k=4, model="als")
        assert len(neighbours.items) == 4
        served = reco.models()
        assert [model.name for model in served.models if model.default] == [served.default] == ["als"]
        assert {model.name: model.recall_at_10 for model in served.models}["als"] == 1.0
        health = reco.health()
        assert (health.ready, health.bundle, health.reason) == (True, served.bundle, None)

    def test_refusals_are_typed(self, url: str, reco: RecoClient) -> None:
        with pytest.raises(NotFound) as unknown:
            reco.recommend(100, model="nope")
        assert unknown.value.kind == "model_not_found"
        with pytest.raises(NotFound):
            reco.recommend(10**9 + 1)
        with pytest.raises(InvalidQuestion) as invalid:
            reco.v1_recommend(Question(user_id=100, k=0))
        assert [fault.location for fault in invalid.value.faults] == [("body", "k")]
        with pytest.raises(InvalidQuestion) as malformed:
            reco.recommend("not-a-number")
        assert malformed.value.faults[0].location == ("path", "user_id")
        with RecoClient(url, token="nobody-was-given-this") as stranger, pytest.raises(Unauthorized):
            stranger.recommend(100)
        with RecoClient(url, token=ADMIN_ONLY) as ops, pytest.raises(Forbidden):
            ops.models()

    def test_without_a_token_health_answers_and_the_rest_does_not(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("RECO_TOKEN", raising=False)
        with RecoClient(url) as stranger:
            assert stranger.health().ready
            with pytest.raises(Unauthorized):
                stranger.recommend(100)
        monkeypatch.setenv("RECO_TOKEN", TOKEN)
        with RecoClient(url) as known:
            assert known.recommend(100).items

    def test_nobody_listening_and_nobody_answering(self) -> None:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
            with (
                RecoClient(f"http://127.0.0.1:{port}", token=TOKEN) as reco,
                pytest.raises(ServiceUnreachable),
            ):
                reco.recommend(1)
            listener.listen()
            with (
                RecoClient(f"http://127.0.0.1:{port}", token=TOKEN, timeout_s=0.05) as reco,
                pytest.raises(TimedOut),
            ):
                reco.recommend(1)


class TestAsync:
    async def test_every_call(self, async_reco: AsyncRecoClient) -> None:
        hot = await async_reco.recommend(100, k=5)
        slate = await async_reco.v1_recommend(Question(user_id=100, k=5))
        batch = await async_reco.batch([Question(user_id=100, k=5)])
        assert hot.items == slate.item_ids == batch.results[0].unwrap().item_ids
        assert hot.bundle == slate.bundle == batch.bundle == (await async_reco.models()).bundle
        assert len((await async_reco.similar(10, k=3)).items) == 3
        assert (await async_reco.health()).ready

    async def test_refusals_are_typed(self, async_reco: AsyncRecoClient) -> None:
        with pytest.raises(NotFound):
            await async_reco.similar(11)
        with pytest.raises(InvalidQuestion):
            await async_reco.batch([])

    async def test_an_unready_service_is_an_answer_of_health_and_an_error_elsewhere(
        self, artifacts: Path
    ) -> None:
        async with running(settings_for(artifacts)) as (app, _):
            app.state.services.serving.live = None
            transport = httpx.ASGITransport(app=app)
            async with AsyncRecoClient("http://service", token=TOKEN, transport=transport) as reco:
                health = await reco.health()
                assert not health.ready
                assert health.reason
                with pytest.raises(ServiceUnready):
                    await reco.recommend(100)
                with pytest.raises(ServiceUnready):
                    await reco.v1_recommend(Question(user_id=100))

    @pytest.mark.parametrize(
        "user_id", ["u000", "a/b", "..", ".", "100%", "a?k=1", "ключ", "#", "a b+c", "%2e"]
    )
    async def test_any_string_id_arrives_as_it_is(self, str_artifacts: Path, user_id: str) -> None:
        async with running(settings_for(str_artifacts)) as (app, _):
            transport = httpx.ASGITransport(app=app)
            async with AsyncRecoClient("http://service", token=TOKEN, transport=transport) as reco:
                assert (await reco.recommend(user_id, k=2)).user_id == user_id
                assert (await reco.v1_recommend(Question(user_id=user_id, k=2))).items


def test_importing_the_client_brings_nothing_of_the_server() -> None:
    code = (
        "import sys, service.client; "
        "print([m for m in sys.modules if m in ('fastapi', 'starlette', 'pydantic', 'numpy') or "
        "(m.startswith('service.') and not m.startswith('service.client'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_test_token_is_what_the_client_sends() -> None:
    with RecoClient("http://service", token=TOKEN) as reco:
        assert reco.access.headers() == BEARER
