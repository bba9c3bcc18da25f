"""A new bundle is loaded beside the workers, which are then succeeded: no connection, memory or history is lost."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from asking import COLD, WARM, asked, report
from factories import tiny_dataset, trained_models, write_tiny_bundle
from served import PATIENCE_S, Load, Served, comm, served, wait_for

from models.build.assemble import assemble
from models.trained import TrainedModel
from service.bundle.store import ArtifactStore

ASK = b"GET /reco/als/100 HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer %b\r\n\r\n"


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, list[str]]:
    """A store of two bundles that answer otherwise; the first is published."""
    root = tmp_path / "artifacts"
    ids = []
    for seed in (7, 8):
        data = tiny_dataset(seed=seed)
        made = write_tiny_bundle(
            root, dataset=data, models=trained_models(data, seed=seed), publish=seed == 7
        )
        ids.append(made.name)
    return root, ids


@pytest.fixture
def service(two: tuple[Path, list[str]], tmp_path: Path) -> Iterator[Served]:
    with served(two[0], tmp_path) as running:
        yield running


def attempts(service: Served, result: str) -> float:
    return service.counted("reco_reload_total").get(f'{{result="{result}"}}', 0)


def reload(service: Served, root: Path, bundle_id: str) -> None:
    """Publish, and wait until no other bundle answers."""
    before = attempts(service, "ok")
    ArtifactStore(root).publish(bundle_id)
    wait_for(lambda: attempts(service, "ok") == before + 1, "the reload")


class Client:
    """One connection, kept, seen byte by byte."""

    def __init__(self, service: Served, stack: contextlib.ExitStack) -> None:
        self.request = ASK % service.token.encode()
        connection = socket.create_connection((service.host, service.port), timeout=PATIENCE_S)
        self.socket = stack.enter_context(connection)
        self.bundle = ""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def head(self) -> str:
        """The next answer's head; its body is read too."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]  # no match is a failed test
        while len(body) < length:
            body += self._more()
        assert head.startswith(b"HTTP/1.1 200"), head
        text = head.decode().lower()
        self.bundle = re.search(r"x-reco-bundle: (\w+)", text)[1]  # type: ignore[index]  # as above
        return text

    def _more(self) -> bytes:
        data = self.socket.recv(65536)
        assert data, "the connection was closed"
        return data


@pytest.fixture
def connect(service: Served) -> Iterator[Callable[[], Client]]:
    """Makes clients of the service, closed in the end."""
    with contextlib.ExitStack() as stack:
        yield lambda: Client(service, stack)


def test_connections_outlive_the_worker_that_accepted_them(
    two: tuple[Path, list[str]], service: Served, connect: Callable[[], Client]
) -> None:
    root, ids = two
    used, fresh = [connect() for _ in range(8)], [connect() for _ in range(4)]
    for client in used:
        client.send(client.request)
        client.head()
        assert client.bundle == ids[0]
    first = service.workers
    for wanted in (ids[1], ids[0], ids[1]):
        reload(service, root, wanted)
        for client in used:
            client.send(client.request)
            assert "connection: close" not in client.head()
            assert client.bundle == wanted
    wait_for(lambda: service.workers.isdisjoint(first), "the first workers' end")
    for client in fresh:
        client.send(client.request)
        client.head()
        assert client.bundle == ids[1]
    assert service.said.count("ended by") == 0


def test_a_request_under_way_is_answered_by_whom_it_came_to(
    two: tuple[Path, list[str]], service: Served, connect: Callable[[], Client]
) -> None:
    root, ids = two
    begun, behind = connect(), connect()
    begun.send(begun.request[:30])
    # Half a request in the packet of a whole one: the connection is not at rest, though its answer was given.
    behind.send(behind.request + behind.request[:30])
    behind.head()
    reload(service, root, ids[1])
    for client in (begun, behind):
        client.send(client.request[30:])
        assert "connection: close" in client.head()
        assert client.bundle == ids[0]
        assert client.socket.recv(1) == b""


async def test_a_stop_in_the_middle_of_a_reload_loses_nothing(
    two: tuple[Path, list[str]], tmp_path: Path
) -> None:
    root, ids = two
    for trial in range(4):
        ArtifactStore(root).publish(ids[0])
        with served(root, tmp_path / str(trial)) as service:
            load = Load(service, [100, 103, 106])
            async with load.running():
                await load.answered(100)
                ArtifactStore(root).publish(ids[1])
                await load.until(lambda: len(service.workers) > 2 or len(service.loaders) > 1, "the reload")
                if trial % 2:
                    await load.until(lambda: len(service.workers) > 2, "a successor")
                service.process.send_signal(signal.SIGTERM)
                await load.until(lambda: service.process.poll() is not None, "the end")
            assert service.process.returncode == 0
        assert load.lost == []
        assert set(load.outcomes) <= {"200", "refused"}


async def test_workers_that_die_in_the_middle_of_a_reload_are_replaced(
    two: tuple[Path, list[str]], service: Served
) -> None:
    root, ids = two
    load = Load(service, [100, 103, 106])
    kills = 0
    async with load.running():
        for number in range(6):
            before = attempts(service, "ok")
            ArtifactStore(root).publish(ids[(number + 1) % 2])
            await load.until(lambda: len(service.workers) > 2, "a successor")
            for victim in sorted(service.workers)[: 1 + number % 2]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
                    kills += 1
            await load.until(lambda before=before: attempts(service, "ok") == before + 1, "the reload")
            await load.until(lambda: len(service.workers) == 2, "both workers")
            bundles = {service.get("/reco/als/100").headers["x-reco-bundle"] for _ in range(12)}
            assert bundles == {ids[(number + 1) % 2]}
    assert set(load.outcomes) <= {"200", "lost"}
    assert load.outcomes["lost"] <= kills * load.clients


def coming_loader(service: Served, known: set[int]) -> int:
    """The loader of a bundle that was published just now, stopped in the middle of its work."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        for pid in service.children() - known:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if not loads(pid):
                    continue
                os.kill(pid, signal.SIGSTOP)
                if loads(pid):
                    return pid
                os.kill(pid, signal.SIGCONT)
    raise AssertionError("waited in vain for a loader")


def loads(pid: int) -> bool:
    """Whether a loader's second thread runs."""
    return comm(pid) == "reco-loader" and len(list(Path(f"/proc/{pid}/task").iterdir())) == 2


def test_a_loader_that_dies_costs_only_the_reload(two: tuple[Path, list[str]], service: Served) -> None:
    root, ids = two
    wait_for(lambda: len(service.loaders) == 1 and len(service.workers) == 2, "two workers and their loader")
    serving = service.loaders
    ArtifactStore(root).publish(ids[1])
    os.kill(coming_loader(service, serving), signal.SIGKILL)
    wait_for(lambda: attempts(service, "failed") == 1, "the failure")
    (line,) = [line for line in service.log if "cannot be taken up" in line.get("message", "")]
    assert line["reason"] == f"loading bundle {ids[1]} went wrong: signal SIGKILL"
    assert line["serving"] == ids[0]
    assert service.get("/health/ready").status_code == 200
    service.process.send_signal(signal.SIGHUP)  # left until the pointer changes, or somebody asks
    wait_for(lambda: attempts(service, "ok") == 1, "the reload")
    assert service.stop() == 0


def test_a_loader_that_hangs_is_given_up(two: tuple[Path, list[str]], tmp_path: Path) -> None:
    root, ids = two
    with served(root, tmp_path, env={"RECO_RELOAD_LIMIT_S": "2"}) as service:
        wait_for(
            lambda: len(service.loaders) == 1 and len(service.workers) == 2, "two workers and their loader"
        )
        serving = service.loaders
        ArtifactStore(root).publish(ids[1])
        patient = coming_loader(service, serving)
        second = coming_loader(service, serving | {patient})  # with a higher priority
        wait_for(lambda: attempts(service, "failed") == 1, "the failure")
        wait_for(lambda: service.children().isdisjoint({patient, second}), "their end")
        assert "was not loaded within 2 seconds (RECO_RELOAD_LIMIT_S)" in str(service.log)
        assert service.get("/reco/als/100").headers["x-reco-bundle"] == ids[0]
        ArtifactStore(root).publish(ids[0])
        wait_for(lambda: attempts(service, "unchanged") == 1, "the way back")


def test_a_loader_that_gets_no_processor_is_tried_again_with_a_share(
    two: tuple[Path, list[str]], tmp_path: Path
) -> None:
    root, ids = two
    with served(root, tmp_path, env={"RECO_RELOAD_LIMIT_S": "5"}) as service:
        wait_for(lambda: len(service.loaders) == 1 and len(service.workers) == 2, "two workers")
        serving = service.loaders
        ArtifactStore(root).publish(ids[1])
        coming_loader(service, serving)
        wait_for(lambda: attempts(service, "ok") == 1, "the reload")
        assert service.get("/reco/als/100").headers["x-reco-bundle"] == ids[1]


def test_another_takes_the_place_of_a_dead_loader(two: tuple[Path, list[str]], service: Served) -> None:
    root, ids = two
    reload(service, root, ids[1])
    ArtifactStore(root).pointer.unlink()  # what serves is loaded again, whatever is published
    wait_for(lambda: attempts(service, "failed") == 1, "it to be noticed")
    (dead,) = wait_for(lambda: len(service.loaders) == 1 and service.loaders, "one loader")
    before = service.workers
    os.kill(dead, signal.SIGKILL)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(service.workers - {victim}) == 2, "the successor")
    assert before - {victim} <= service.workers
    assert {service.get("/reco/als/100").headers["x-reco-bundle"] for _ in range(12)} == {ids[1]}


def test_successors_that_cannot_start_leave_the_old_ones_serving(
    two: tuple[Path, list[str]], tmp_path: Path
) -> None:
    root, ids = two
    tokens = tmp_path / "tokens"
    tokens.write_text(f"file:{secrets.token_hex(24)}\n")
    with served(root, tmp_path, env={"RECO_TOKENS_FILE": str(tokens)}) as service:
        text = tokens.read_text()
        tokens.unlink()
        ArtifactStore(root).publish(ids[1])
        wait_for(lambda: attempts(service, "failed") == 1, "the failure")
        assert "its workers die before they are ready" in str(service.log)
        assert "cannot start" in service.said
        assert {service.get("/reco/als/100").headers["x-reco-bundle"] for _ in range(12)} == {ids[0]}
        tokens.write_text(text)
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: attempts(service, "ok") == 1, "the reload")


def private_bytes(pid: int) -> int:
    """Memory that belongs to this process alone."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith("Private_")) << 10


def test_workers_share_what_was_loaded_for_them_also_after_a_reload(
    two: tuple[Path, list[str]], tmp_path: Path
) -> None:
    root, ids = two
    data = tiny_dataset(n_items=800)
    chance = np.random.default_rng(1)
    vectors = TrainedModel(
        "factors",
        {
            "item_rows": np.arange(800, dtype=np.int32),
            "item_vectors": chance.standard_normal((800, 4096), np.float32),
            "user_rows": np.arange(60, dtype=np.int32),
            "user_vectors": chance.standard_normal((60, 4096), np.float32),
        },
        space="ip",
        parameters={"fold_in": {"regularization": 0.1, "alpha": 2.0}},
    )
    popular = trained_models(data)["popular"]
    large = assemble(root, data, {"popular": popular, "als": vectors}, default_model="als", index="hnsw").path
    graph = (large / "als" / "index.hnsw").stat().st_size
    with served(root, tmp_path, "--retriever", "hnsw") as service:
        wait_for(lambda: len(service.workers) == 2, "both workers")
        before = max(private_bytes(pid) for pid in service.workers)
        for wanted in (large.name, ids[1], large.name):
            reload(service, root, wanted)
        wait_for(lambda: len(service.workers) == 2, "the old workers' end")
        after = max(private_bytes(pid) for pid in service.workers)
        assert after - before < graph / 4


@pytest.mark.parametrize("kept_in", ["memory", "sqlite"])
def test_a_history_is_known_after_a_reload(two: tuple[Path, list[str]], tmp_path: Path, kept_in: str) -> None:
    root, ids = two
    env = {"RECO_HISTORY": kept_in, "RECO_EVENTS_DIR": str(tmp_path / "events")}
    if kept_in == "sqlite":
        env["RECO_HISTORY_PATH"] = str(tmp_path / "history.sqlite")
    with served(root, tmp_path, "--workers", "1" if kept_in == "memory" else "2", env=env) as service:
        seen: list[int] = []
        with httpx.Client(base_url=service.url, headers=service.headers, timeout=PATIENCE_S) as kept:
            for wanted in (ids[1], ids[0], ids[1], ids[0]):
                for user in (WARM, COLD):
                    item = asked(service, user)[0][0]
                    report(service, user, item)
                    seen.append(item)
                reload(service, root, wanted)
                for _ in range(4):
                    for user, theirs in ((WARM, seen[::2]), (COLD, seen[1::2])):
                        items, _, lacks = asked(service, user)
                        assert lacks is None
                        assert set(theirs).isdisjoint(items)
                answer = kept.get(f"/reco/als/{WARM}")
                assert answer.headers["x-reco-bundle"] == wanted
                assert set(seen[::2]).isdisjoint(answer.json()["items"])
