from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle

from service.bundle.manifest import MANIFEST
from service.bundle.reader import load_bundle
from service.bundle.store import POINTER, ArtifactStore
from service.errors import BundleRefused, InputError


def write_version(root: Path, seed: int) -> str:
    data = tiny_dataset(20, 12, seed=seed, events_per_user=3)
    return write_tiny_bundle(root, dataset=data, models=trained_models(data, seed=seed), publish=False).name


@pytest.fixture
def versions(tmp_path: Path) -> list[str]:
    return [write_version(tmp_path, seed) for seed in range(3)]


@pytest.fixture
def store(tmp_path: Path, versions: list[str]) -> ArtifactStore:
    return ArtifactStore(tmp_path)


def test_bundles_are_listed_oldest_first(store: ArtifactStore, versions: list[str]) -> None:
    assert store.list() == versions


def test_nothing_is_published_until_it_is(store: ArtifactStore) -> None:
    with pytest.raises(InputError, match="nothing is published"):
        store.current()


def test_what_is_published_is_current(store: ArtifactStore, versions: list[str]) -> None:
    for version in versions:
        store.publish(version)
        assert store.current() == store.bundles_dir / version
    assert load_bundle(store.current()).bundle_id == versions[-1]


def test_rollback_walks_back_to_the_first_and_then_says_so(store: ArtifactStore, versions: list[str]) -> None:
    for version in versions:
        store.publish(version)
    assert store.rollback() == versions[1]
    assert store.rollback() == versions[0]
    with pytest.raises(InputError, match="no bundle was published before"):
        store.rollback()
    assert store.current().name == versions[0]


def test_publishing_after_a_rollback_rolls_back_to_where_it_was(
    store: ArtifactStore, versions: list[str]
) -> None:
    store.publish(versions[0])
    store.publish(versions[1])
    store.rollback()
    store.publish(versions[2])
    assert store.rollback() == versions[0]


def test_publishing_again_adds_no_history(store: ArtifactStore, versions: list[str]) -> None:
    store.publish(versions[0])
    store.publish(versions[1])
    store.publish(versions[1])
    assert store.rollback() == versions[0]


def test_rollback_passes_over_a_bundle_that_is_gone(store: ArtifactStore, versions: list[str]) -> None:
    for version in versions:
        store.publish(version)
    (store.bundles_dir / versions[1] / MANIFEST).unlink()
    assert store.rollback() == versions[0]


def test_a_damaged_bundle_is_not_published_and_the_old_one_stays(
    store: ArtifactStore, versions: list[str]
) -> None:
    store.publish(versions[0])
    with (store.bundles_dir / versions[1] / "golden.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(BundleRefused, match=r"golden\.json"):
        store.publish(versions[1])
    assert store.current().name == versions[0]


def test_a_damaged_bundle_is_not_rolled_back_to(store: ArtifactStore, versions: list[str]) -> None:
    store.publish(versions[0])
    store.publish(versions[1])
    (store.bundles_dir / versions[0] / "golden.json").unlink()
    with pytest.raises(BundleRefused, match=r"golden\.json"):
        store.rollback()
    assert store.current().name == versions[1]


@pytest.mark.parametrize("unknown", ["0123456789abcdef", "..", "", ".", "../bundles"])
def test_an_unknown_id_is_bad_input(store: ArtifactStore, unknown: str) -> None:
    with pytest.raises(InputError, match="no bundle"):
        store.publish(unknown)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"bundle_id": "x"}', '"x"', '{"bundle_id":1,"published_at":2,"history":3}'],
)
def test_a_damaged_pointer_is_named_and_publishing_mends_it(
    store: ArtifactStore, versions: list[str], text: str
) -> None:
    store.publish(versions[0])
    store.pointer.write_text(text)
    with pytest.raises(InputError, match="is damaged"):
        store.current()
    store.publish(versions[1])
    assert store.current().name == versions[1]


@pytest.mark.parametrize("where", ["..", "../..", "", "/"])
def test_a_pointer_to_no_bundle_is_refused(store: ArtifactStore, versions: list[str], where: str) -> None:
    store.publish(versions[0])
    store.pointer.write_text(f'{{"bundle_id":"{where}","published_at":"","history":[]}}')
    (store.root / MANIFEST).write_text("{}")
    (store.bundles_dir / MANIFEST).write_text("{}")
    with pytest.raises(BundleRefused, match="points to"):
        store.current()


# Run in a process of its own: the name of the system call at which it dies is its last argument.
DYING = """
import os, sys
from pathlib import Path
from service.bundle.store import ArtifactStore
root, bundle, call = sys.argv[1:]
module, name = (Path, "replace") if call == "replace" else (os, call)
setattr(module, name, lambda *args, **more: os._exit(9))
ArtifactStore(Path(root)).publish(bundle)
"""


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_publisher_that_dies_before_the_rename_leaves_the_old_pointer(
    store: ArtifactStore, versions: list[str], call: str
) -> None:
    store.publish(versions[0])
    before = store.pointer.read_bytes()
    died = subprocess.run([sys.executable, "-c", DYING, str(store.root), versions[1], call], check=False)
    assert died.returncode == 9
    assert store.pointer.read_bytes() == before
    assert [path.name for path in store.root.iterdir() if path.name.startswith(f".{POINTER}")] != []
    store.publish(versions[1])  # what it left behind is in nobody's way
    assert store.current().name == versions[1]
    assert store.list() == versions


def test_what_a_dying_writer_leaves_is_neither_listed_nor_in_the_way(
    store: ArtifactStore, versions: list[str]
) -> None:
    (store.bundles_dir / ".writing-0123").mkdir()
    (store.bundles_dir / ".writing-0123" / MANIFEST).write_text("{}")
    (store.bundles_dir / "half-copied").mkdir()
    assert store.list() == versions
    assert write_version(store.root, 3) in store.list()


def test_publishers_at_once_leave_one_whole_pointer_to_one_of_them(
    store: ArtifactStore, versions: list[str]
) -> None:
    store.publish(versions[0])
    seen: set[str] = set()
    failures: list[BaseException] = []
    done = threading.Event()

    def publish(version: str) -> None:
        try:
            for _ in range(15):
                store.publish(version)
        except BaseException as error:
            failures.append(error)

    def read() -> None:
        try:
            while not done.is_set():
                seen.add(store.current().name)
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    publishers = [threading.Thread(target=publish, args=(version,)) for version in versions]
    for thread in (reader, *publishers):
        thread.start()
    for thread in publishers:
        thread.join()
    done.set()
    reader.join()
    assert failures == []
    assert seen <= set(versions)
    assert store.current().name in versions
    assert [path for path in store.root.iterdir() if path.name.startswith(".")] == []
