"""LitServe around the function: `python -m loadtest.bench.rungs.lit_serve PORT`. POST /predict {"user_id": …}."""

import sys
from typing import Any

import litserve  # type: ignore[import-not-found]  # a peer's, installed apart

from loadtest.bench.rungs.nearest import Nearest


class Reco(litserve.LitAPI):  # type: ignore[misc]  # not installed where types are checked
    """One worker, no batching."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe passes it
        """Build the index."""
        self._nearest = Nearest()

    def decode_request(self, request: dict[str, Any]) -> int:
        """Read the user."""
        return int(request["user_id"])

    def predict(self, user_id: int) -> dict[str, Any]:
        """Search."""
        return {"user_id": user_id, "items": self._nearest.of(user_id)}

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Answer."""
        return output


if __name__ == "__main__":
    litserve.LitServer(Reco(), accelerator="cpu", workers_per_device=1).run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="error",
        generate_client_file=False,
        num_api_servers=1,
    )
