"""Client for asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar

import httpx

from service.client import wire
from service.client.answers import Batch, Health, Id, Models, Question, Recommendation, Similar, Slate
from service.client.errors import ServiceUnreachable, TimedOut

T = TypeVar("T")


class AsyncRecoClient:
    """Client for asyncio.

        async with AsyncRecoClient("http://localhost:8080", token="…") as reco:
            answer = await reco.recommend(1, k=10)

    token: the bearer token; without it RECO_TOKEN. timeout_s: seconds for each of connecting, sending and each wait
    for bytes. transport: another way to the service than the network. Nothing is retried: repeating is the caller's
    choice, and a GET or a /v1 question may be repeated safely. Every method raises errors of RecoClientError's tree.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        timeout_s: float = wire.DEFAULT_TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.access = wire.Access.of(base_url, token, timeout_s)
        self._http = httpx.AsyncClient(
            base_url=base_url, headers=self.access.headers(), timeout=timeout_s, transport=transport
        )

    async def recommend(
        self,
        user_id: Id,
        *,
        k: int | None = None,
        model: str = "default",
        budget_ms: float | None = None,
        request_id: str | None = None,
    ) -> Recommendation:
        """Ask the hot route for k items (None: the service's default) for a user."""
        return await self._send(
            wire.recommend(user_id, model=model, k=k, budget_ms=budget_ms, request_id=request_id)
        )

    async def v1_recommend(
        self, question: Question, *, budget_ms: float | None = None, request_id: str | None = None
    ) -> Slate:
        """Ask /v1, which takes histories and filters and tells scores."""
        return await self._send(wire.v1_recommend(question, budget_ms=budget_ms, request_id=request_id))

    async def batch(
        self, questions: Sequence[Question], *, budget_ms: float | None = None, request_id: str | None = None
    ) -> Batch:
        """Ask many questions at once; each has an answer or an error of its own."""
        return await self._send(wire.batch(questions, budget_ms=budget_ms, request_id=request_id))

    async def similar(
        self, item_id: Id, *, k: int | None = None, model: str = "default", request_id: str | None = None
    ) -> Similar:
        """Ask which items are nearest to an item."""
        return await self._send(wire.similar(item_id, model=model, k=k, request_id=request_id))

    async def models(self, *, request_id: str | None = None) -> Models:
        """Ask what is served."""
        return await self._send(wire.models(request_id=request_id))

    async def health(self) -> Health:
        """Ask whether the service is ready; an unready one is an answer, not an error."""
        return await self._send(wire.health())

    async def _send(self, call: wire.Call[T]) -> T:
        try:
            response = await self._http.request(
                call.method, call.path, params=call.params, headers=call.headers, content=call.content
            )
        except httpx.TimeoutException as error:
            raise TimedOut(f"{call.method} {call.path}: no answer from {self.access}") from error
        except httpx.RequestError as error:
            raise ServiceUnreachable(f"{call.method} {call.path}: {self.access}: {error}") from error
        return call.answer(response)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"AsyncRecoClient({self.access})"
