"""What /v1 takes and gives, as pydantic models: strict, closed, every list bounded."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from service.bundle.manifest import ModelKind, RetrieverName
from service.domain import IdKind, Source, Space

MAX_ID = 10**18 - 1
MAX_ID_CHARACTERS = 256
MAX_LISTED = 10_000
MAX_HISTORY = 1_000

MODEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
ModelName = Annotated[
    str, Field(pattern=MODEL_PATTERN, description="a served model; `default` stands for the best one")
]


def check_id(value: Any) -> int | str:
    """Let an id through as it is: never a boolean, never a number in another spelling."""
    if type(value) is int:
        if 0 <= value <= MAX_ID:
            return value
        raise PydanticCustomError("id_out_of_range", "an integer id is 0..{most}", {"most": MAX_ID})
    if type(value) is str:
        if 1 <= len(value) <= MAX_ID_CHARACTERS:
            return value
        raise PydanticCustomError(
            "id_length", "a string id has 1..{most} characters", {"most": MAX_ID_CHARACTERS}
        )
    raise PydanticCustomError("id_type", "an id is an integer or a string")


ID_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": MAX_ID},
        {"type": "string", "minLength": 1, "maxLength": MAX_ID_CHARACTERS},
    ],
    "description": "an integer or a string, whichever kind of ids the bundle was built with",
}
Identifier = Annotated[int | str, BeforeValidator(check_id), WithJsonSchema(ID_SCHEMA)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True)


class FilterBody(_Asked):
    """Which items may be answered. All that is given must hold."""

    allow: Annotated[list[Identifier], Field(max_length=MAX_LISTED)] | None = Field(
        None, description="only these items; null lets every item through, an empty list none"
    )
    deny: Annotated[list[Identifier], Field(max_length=MAX_LISTED)] = Field(
        [], description="none of these items"
    )
    attributes: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=256)],
            Annotated[list[Annotated[str, Field(max_length=1024)]], Field(min_length=1, max_length=256)],
        ],
        Field(max_length=16),
    ] = Field({}, description="per attribute, the values of which an item must have at least one")


QUERY_EXAMPLE: dict[str, Any] = {
    "user_id": 1,
    "model": "default",
    "k": 3,
    "filter": {"deny": [318], "attributes": {"genres": ["Drama", "Comedy"]}},
}
HISTORY_EXAMPLE: dict[str, Any] = {"history": [50, 181, 172], "k": 3}


class RecommendQuery(_Asked):
    """One question: for a user, or for whoever has this history."""

    user_id: Identifier | None = Field(None, description="who asks; an id nobody knows gets popular items")
    history: Annotated[list[Identifier], Field(max_length=MAX_HISTORY)] | None = Field(
        None, description="item ids, oldest first; replaces what the bundle knows of the user"
    )
    model: ModelName = "default"
    k: Annotated[int, Field(ge=1)] | None = Field(
        None, description="how many items; the service's default when absent"
    )
    filter: FilterBody | None = None
    exclude_seen: bool = Field(True, description="false lets items of the history be answered")


Budget = Annotated[
    float,
    Field(
        gt=0, allow_inf_nan=False, description="milliseconds; lowers the service's budget, never raises it"
    ),
]


class RecommendBody(RecommendQuery):
    """One question with its budget."""

    model_config = ConfigDict(json_schema_extra={"examples": [QUERY_EXAMPLE, HISTORY_EXAMPLE]})

    budget_ms: Budget | None = None


class BatchBody(_Asked):
    """Many questions under one budget, answered from one bundle. Each is judged by itself."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"queries": [QUERY_EXAMPLE, HISTORY_EXAMPLE]}]})

    queries: Annotated[
        list[Any],
        Field(min_length=1),
        WithJsonSchema(
            {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/RecommendQuery"}}
        ),
    ]
    budget_ms: Budget | None = None


class SimilarBody(_Asked):
    """Which items are like this one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item_id": 50, "model": "als", "k": 3}]})

    item_id: Identifier
    model: ModelName = "default"
    k: Annotated[int, Field(ge=1)] | None = Field(
        None, description="how many items; the service's default when absent"
    )


ANSWER_EXAMPLE: dict[str, Any] = {
    "request_id": "5f0c8a4e3d7b-1a",
    "bundle": "9b2f4c7d1a3e5f60",
    "model": "als",
    "treatments": {"ranking": "als"},
    "source": "personal",
    "degraded": [],
    "items": [
        {"item_id": 50, "score": 1.21, "source": "personal"},
        {"item_id": 181, "score": 1.13, "source": "personal"},
        {"item_id": 172, "score": 1.02, "source": "personal"},
    ],
    "timings_ms": {"retrieve": 0.041, "complete": 0.006},
}
PROBLEM_EXAMPLE: dict[str, Any] = {
    "type": "urn:reco:problem:invalid_request",
    "title": "The request is malformed",
    "status": 422,
    "detail": "body.k: Input should be greater than or equal to 1",
    "instance": "5f0c8a4e3d7b-1a",
    "errors": [
        {
            "loc": ["body", "k"],
            "msg": "Input should be greater than or equal to 1",
            "type": "greater_than_equal",
        }
    ],
}


class ItemAnswer(_Told):
    """One place of a slate."""

    item_id: Annotated[int | str, WithJsonSchema(ID_SCHEMA)]
    score: float | None = Field(description="comparable within one model only; null where it is not finite")
    source: Source
    found_by: list[str] = Field(
        [],
        description="models whose candidates had the item, where the model ranks those of several; else absent",
    )


class RecommendAnswer(_Told):
    """A slate, best first, and what made it."""

    model_config = ConfigDict(json_schema_extra={"examples": [ANSWER_EXAMPLE]})

    request_id: str
    bundle: str
    model: str = Field(description="the model that answered, by its real name")
    treatments: dict[str, str] = Field(
        {}, description="experiment -> the user's treatment; empty where they are in none"
    )
    source: Source
    degraded: list[str] = Field(
        description="stages that were skipped or overran; empty when the line ran whole"
    )
    items: list[ItemAnswer]
    timings_ms: dict[str, float]


class FaultBody(_Told):
    """One fault in a request."""

    loc: list[str | int]
    msg: str
    type: str


class Problem(_Told):
    """RFC 9457: why a request was not answered."""

    model_config = ConfigDict(json_schema_extra={"examples": [PROBLEM_EXAMPLE]})

    type: str = Field(description="stable name of the problem, a URI")
    title: str
    status: int
    detail: str
    instance: str = Field(description="the request's id")
    errors: list[FaultBody] | None = Field(None, description="every fault found, for 422")


class BatchResult(_Told):
    """One question's outcome: exactly one of the two is there."""

    answer: RecommendAnswer | None = None
    problem: Problem | None = None


class BatchAnswer(_Told):
    """The outcomes in the order of the questions."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "request_id": "5f0c8a4e3d7b-1a",
                    "bundle": "9b2f4c7d1a3e5f60",
                    "results": [{"answer": ANSWER_EXAMPLE}, {"problem": PROBLEM_EXAMPLE}],
                    "timings_ms": {"batch": 0.31},
                }
            ]
        }
    )

    request_id: str
    bundle: str
    results: list[BatchResult]
    timings_ms: dict[str, float]


class SimilarItem(_Told):
    """One neighbour."""

    item_id: Annotated[int | str, WithJsonSchema(ID_SCHEMA)]
    score: float | None


class SimilarAnswer(_Told):
    """Neighbours, nearest first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "request_id": "5f0c8a4e3d7b-1a",
                    "bundle": "9b2f4c7d1a3e5f60",
                    "model": "als",
                    "items": [{"item_id": 181, "score": 0.94}, {"item_id": 172, "score": 0.91}],
                    "timings_ms": {"similar": 0.3},
                }
            ]
        }
    )

    request_id: str
    bundle: str
    model: str
    items: list[SimilarItem]
    timings_ms: dict[str, float]


class RecallAnswer(_Told):
    """Share of exact search's best k that the retriever in use finds; 1 where retrieval is exact."""

    at_10: float
    at_100: float | None
    queries: int | None


class ModelAnswer(_Told):
    """One served model."""

    name: str
    kind: ModelKind
    default: bool
    dim: int | None
    space: Space | None
    retriever: RetrieverName | None = Field(
        description="how vectors are searched; null for kinds without vectors"
    )
    recall: RecallAnswer | None
    metrics: dict[str, float] = Field(description="measured offline when the bundle was built")


class ModelsAnswer(_Told):
    """What is served right now."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "request_id": "5f0c8a4e3d7b-1a",
                    "bundle": "9b2f4c7d1a3e5f60",
                    "created_at": "2026-01-31T12:00:00+00:00",
                    "default": "als",
                    "user_id_kind": "int64",
                    "item_id_kind": "int64",
                    "models": [
                        {
                            "name": "als",
                            "kind": "factors",
                            "default": True,
                            "dim": 64,
                            "space": "ip",
                            "retriever": "hnsw",
                            "recall": {"at_10": 0.994, "at_100": 0.989, "queries": 1000},
                            "metrics": {"ndcg@10": 0.12},
                        }
                    ],
                }
            ]
        }
    )

    request_id: str
    bundle: str
    created_at: str
    default: str
    user_id_kind: IdKind
    item_id_kind: IdKind
    models: list[ModelAnswer]
