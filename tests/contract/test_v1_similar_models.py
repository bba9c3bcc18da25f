"""POST /v1/similar and GET /v1/models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import httpx
import numpy as np
import pytest
from factories import write_tiny_bundle
from running import BEARER, running, settings_for

from service.api.v1_schemas import ModelsAnswer, SimilarAnswer
from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore


@pytest.fixture
async def client(artifacts: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with running(settings_for(artifacts)) as (_, client):
        client.headers.update(BEARER)
        yield client


async def test_neighbours_are_the_cosine_order_of_the_vectors(
    client: httpx.AsyncClient, artifacts: Path
) -> None:
    response = await client.post("/v1/similar", json={"item_id": 14, "model": "als", "k": 39})
    answer = SimilarAnswer.model_validate_json(response.content, strict=True)
    bundle = load_bundle(ArtifactStore(artifacts).current())
    arrays = bundle.models["als"].arrays
    vectors = arrays["item_vectors"] / np.linalg.norm(arrays["item_vectors"], axis=1, keepdims=True)
    ids = bundle.item_ids.take(arrays["item_rows"])
    cosines = dict(zip(ids, (vectors @ vectors[ids.index(14)]).tolist(), strict=True))
    assert 14 not in [item.item_id for item in answer.items]
    assert len(answer.items) == 39
    for item in answer.items:
        assert item.score == pytest.approx(cosines[item.item_id], abs=1e-5)
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, key=lambda score: -(score or 0))
    assert response.headers["x-reco-bundle"] == answer.bundle == bundle.bundle_id
    assert answer.model == "als"


@pytest.mark.parametrize("model", ["knn", "ease"])
async def test_item_item_models_know_neighbours_too(client: httpx.AsyncClient, model: str) -> None:
    items = (await client.post("/v1/similar", json={"item_id": 10, "model": model, "k": 4})).json()["items"]
    assert len(items) == 4
    assert 10 not in [item["item_id"] for item in items]


@pytest.mark.parametrize("model", ["popular", "lists"])
async def test_a_model_without_similarity_says_so(client: httpx.AsyncClient, model: str) -> None:
    response = await client.post("/v1/similar", json={"item_id": 10, "model": model})
    assert response.status_code == 422
    assert response.json()["errors"][0] == {
        "loc": ["body", "model"], "type": "no_similarity",
        "msg": f"model '{model}' of kind {model} knows no similar items",
    }  # fmt: skip


async def test_k_is_bounded_as_everywhere(client: httpx.AsyncClient) -> None:
    for k, status in ((1, 200), (200, 200), (201, 422), (0, 422)):
        assert (await client.post("/v1/similar", json={"item_id": 10, "k": k})).status_code == status


async def test_models_lists_every_served_name_and_marks_the_default(
    client: httpx.AsyncClient, artifacts: Path
) -> None:
    response = await client.get("/v1/models")
    answer = ModelsAnswer.model_validate_json(response.content, strict=True)
    manifest = load_bundle(ArtifactStore(artifacts).current()).manifest
    assert [model.name for model in answer.models] == sorted(manifest.models)
    assert (
        [model.name for model in answer.models if model.default]
        == [answer.default]
        == [manifest.default_model]
    )
    assert (answer.bundle, answer.created_at) == (manifest.bundle_id, manifest.created_at)
    for model in answer.models:
        assert (await client.get(f"/reco/{model.name}/100")).status_code == 200
        assert model.kind == manifest.models[model.name].kind
        assert (
            (model.retriever is None)
            == (model.dim is None)
            == (model.space is None)
            == (model.recall is None)
        )


@pytest.mark.parametrize("index", ["hnsw", "ivf"])
async def test_models_tells_the_retriever_in_use_and_its_measured_recall(
    index: Literal["hnsw", "ivf"], tmp_path: Path
) -> None:
    path = write_tiny_bundle(tmp_path, index=index)
    built = load_bundle(path).manifest.models["als"].retrieval
    assert built is not None
    assert built.recall == built.recall_of(index)
    for retriever in ("auto", "exact", index):
        async with running(settings_for(tmp_path, retriever=retriever)) as (_, client):
            answer = ModelsAnswer.model_validate((await client.get("/v1/models", headers=BEARER)).json())
        als = next(model for model in answer.models if model.name == "als")
        assert als.retriever == ("exact" if retriever == "exact" else index)
        assert als.recall is not None
        assert als.recall.at_10 == (1.0 if retriever == "exact" else built.recall.at_10)
