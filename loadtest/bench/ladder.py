"""The rungs: what is asked of which server, and how its answers are known to be right."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from loadtest.bench.errors import BenchError

BASE = "raw-asgi"
CACHED = 20_000
"""Answers that the caching server may keep: more than the users it is asked for."""

Checked = Literal["constant", "form", "all", "unseen"]
Asked = Literal["warm", "again", "cold", "popular", "ranked", "v1", "predict"]


@dataclass(frozen=True, slots=True)
class Rung:
    """`server`: which process. `asked`: which file of requests. `checked`: the answers' form, and the best of all items
    or of those not seen, or nothing but the status."""

    title: str
    server: str
    asked: Asked
    checked: Checked = "constant"


@dataclass(frozen=True, slots=True)
class Ours:
    """How `reco serve` is run: RECO_RETRIEVER, and what else of its environment is not the default."""

    retriever: str
    environment: dict[str, str] = field(default_factory=dict)
    precomputed: bool = False
    """Whether it serves the bundle with every user's candidates computed beforehand."""


RUNGS = {
    BASE: Rung("raw ASGI on uvicorn, constant", "raw_asgi", "warm"),
    "nginx": Rung("nginx, constant", "nginx", "warm"),
    "starlette": Rung("plain Starlette route, constant", "starlette_route", "warm"),
    "fastapi": Rung("lean FastAPI route, constant", "fastapi_constant", "warm"),
    "idiomatic": Rung("FastAPI + HTTPBearer + pydantic + hnswlib", "idiomatic", "warm", "all"),
    "template": Rung("the same as course templates have it", "course_template", "warm", "all"),
    "flask": Rung("Flask on gevent, history in Redis, hnswlib", "flask", "warm", "all"),
    "litserve": Rung("LitServe + hnswlib", "litserve", "predict", "all"),
    "bentoml": Rung("BentoML + hnswlib", "bentoml", "predict", "all"),
    "ray": Rung("Ray Serve + hnswlib", "ray", "predict", "all"),
    "warm-exact": Rung("/reco, warm user, exact", "exact", "warm", "unseen"),
    "warm-hnsw": Rung("/reco, warm user, hnsw", "hnsw", "warm", "unseen"),
    "warm-hnsw-log": Rung("/reco, warm user, hnsw, access log on", "hnsw-log", "warm", "unseen"),
    "ranked": Rung("/reco, warm user, two stages", "exact", "ranked", "form"),
    "precomputed": Rung("/reco, warm user, candidates precomputed", "precomputed", "warm", "unseen"),
    "cached": Rung("/reco, warm user, response cache", "cached", "again", "unseen"),
    "cold": Rung("/reco, user nobody knows", "hnsw", "cold", "form"),
    "popular": Rung("/reco, popular", "hnsw", "popular", "form"),
    "v1": Rung("/v1/recommend, warm user, hnsw", "hnsw", "v1", "unseen"),
}
OURS = {
    "exact": Ours("exact"),
    "hnsw": Ours("hnsw"),
    "hnsw-log": Ours("hnsw", {"RECO_ACCESS_LOG": "on"}),
    "precomputed": Ours("auto", precomputed=True),
    "cached": Ours("exact", {"RECO_RESPONSE_CACHE": str(CACHED)}),
}


def chosen(words: str) -> list[str]:
    """Names of the rungs to measure, raw ASGI always first. Raises BenchError."""
    asked = [word.strip() for word in words.split(",") if word.strip()]
    for name in asked:
        if name not in RUNGS:
            raise BenchError(f"there is no rung {name!r}; there are: {', '.join(RUNGS)}")
    return [BASE, *(name for name in RUNGS if name in asked and name != BASE)]
