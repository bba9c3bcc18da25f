"""From settings to the history they ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from service.errors import InputError
from service.settings import Settings
from service.state.history import UserHistory
from service.state.memory import MemoryHistory
from service.state.metrics import HistoryCounts
from service.state.stored import StoredHistory
from service.telemetry import Telemetry

if TYPE_CHECKING:
    from service.state.redis_link import RedisLink

Say = Callable[..., None]


def open_history(settings: Settings, telemetry: Telemetry, say: Say) -> UserHistory | None:
    """Make the history of one process, not yet begun; None for RECO_HISTORY=off.

    Raises InputError where it can't be: a path that can't be written to, a URL that is none, a client that is not
    installed.
    """
    if settings.history == "off":
        return None
    counts = HistoryCounts(telemetry)
    length, ttl_s = settings.history_length, settings.history_ttl_s
    if settings.history == "memory":
        return MemoryHistory(counts, length=length, ttl_s=ttl_s, users=settings.history_users)
    if settings.history == "sqlite":
        from service.state.sqlite_store import SqliteStore  # noqa: PLC0415 - only where it is asked for

        assert settings.history_path is not None  # the settings check it
        sqlite = SqliteStore(settings.history_path, length=length, ttl_s=ttl_s, say=say)
        return StoredHistory(sqlite, counts, length=length)
    link = _redis_link(settings, say)
    from service.state.redis_store import RedisStore  # noqa: PLC0415 - an extra, only where it is asked for

    timeout_s = settings.redis_timeout_ms / 1000
    redis = RedisStore(link, counts, length=length, ttl_s=ttl_s, timeout_s=timeout_s)
    return StoredHistory(redis, counts, length=length)


def check_history(settings: Settings, workers: int) -> None:
    """Check, before a process is forked, all that would keep one from beginning. Raises InputError."""
    if settings.history == "memory" and workers > 1:
        raise InputError(
            f"RECO_HISTORY=memory is known to one process only, and there would be {workers}: "
            "take --workers 1, or RECO_HISTORY=sqlite"
        )
    if settings.history == "memory" and settings.events_dir is None:
        raise InputError("RECO_HISTORY=memory would stay empty: POST /v1/events needs RECO_EVENTS_DIR")
    if settings.history == "sqlite":
        from service.state.sqlite_store import prepare  # noqa: PLC0415

        assert settings.history_path is not None
        prepare(settings.history_path)
    if settings.history == "redis":
        _redis_link(settings, lambda *_, **__: None)


def _redis_link(settings: Settings, say: Say) -> RedisLink:
    try:
        from service.state.redis_link import RedisLink  # noqa: PLC0415
    except ImportError:
        raise InputError("RECO_HISTORY=redis needs the extra: pip install 'reco-service[redis]'") from None
    assert settings.redis_url is not None
    return RedisLink(
        settings.redis_url.get_secret_value(), timeout_s=settings.redis_timeout_ms / 1000, say=say
    )
