"""Ray Serve around the search: `python -m loadtest.bench.rungs.ray_serve PORT`. POST /predict {"user_id": …}."""

from __future__ import annotations

import signal
import sys

import ray  # type: ignore[import-not-found]  # a peer's, installed apart
from ray import serve
from starlette.requests import Request

from loadtest.bench.rungs.nearest import Nearest


@serve.deployment(num_replicas=1, max_ongoing_requests=100, logging_config={"enable_access_log": False})
class Reco:
    """Answers the nearest items of a known user."""

    def __init__(self) -> None:
        self._nearest = Nearest()

    async def __call__(self, request: Request) -> dict[str, object]:
        """Answer; a GET is told that it is up."""
        if request.method == "GET":
            return {}
        user_id = int((await request.json())["user_id"])
        return {"user_id": user_id, "items": self._nearest.of(user_id)}


def main() -> None:
    """Serve until told to stop."""
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Reco.bind(), route_prefix="/")  # type: ignore[attr-defined]  # its decorator adds it
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
