"""`reco serve` starts, says where, and stops; or says in one line why it does not."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest
from factories import write_tiny_bundle
from served import Served, end, launch, served, wait_for

from service.bundle.store import ArtifactStore


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artifacts")
    write_tiny_bundle(root)
    return root


@pytest.fixture(scope="module")
def service(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(artifacts, tmp_path_factory.mktemp("run"), "--admin-port", "0") as running:
        yield running


def refusal(artifacts: Path, folder: Path, *flags: str, **env: str) -> tuple[int, str]:
    """Exit code and stderr of a start that must fail."""
    failing = launch(artifacts, folder, *flags, env=env)
    try:
        return failing.process.wait(30), failing.said
    finally:
        end(failing)


def test_the_ready_line_names_bundle_models_workers_and_a_request_that_works(
    service: Served, artifacts: Path
) -> None:
    (line,) = service.said.splitlines()
    assert (
        f"bundle {ArtifactStore(artifacts).current().name}, models als, ease, knn, lists, popular, 2 workers"
        in line
    )
    tried = httpx.get(line.rsplit(" ", 1)[1], headers=service.headers)
    assert tried.status_code == 200
    assert len(tried.json()["items"]) == 10


def test_as_many_workers_run_as_asked_for(service: Served) -> None:
    assert len(service.workers) == 2


def test_the_parent_runs_no_thread_that_a_fork_would_copy_in_mid_air(service: Served) -> None:
    assert len(list(Path(f"/proc/{service.process.pid}/task").iterdir())) == 1


def test_the_admin_port_has_metrics_and_health_and_the_main_port_no_metrics(service: Served) -> None:
    assert httpx.get(service.admin + "/health/ready").status_code == 200
    assert "reco_bundle_info" in httpx.get(service.admin + "/metrics").text
    assert service.get("/metrics").status_code == 404
    assert service.get("/health/ready").status_code == 200


def test_a_second_service_on_the_port_is_refused(service: Served, artifacts: Path, tmp_path: Path) -> None:
    code, said = refusal(artifacts, tmp_path, "--port", str(service.port))
    assert code == 2
    assert said == f"reco: cannot listen on 127.0.0.1:{service.port}: the port is in use\n"


def test_a_taken_admin_port_is_refused(artifacts: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = refusal(artifacts, tmp_path, "--admin-port", str(port))
    assert code == 2
    assert f"127.0.0.1:{port}: the port is in use" in said


def test_nothing_published_is_told(tmp_path: Path) -> None:
    code, said = refusal(tmp_path / "none", tmp_path)
    assert code == 2
    assert said.startswith("reco: nothing is published in ")
    assert len(said.splitlines()) == 1


def test_a_missing_token_is_told(artifacts: Path, tmp_path: Path) -> None:
    code, said = refusal(artifacts, tmp_path, RECO_TOKENS="")
    assert code == 2
    assert "there is no token" in said
    assert len(said.splitlines()) == 1


def test_a_damaged_bundle_is_refused_by_file_and_reason(artifacts: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(artifacts, damaged)
    file = next(damaged.glob("bundles/*/als/item_vectors.npy"))
    file.write_bytes(file.read_bytes()[:-1] + b"\x07")
    code, said = refusal(damaged, tmp_path)
    assert code == 3
    assert said.startswith("reco: bundle refused: als/item_vectors.npy: sha256 ")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_leaves_nothing_behind(
    artifacts: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with served(artifacts, tmp_path) as running:
        workers = running.workers
        assert [folder.name for folder in (tmp_path / "scratch").iterdir()] != []
        running.get("/reco/default/100")
        assert running.stop(number) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
        assert list((tmp_path / "scratch").iterdir()) == []
        assert len(running.said.splitlines()) == 1
        assert any(line.get("request_time") for line in running.log)
        with socket.socket() as freed:
            freed.bind((running.host, running.port))


def test_workers_do_not_outlive_a_killed_parent(artifacts: Path, tmp_path: Path) -> None:
    with served(artifacts, tmp_path) as running:
        workers = running.workers
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait(10)
        wait_for(lambda: not any(_alive(pid) for pid in workers), "the workers' end")


def test_one_process_serves_without_a_supervisor(artifacts: Path, tmp_path: Path) -> None:
    with served(artifacts, tmp_path, "--no-supervisor") as running:
        assert running.workers == set()
        assert running.get("/reco/default/100").status_code == 200
        assert running.counted("reco_requests_total") == {'{model="als",status="200"}': 1}
        assert running.stop() == 0


def test_flags_win_over_the_environment(artifacts: Path, tmp_path: Path) -> None:
    with served(artifacts, tmp_path, "--workers", "1", env={"RECO_WORKERS": "2", "RECO_K": "3"}) as running:
        assert len(running.workers) == 1
        assert len(orjson.loads(running.get("/reco/default/100").content)["items"]) == 3


def answering_pids(service: Served) -> set[int]:
    """Pids that have answered a request by now, after one more."""
    service.get("/reco/default/100")
    return {line["pid"] for line in service.log if "requested_url" in line} & service.workers


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_that_cannot_be_replaced_stops_nobody_until_no_worker_is_left(
    artifacts: Path, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    env = {"RECO_TOKENS": "", "RECO_TOKENS_FILE": str(tokens)}
    running = launch(artifacts, tmp_path, env=env, tokens_file=tokens)
    try:
        running.wait_ready()
        tokens.rename(tmp_path / "away")
        first = min(running.workers)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: running.said.count("cannot start: RECO_TOKENS_FILE") >= 6, "vain attempts")
        assert all(running.get("/reco/default/100").status_code == 200 for _ in range(20))
        (tmp_path / "away").rename(tokens)
        wait_for(lambda: len(running.workers) == 2 and first not in running.workers, "the successor")
        wait_for(lambda: answering_pids(running) == running.workers, "both to answer")
        tokens.unlink()
        for pid in running.workers:
            os.kill(pid, signal.SIGKILL)
        assert running.process.wait(30) == 1
        assert "workers died before they were ready: giving up" in running.said
        assert "Traceback" not in running.said
    finally:
        end(running)
