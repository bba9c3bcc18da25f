"""What `reco serve` says when it is ready, and when a worker is worn."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle

from service.bundle.reader import load_bundle
from service.recommender.live import LiveBundle, go_live
from service.serving.loader import Loaded
from service.serving.reload import Stamp
from service.serving.start import ready_line
from service.serving.worker import wear_of
from service.settings import load_settings


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    dataset = tiny_dataset(ids="str")
    path = write_tiny_bundle(
        tmp_path_factory.mktemp("bundle"), dataset=dataset, models=trained_models(dataset), index="none"
    )
    return go_live(load_bundle(path))


@pytest.mark.parametrize(("bound", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1")])
def test_an_address_that_can_be_asked_is_shown(live: LiveBundle, bound: str, shown: str) -> None:
    with socket.socket() as listener:
        listener.bind((bound, 0))
        line = ready_line(load_settings({"auth": False}, env_file=None), Loaded.of(live), listener, [], 1)
        port = listener.getsockname()[1]
    assert line.startswith(f"reco: ready on http://{shown}:{port}: bundle {live.bundle_id}, models als, ")
    assert line.endswith(f"1 worker; try: curl http://{shown}:{port}/reco/default/u000")


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_an_ipv6_address_is_bracketed(live: LiveBundle) -> None:
    with socket.socket(socket.AF_INET6) as listener:
        listener.bind(("::1", 0))
        line = ready_line(load_settings({"auth": False}, env_file=None), Loaded.of(live), listener, [], 2)
    assert "http://[::1]:" in line
    assert "2 workers;" in line


def test_a_token_is_asked_for_but_never_shown(live: LiveBundle) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        settings = load_settings({"tokens": "me:" + "k3y" * 20}, env_file=None)
        line = ready_line(settings, Loaded.of(live), listener, [], 1)
    assert "curl -H 'Authorization: Bearer TOKEN' " in line
    assert "k3y" not in line


def test_workers_wear_out_apart_from_each_other_and_never_when_the_limit_is_off() -> None:
    drawn = {limit for _ in range(500) if (limit := wear_of(1000)) is not None}
    assert min(drawn) >= 900
    assert max(drawn) <= 1100
    assert len(drawn) > 50
    assert wear_of(0) is None
    assert wear_of(1) == 1


def test_a_stamp_changes_with_every_replacement_of_the_file(tmp_path: Path) -> None:
    pointer = tmp_path / "pointer"
    assert Stamp.of(pointer) is None
    stamps = []
    for _ in range(3):
        draft = tmp_path / "draft"
        draft.write_text("same")
        draft.replace(pointer)
        stamps.append(Stamp.of(pointer))
        assert Stamp.of(pointer) == stamps[-1]
    assert len(set(stamps)) == 3
