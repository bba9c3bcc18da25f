"""Servers that are not plain uvicorn: nginx, Flask, LitServe, BentoML, Ray. What is not installed is left out."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.rungs import CONSTANT

REPOSITORY = Path(__file__).resolve().parents[2]
_NGINX = """
worker_processes 1;
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  server {{
    listen 127.0.0.1:{port};
    location / {{ default_type application/json; return 200 '{body}'; }}
  }}
}}
"""
_VENV = "python -m venv V && V/bin/pip install {package} hnswlib numpy, then set {variable}=V/bin/python"


@dataclass(frozen=True, slots=True)
class Peer:
    """A server's command, and the port it will listen on."""

    command: list[str]
    port: int


PEERS = ("nginx", "flask", "litserve", "bentoml", "ray")
_PACKAGES = {"ray": "'ray[serve]'"}


def find_peer(name: str, folder: Path) -> Peer | str:
    """How to start one; or, where it is not installed, how to get it. `folder`: for what it writes."""
    port = _free_port()
    if name == "nginx":
        program = shutil.which(
            "nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
        )
        if program is None:
            return "apt-get install nginx, or brew install nginx"
        configuration = folder / "nginx.conf"
        configuration.write_text(_NGINX.format(folder=folder, port=port, body=CONSTANT.decode()))
        return Peer([program, "-p", str(folder), "-c", str(configuration)], port)
    if name == "flask":
        if shutil.which("redis-server") is None:
            return "apt-get install redis-server, or brew install redis"
        return Peer(
            [sys.executable, "-m", "loadtest.bench.rungs.flask_redis", str(port), str(folder / "redis.sock")],
            port,
        )
    variable = f"BENCH_{name.upper()}"
    python = os.environ.get(variable, sys.executable)
    found = subprocess.run(  # noqa: S603 - a Python that the caller named
        [python, "-c", f"import hnswlib, numpy, {name}"], capture_output=True, check=False
    )
    if found.returncode != 0:
        return _VENV.format(package=_PACKAGES.get(name, name), variable=variable)
    if name in {"litserve", "ray"}:
        module = {"litserve": "lit_serve", "ray": "ray_serve"}[name]
        return Peer([python, "-m", f"loadtest.bench.rungs.{module}", str(port)], port)
    words = ["serve", "loadtest.bench.rungs.bento_ml:Reco", "--host", "127.0.0.1", "--port", str(port)]
    return Peer([python, "-m", "bentoml", *words, "--working-dir", str(REPOSITORY)], port)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
