"""What happens to requests while workers stop, wear out, die, and take up new bundles. None may be lost."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle
from served import Load, Served, served, wait_for

from service.bundle.store import ArtifactStore

USERS = list(range(100, 250, 3))
STOPS = 4
RELOADS = 8


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artifacts")
    write_tiny_bundle(root)
    return root


@pytest.fixture
def two_bundles(tmp_path: Path) -> tuple[Path, list[str]]:
    """A store of two bundles whose models answer otherwise; the first is published."""
    root = tmp_path / "two"
    ids = []
    for seed in (7, 8):
        data = tiny_dataset(seed=seed)
        ids.append(
            write_tiny_bundle(
                root, dataset=data, models=trained_models(data, seed=seed), publish=seed == 7
            ).name
        )
    return root, ids


@pytest.fixture
def service(artifacts: Path, tmp_path: Path) -> Iterator[Served]:
    with served(artifacts, tmp_path) as running:
        yield running


def replaced(service: Served, gone: set[int]) -> bool:
    """Whether two workers run that are all ready, none of them among the gone."""
    return len(service.workers - gone) == 2 and service.workers.isdisjoint(gone)


@pytest.mark.parametrize("trial", range(STOPS))
async def test_a_stop_loses_no_request(artifacts: Path, tmp_path: Path, trial: int) -> None:
    with served(artifacts, tmp_path, env={"RECO_DRAIN_WAIT_S": "0.3" if trial % 2 else "0"}) as service:
        load = Load(service, USERS)
        async with load.running():
            await load.answered(300 + 50 * trial)
            service.process.send_signal(signal.SIGTERM)
            await load.until(lambda: service.process.poll() is not None, "the end")
        assert service.process.returncode == 0
    assert load.lost == []
    assert set(load.outcomes) <= {"200", "refused"}


async def test_a_draining_service_is_unready_and_closes_connections(artifacts: Path, tmp_path: Path) -> None:
    with served(artifacts, tmp_path, env={"RECO_DRAIN_WAIT_S": "20"}) as service:
        service.process.send_signal(signal.SIGTERM)
        wait_for(lambda: service.get("/health/ready").status_code == 503, "unreadiness")
        assert service.get("/health/ready").json()["reason"] == "draining"
        assert service.get("/health/live").status_code == 200
        answer = service.get("/reco/als/100")
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
        # The second Ctrl-C does not wait.
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(10) == 1


async def test_worn_workers_are_replaced_without_a_lost_or_refused_request(
    artifacts: Path, tmp_path: Path
) -> None:
    with served(artifacts, tmp_path, env={"RECO_MAX_REQUESTS": "400"}) as service:
        load = Load(service, USERS, clients=32, think_s=0)
        seen = set(service.workers)
        async with load.running():
            while len(seen) < 10:
                await load.answered(50)
                seen |= service.workers
        # Answers to the helper's own readiness polls are no /reco requests.
        assert set(load.outcomes) == {"200"}
        assert sum(service.counted("reco_requests_total").values()) == load.outcomes["200"]
        assert service.said.count("ended by") == 0
        assert service.stop() == 0


async def test_a_killed_worker_costs_only_what_it_was_answering(service: Served) -> None:
    load = Load(service, USERS)
    gone: set[int] = set()
    kills = 4
    async with load.running():
        for _ in range(kills):
            await load.answered(100)
            victim = min(service.workers)
            os.kill(victim, signal.SIGKILL)
            gone.add(victim)
            await load.until(lambda: replaced(service, gone), "the successor")
        await load.answered(300)
    assert load.outcomes["refused"] == 0
    assert set(load.outcomes) <= {"200", "lost"}
    assert load.outcomes["lost"] <= kills * load.clients
    assert service.said.count("ended by signal SIGKILL; replacing it") == kills


def test_counts_are_summed_over_workers_and_outlive_them(service: Served) -> None:
    def answered_by() -> set[int]:
        return {line["pid"] for line in service.log if "/reco/" in line.get("requested_url", "")}

    asked = 0

    def ask_until(done: object) -> None:
        nonlocal asked
        assert callable(done)
        while not done():
            for _ in range(10):
                assert service.get("/reco/als/100").status_code == 200
                asked += 1
            assert asked < 2000

    ask_until(lambda: answered_by() == service.workers)
    assert service.counted("reco_requests_total") == {'{model="als",status="200"}': asked}
    victim = min(service.workers)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: replaced(service, {victim}), "the successor")
    ask_until(lambda: answered_by() >= service.workers)
    assert service.counted("reco_requests_total") == {'{model="als",status="200"}': asked}
    (count,) = (
        value
        for labels, value in service.counted("reco_request_duration_seconds_count").items()
        if 'model="als"' in labels
    )
    assert count == asked


async def test_reloads_lose_nothing_and_mix_nothing(
    two_bundles: tuple[Path, list[str]], tmp_path: Path
) -> None:
    root, ids = two_bundles
    store = ArtifactStore(root)
    corrupt = corrupt_copy(store, ids[1])
    with served(root, tmp_path) as service:
        load = Load(service, USERS)
        tried = 0
        async with load.running():
            for number in range(RELOADS):
                if number % 4 == 3:
                    point_to(store, corrupt)
                else:
                    store.publish(ids[(number + 1) % 2])
                tried += 1
                await load.until(
                    lambda wanted=tried: sum(attempts(service).values()) == wanted, f"attempt {tried}"
                )
                await load.answered(50)
        assert set(load.outcomes) == {"200"}
        bodies: dict[tuple[str, int], set[str]] = {}
        for bundle, user, body in load.answers:
            bodies.setdefault((bundle, user), set()).add(body)
        assert {bundle for bundle, _ in bodies} == set(ids)
        assert all(len(different) == 1 for different in bodies.values())
        assert any(
            bodies[ids[0], user] != bodies.get((ids[1], user)) for user in USERS if (ids[0], user) in bodies
        )
        assert attempts(service)["refused"] == RELOADS // 4
        refusals = [line for line in service.log if "is refused" in line.get("message", "")]
        assert len(refusals) == RELOADS // 4
        assert all("als/item_vectors.npy: sha256" in line["reason"] for line in refusals)
        assert all(line["serving"] in ids for line in refusals)
        assert service.stop() == 0


def test_a_hangup_looks_at_once_and_a_dead_workers_successor_serves_what_its_siblings_do(
    two_bundles: tuple[Path, list[str]], tmp_path: Path
) -> None:
    root, ids = two_bundles
    with served(root, tmp_path, env={"RECO_RELOAD_POLL_S": "3600"}) as service:
        ArtifactStore(root).publish(ids[1])
        victim = min(service.workers)
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: replaced(service, {victim}), "the successor")
        assert serves(service) == {ids[0]}  # as its sibling: nobody has looked yet
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: attempts(service).get("ok") == 1, "the reload")
        assert serves(service) == {ids[1]}


def test_a_successor_serves_on_with_the_old_bundle_when_the_new_one_is_refused(
    two_bundles: tuple[Path, list[str]], tmp_path: Path
) -> None:
    root, ids = two_bundles
    store = ArtifactStore(root)
    with served(root, tmp_path) as service:
        point_to(store, corrupt_copy(store, ids[1]))
        wait_for(lambda: attempts(service).get("refused") == 1, "the refusal")
        victim = min(service.workers)
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: replaced(service, {victim}), "the successor")
        assert serves(service) == {ids[0]}
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: attempts(service).get("refused") == 2, "another look")
        store.publish(ids[1])
        wait_for(lambda: attempts(service).get("ok") == 1, "the reload")
        assert serves(service) == {ids[1]}
        service.process.send_signal(signal.SIGHUP)
        wait_for(lambda: attempts(service).get("unchanged") == 1, "one more look")


def test_a_withdrawn_pointer_changes_nothing(two_bundles: tuple[Path, list[str]], tmp_path: Path) -> None:
    root, ids = two_bundles
    with served(root, tmp_path) as service:
        ArtifactStore(root).pointer.unlink()
        wait_for(lambda: attempts(service).get("failed") == 1, "it to be noticed")
        assert serves(service) == {ids[0]}
        ArtifactStore(root).publish(ids[1])
        wait_for(lambda: attempts(service).get("ok") == 1, "the reload")
        assert serves(service) == {ids[1]}


def attempts(service: Served) -> dict[str, float]:
    """Reloads so far by result, over all workers."""
    return {labels.split('"')[1]: value for labels, value in service.counted("reco_reload_total").items()}


def serves(service: Served) -> set[str]:
    """Bundles that answer: over enough connections of their own that every worker is met."""
    return {service.get("/reco/als/100").headers["x-reco-bundle"] for _ in range(24)}


def corrupt_copy(store: ArtifactStore, bundle_id: str) -> str:
    """A copy of a bundle under another name, with one byte of an array changed."""
    name = bundle_id[::-1]
    shutil.copytree(store.bundles_dir / bundle_id, store.bundles_dir / name)
    file = store.bundles_dir / name / "als" / "item_vectors.npy"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    return name


def point_to(store: ArtifactStore, bundle_id: str) -> None:
    """Publish without the check that `publish` makes: as a damaged disk or another program would."""
    draft = store.root / ".draft"
    draft.write_bytes(orjson.dumps({"bundle_id": bundle_id, "published_at": "", "history": []}))
    draft.replace(store.pointer)
