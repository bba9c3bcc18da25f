"""Settings choose where histories are; what can't be is said before anything is served."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from service.errors import InputError
from service.settings import describe, load_settings
from service.state.memory import MemoryHistory
from service.state.open import check_history, open_history
from service.state.stored import StoredHistory
from service.telemetry import Telemetry

PATH = Path("history.sqlite")


def opened(**settings: Any) -> object:
    return open_history(load_settings(settings, env_file=None), Telemetry(budget_s=0.05), lambda *_: None)


def test_it_is_off_by_itself() -> None:
    assert load_settings({}, env_file=None).history == "off"
    assert opened() is None


def test_each_name_opens_what_it_says(tmp_path: Path) -> None:
    assert isinstance(opened(history="memory"), MemoryHistory)
    assert isinstance(opened(history="sqlite", history_path=tmp_path / "h"), StoredHistory)
    assert isinstance(opened(history="redis", redis_url="redis://localhost"), StoredHistory)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"history": "sqlite"}, "RECO_HISTORY_PATH"),
        ({"history": "redis"}, "RECO_REDIS_URL"),
        ({"history": "memcached"}, "memcached"),
        ({"history_length": 0}, "history-length"),
        ({"history_ttl_s": 0}, "history-ttl-s"),
    ],
)
def test_settings_that_lack_something_name_it(settings: Mapping[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        load_settings(settings, env_file=None)


@pytest.mark.parametrize(
    ("settings", "workers", "named"),
    [
        ({"history": "memory", "events_dir": "events"}, 2, "RECO_HISTORY=memory.*--workers 1"),
        ({"history": "memory"}, 1, "RECO_EVENTS_DIR"),
        ({"history": "sqlite", "history_path": "/dev/null/h"}, 1, "RECO_HISTORY_PATH"),
        ({"history": "redis", "redis_url": "memcached://localhost"}, 1, "RECO_REDIS_URL"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_forked(
    settings: Mapping[str, Any], workers: int, named: str
) -> None:
    with pytest.raises(InputError, match=named):
        check_history(load_settings(settings, env_file=None), workers)


@pytest.mark.parametrize("history", ["off", "memory"])
def test_what_can_be_passes(history: str) -> None:
    check_history(load_settings({"history": history, "events_dir": "events"}, env_file=None), 1)


def test_the_redis_password_is_not_shown() -> None:
    settings = load_settings(
        {"history": "redis", "redis_url": "redis://reco:se-cret@localhost"}, env_file=None
    )
    assert "se-cret" not in f"{settings!r} {describe(settings)}"
    with pytest.raises(InputError) as refused:
        check_history(
            load_settings({"history": "redis", "redis_url": "http://reco:se-cret@x"}, env_file=None), 1
        )
    assert "se-cret" not in str(refused.value)


_WITHOUT_REDIS = """
import sys
sys.modules["redis"] = None  # as where it is not installed
import service.app
from service.errors import InputError
from service.settings import load_settings
from service.state.open import check_history

check_history(load_settings({"history": "memory", "events_dir": "events"}, env_file=None), 1)
try:
    check_history(load_settings({"history": "redis", "redis_url": "redis://localhost"}, env_file=None), 1)
except InputError as error:
    print(error)
"""


def test_the_service_runs_where_no_redis_client_is_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_REDIS], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "pip install 'reco-service[redis]'" in done.stdout
