"""BentoML around the function: `bentoml serve loadtest.bench.rungs.bento_ml:Reco`. POST /predict {"user_id": …}."""

from typing import Any

import bentoml  # type: ignore[import-not-found]  # a peer's, installed apart

from loadtest.bench.rungs.nearest import Nearest


@bentoml.service(workers=1)
class Reco:
    """One worker, no batching."""

    def __init__(self) -> None:
        self._nearest = Nearest()

    @bentoml.api(route="/predict")  # type: ignore[untyped-decorator]  # as above
    def predict(self, user_id: int) -> dict[str, Any]:
        """Search."""
        return {"user_id": user_id, "items": self._nearest.of(user_id)}
