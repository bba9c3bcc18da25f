"""From settings to the event log they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.errors import InputError
from service.events.log import EventLog, LogOptions, Say
from service.events.metrics import EventCounts
from service.events.series import take_series
from service.settings import Settings
from service.telemetry import Telemetry

if TYPE_CHECKING:
    from service.events.bus import EventBus
    from service.state.redis_link import RedisLink

_MB = 1 << 20
_BUS_TIMEOUT_S = 1.0


def open_events(settings: Settings, telemetry: Telemetry, say: Say) -> EventLog | None:
    """Make the log of one process, not yet begun; None without RECO_EVENTS_DIR. Raises InputError as `check_events`."""
    if settings.events_dir is None:
        return None
    options = LogOptions(
        segment_bytes=int(settings.events_segment_mb * _MB),
        keep_bytes=int(settings.events_retain_mb * _MB),
        keep_days=settings.events_retain_days,
        wait_s=settings.events_wait_ms / 1000,
    )
    counts = EventCounts(telemetry)
    return EventLog(
        settings.events_dir,
        counts,
        slot=settings.worker_slot or 0,
        options=options,
        say=say,
        bus=_bus(settings, counts, say),
    )


def check_events(settings: Settings) -> None:
    """Check, before a process is forked, all that would keep one from beginning.

    Raises InputError: a folder that can't be written to, a URL that is none, a client that is not installed.
    """
    if settings.events_dir is not None:
        take_series(settings.events_dir, 0).release()
        _link(settings, lambda *_, **__: None)


def _bus(settings: Settings, counts: EventCounts, say: Say) -> EventBus | None:
    link = _link(settings, say)
    if link is None:
        return None
    from service.events.bus import EventBus  # noqa: PLC0415 - an extra, only where it is asked for

    return EventBus(link, counts, length=settings.events_stream_length)


def _link(settings: Settings, say: Say) -> RedisLink | None:
    if settings.events_redis_url is None:
        return None
    try:
        from service.state.redis_link import RedisLink  # noqa: PLC0415 - as above
    except ImportError:
        raise InputError("RECO_EVENTS_REDIS_URL needs the extra: pip install 'reco-service[redis]'") from None
    try:
        return RedisLink(settings.events_redis_url.get_secret_value(), timeout_s=_BUS_TIMEOUT_S, say=say)
    except InputError as error:
        raise InputError(str(error).replace("RECO_REDIS_URL", "RECO_EVENTS_REDIS_URL")) from None
