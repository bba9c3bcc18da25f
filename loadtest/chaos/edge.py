"""The shipped edge proxy, run for a harness: deploy/nginx/nginx.conf with its addresses and folders put in place."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from loadtest.chaos.service import PATIENCE_S, Unkept

CONF = Path(__file__).resolve().parents[2] / "deploy" / "nginx" / "nginx.conf"
_SCRATCH = re.compile(r"(?<= )/\w+/nginx(?=[-.])")
"""Where its process id and what it buffers are kept."""
HOW_TO = "nginx is not installed: apt-get install nginx-light"


def find_nginx() -> str | None:
    """Where nginx is; None where there is none."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def rendered(folder: Path, port: int, service: tuple[str, int], *, at_once: int | None = None) -> Path:
    """Write the configuration for one run. `at_once`: how many requests may be at the service."""
    text = CONF.read_text(encoding="utf-8")
    changes = [
        ("server reco:8080 ", f"server {service[0]}:{service[1]} "),
        ("listen 8000 ", f"listen 127.0.0.1:{port} "),
        ("worker_processes auto;", "worker_processes 1;\ndaemon off;"),
        ("worker_rlimit_nofile 65536;", ""),
    ]
    if at_once is not None:
        changes.append(("at_the_service 64;", f"at_the_service {at_once};"))
    for old, new in changes:
        if old not in text:
            raise Unkept(f"{CONF} has no {old!r} any more")
        text = text.replace(old, new)
    text = _SCRATCH.sub(lambda _: f"{folder}/nginx", text)
    path = folder / "nginx.conf"
    path.write_text(text, encoding="utf-8")
    return path


@contextlib.contextmanager
def edge(folder: Path, service: tuple[str, int], *, at_once: int | None = None) -> Iterator[tuple[str, int]]:
    """Run nginx before a service until the block ends; gives its address. Raises Unkept where it can't be run."""
    program = find_nginx()
    if program is None:
        raise Unkept(HOW_TO)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    conf = rendered(folder, port, service, at_once=at_once)
    said = folder / "nginx-stderr"
    with said.open("wb") as stderr:
        process = subprocess.Popen([program, "-p", folder, "-c", conf, "-e", "stderr"], stderr=stderr)  # noqa: S603 - nginx
    try:
        until = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise Unkept(f"nginx did not start: {said.read_text(errors='replace')}")
            time.sleep(0.02)
        yield "127.0.0.1", port
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
