"""A small recommender that speaks botify's protocol on a real port, and remembers what it was told."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Rule = Callable[[int, list[int]], Any]
"""(user, tracks heard of this user so far, the newest last) -> the next track."""


@dataclass
class Botify:
    """What a server heard: for each user (message, track, time) in order."""

    url: str
    heard: dict[int, list[tuple[str, int, float]]] = field(default_factory=lambda: defaultdict(list))
    connections: int = 0


@contextlib.contextmanager
def botify_server(rule: Rule, *, status: int = 200, close_each: bool = False) -> Iterator[Botify]:
    """Serve until the block ends. `status`: of each answer. `close_each`: hang up after each answer."""
    botify = Botify("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            botify.connections += 1

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by the base class
            pass

        def do_GET(self) -> None:
            self._answer({"status": "alive", "message": "welcome to botify, the best toy music recommender"})

        def do_POST(self) -> None:
            _, message, user_text = self.path.split("/")
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            user = int(user_text)
            botify.heard[user].append((message, body["track"], body["time"]))
            if message == "last":
                self._answer({"user": user})
            else:
                self._answer(
                    {"user": user, "track": rule(user, [track for _, track, _ in botify.heard[user]])}
                )

        def _answer(self, body: dict[str, Any]) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)
            self.close_connection = close_each

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        botify.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield botify
        finally:
            server.shutdown()
            thread.join()
