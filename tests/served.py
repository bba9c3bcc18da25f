"""The real `reco serve` as a subprocess, and a raw client that sees what becomes of every request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

RECO = Path(sys.executable).with_name("reco")
PATIENCE_S = 30.0
_URL = re.compile(r"ready on http://([\d.]+):(\d+)(?: \(admin on (http://[\d.:]+)\))?")


def comm(pid: int) -> str:
    """What `ps` calls a process; nothing where it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def wait_for(condition: Any, what: str) -> Any:
    """Poll until `condition()` is true; return what it returned."""
    until = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < until, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


@dataclass
class Served:
    """A running service."""

    process: subprocess.Popen[bytes]
    folder: Path
    token: str
    host: str = ""
    port: int = 0
    admin: str = ""

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def said(self) -> str:
        return (self.folder / "stderr").read_text()

    @property
    def log(self) -> list[dict[str, Any]]:
        lines = (self.folder / "stdout").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def workers(self) -> set[int]:
        """Pids of the workers."""
        return self.children("reco-worker")

    @property
    def loaders(self) -> set[int]:
        """Pids of the processes that loaded a bundle, or are about to."""
        return self.children("reco-loader")

    def children(self, name: str = "") -> set[int]:
        """Pids of the parent's children of that name; of all, without one."""
        pid = self.process.pid
        found = set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
        return {one for one in found if not name or comm(one) == name}

    def get(self, path: str) -> httpx.Response:
        """One request over a connection of its own."""
        return httpx.get(self.url + path, headers=self.headers, timeout=PATIENCE_S)

    def counted(self, metric: str) -> dict[str, float]:
        """Scrape: labels -> value of one metric."""
        text = httpx.get((self.admin or self.url) + "/metrics", timeout=PATIENCE_S).text
        rows = (
            line.rsplit(" ", 1) for line in text.splitlines() if line.startswith((metric + "{", metric + " "))
        )
        return {name.removeprefix(metric): float(value) for name, value in rows}

    def wait_ready(self) -> None:
        def ready() -> re.Match[str] | None:
            assert self.process.poll() is None, self.said
            return _URL.search(self.said)

        found = wait_for(ready, "the ready line")
        self.host, self.port, self.admin = found[1], int(found[2]), found[3] or ""
        wait_for(lambda: self.get("/health/ready").status_code == 200, "readiness")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the parent and wait; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextlib.contextmanager
def served(
    artifacts: Path, folder: Path, *flags: str, env: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """Run `reco serve` until the block ends; nothing of it outlives the block."""
    folder.mkdir(parents=True, exist_ok=True)
    service = launch(artifacts, folder, *flags, env=env)
    try:
        service.wait_ready()
        yield service
    finally:
        end(service)


def launch(
    artifacts: Path,
    folder: Path,
    *flags: str,
    env: Mapping[str, str] | None = None,
    tokens_file: Path | None = None,
) -> Served:
    """Start the process; `RECO_*` of this shell are not handed on. `tokens_file`: also write its token there."""
    token = secrets.token_hex(24)
    if tokens_file is not None:
        tokens_file.write_text(f"tests:{token}\n")
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("RECO_", "PROMETHEUS_"))
    }
    settings = {"RECO_TOKENS": f"tests:{token}", "RECO_DRAIN_WAIT_S": "0.1", "RECO_RELOAD_POLL_S": "0.05"}
    settings["RECO_BUDGET_MS"] = "10000"  # a busy machine must not change answers
    scratch = folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(
            [RECO, "serve", "--artifacts", artifacts, "--port", "0", "--workers", "2", *flags],
            cwd=folder,
            env={**clean, **settings, "TMPDIR": str(scratch), **(env or {})},
            stdout=stdout,
            stderr=stderr,
        )
    return Served(process, folder, token)


def end(service: Served) -> None:
    """Kill what still runs, by pid."""
    if service.process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            for pid in service.children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        service.process.kill()
    service.process.wait(PATIENCE_S)


@dataclass
class Load:
    """Clients on keep-alive connections that ask again and again, each waiting a little in between.

    Every request ends as one of: a status; `lost` (it was sent, and its connection ended without a whole answer);
    `refused` (its connection could not be made, so nothing was sent).
    """

    service: Served
    users: list[int]
    clients: int = 16
    think_s: float = 0.004
    outcomes: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    answers: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    """(bundle, user, body) -> how often."""
    stopping: bool = False

    @property
    def sent(self) -> int:
        return sum(count for outcome, count in self.outcomes.items() if outcome != "refused")

    @contextlib.asynccontextmanager
    async def running(self) -> Any:
        """Load the service while the block runs; then let every client finish its last request."""
        tasks = [asyncio.create_task(self._client(number)) for number in range(self.clients)]
        try:
            yield self
        finally:
            self.stopping = True
            await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE_S)

    async def until(self, condition: Any, what: str) -> None:
        """Wait while the load goes on."""
        end_at = time.monotonic() + PATIENCE_S
        while not await asyncio.to_thread(condition):
            assert time.monotonic() < end_at, f"waited in vain for {what}: {self.outcomes}"
            await asyncio.sleep(0.01)

    async def answered(self, more: int) -> None:
        """Wait for so many answers more."""
        goal = self.outcomes["200"] + more
        await self.until(lambda: self.outcomes["200"] >= goal, f"{more} answers")

    async def _client(self, number: int) -> None:
        chance = random.Random(number)
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        asked = 0
        while not self.stopping:
            if connection is None:
                try:
                    connection = await asyncio.open_connection(self.service.host, self.service.port)
                except OSError:
                    self.outcomes["refused"] += 1
                    await asyncio.sleep(0.02)
                    continue
                asked = 0
            reader, writer = connection
            if reader.at_eof():  # closed while we had nothing to ask: as any client, take a new one
                writer.close()
                connection = None
                continue
            user = chance.choice(self.users)
            outcome, keep = await self._ask(reader, writer, user, asked)
            asked += 1
            self.outcomes[outcome] += 1
            if not keep:
                writer.close()
                connection = None
            await asyncio.sleep(chance.uniform(0, 2 * self.think_s))
        if connection is not None:
            connection[1].close()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, user: int, asked: int
    ) -> tuple[str, bool]:
        request = f"GET /reco/als/{user} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {self.service.token}\r\n\r\n"
        try:
            writer.write(request.encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(re.search(r"content-length: (\d+)", head)[1])  # type: ignore[index]  # no match is a failed test
            body = (await reader.readexactly(length)).decode()
        except (OSError, asyncio.IncompleteReadError) as error:
            self.lost.append(f"request {asked} of its connection: {error!r}")
            return "lost", False
        status = head.split(" ", 2)[1]
        if status == "200":
            self.answers[re.search(r"x-reco-bundle: (\w+)", head)[1], user, body] += 1  # type: ignore[index]  # as above
        return status, "connection: close" not in head
