"""The service people write: FastAPI, HTTPBearer, a pydantic answer, hnswlib over the vectors of the measured bundle.

No filter of seen items, no deadline, no metrics, no request id: it does less than `/reco`. `BENCH_TOKEN`: the token it
lets in; see `nearest` for the rest.
"""

from __future__ import annotations

import os
import secrets
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from loadtest.bench.rungs.nearest import Nearest

_token = os.environ["BENCH_TOKEN"]
_nearest = Nearest()

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
    items = _nearest.of(user_id)
    if items is None or model_name != os.environ["BENCH_MODEL"]:
        raise HTTPException(404)
    return RecoResponse(user_id=user_id, items=items)
