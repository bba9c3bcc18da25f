"""How many threads are worth their waking."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import threadpoolctl

SMALL_EVENTS = 300_000


@contextmanager
def threads_for(n_events: int) -> Iterator[None]:
    """Keep BLAS and OpenMP to one thread on small data.

    There a thread waits longer for its fellows than it computes: on a busy machine a search over a few thousand
    events took ten times as long with two.
    """
    if n_events > SMALL_EVENTS:
        yield
        return
    with threadpoolctl.threadpool_limits(1):
        yield
