"""The service people write: FastAPI, HTTPBearer, a pydantic answer, hnswlib over the vectors of the measured bundle.

No filter of seen items, no deadline, no metrics, no request id: it does less than `/reco`. `BENCH_BUNDLE`: the
bundle's folder; `BENCH_MODEL`: its model; `BENCH_TOKEN`: the token it lets in.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated

import hnswlib
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from loadtest.bench.vectors import read_vectors

K = 10
EF = 64

_token = os.environ["BENCH_TOKEN"]
_vectors = read_vectors(Path(os.environ["BENCH_BUNDLE"]), os.environ["BENCH_MODEL"])
_row_of = {int(user): row for row, user in enumerate(_vectors.user_ids)}
_index = hnswlib.Index(space=_vectors.space, dim=_vectors.items.shape[1])
_index.init_index(len(_vectors.items), M=16, ef_construction=200, random_seed=1)
_index.add_items(_vectors.items, _vectors.item_ids, num_threads=1)
_index.set_ef(EF)
_index.set_num_threads(1)

app = FastAPI()
_bearer = HTTPBearer()


class RecoResponse(BaseModel):
    """The answer."""

    user_id: int
    items: list[int]


def authorize(credentials: Annotated[HTTPAuthorizationCredentials, Depends(_bearer)]) -> None:
    """Let the token's holder in. Raises HTTPException."""
    if not secrets.compare_digest(credentials.credentials, _token):
        raise HTTPException(401)


@app.get("/reco/{model_name}/{user_id}", response_model=RecoResponse, dependencies=[Depends(authorize)])
async def recommend(model_name: str, user_id: int) -> RecoResponse:
    """Answer the nearest items of a known user. Raises HTTPException for another model or user."""
    row = _row_of.get(user_id)
    if row is None or model_name != os.environ["BENCH_MODEL"]:
        raise HTTPException(404)
    labels, _ = _index.knn_query(_vectors.users[row], k=K)
    return RecoResponse(user_id=user_id, items=labels[0].tolist())
