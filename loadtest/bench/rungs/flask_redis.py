"""A Flask service on gevent that keeps users' histories in Redis: two of its round trips a request, then the search.

`python -m loadtest.bench.rungs.flask_redis PORT SOCKET`: it starts a `redis-server` of its own on that unix socket.
`BENCH_TOKEN`: the token it lets in; see `nearest` for the rest.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time

from gevent import monkey

monkey.patch_all()

import redis  # noqa: E402 - sockets must be gevent's before it is imported
from flask import Flask, Response, abort, jsonify, request  # noqa: E402 - as above
from gevent.pywsgi import WSGIServer  # noqa: E402 - as above

from loadtest.bench.rungs.nearest import Nearest  # noqa: E402 - as above

_LAST = 10
app = Flask(__name__)
_nearest = Nearest()
_token = os.environ["BENCH_TOKEN"]
_history = redis.Redis(unix_socket_path=sys.argv[2])


@app.get("/")
def up() -> Response:
    """Say that it is up."""
    return jsonify({})


@app.get("/reco/<model_name>/<int:user_id>")
def recommend(model_name: str, user_id: int) -> Response:
    """Answer the nearest items of a known user, and note that they asked."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer" or not secrets.compare_digest(token, _token):
        abort(401)
    key = f"user:{user_id}:listens"
    _history.lpush(key, b'{"track": 1, "time": 1.0}')
    _history.ltrim(key, 0, _LAST - 1)
    items = _nearest.of(user_id)
    if items is None or model_name != os.environ["BENCH_MODEL"]:
        abort(404)
    return jsonify({"user_id": user_id, "items": items})


def main() -> None:
    """Start Redis, wait for it, serve."""
    words = ["redis-server", "--port", "0", "--unixsocket", sys.argv[2], "--save", "", "--appendonly", "no"]
    store = subprocess.Popen(words, stdout=subprocess.DEVNULL)  # noqa: S603 - of the PATH, as its users start it
    try:
        for _ in range(1000):
            try:
                _history.ping()
                break
            except redis.ConnectionError:
                time.sleep(0.01)
        listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=256)
        # An answer is written in two parts: without this the second waits for the client's acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        WSGIServer(listener, app, log=None).serve_forever()
    finally:
        store.terminate()
        store.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    main()
