"""Threads of torch: like those of BLAS (`models.build.threads`), on small data they wait longer than they compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from models.build.threads import SMALL_EVENTS


@contextmanager
def torch_threads_for(n_events: int) -> Iterator[None]:
    """Keep torch to one thread on small data; then equal seeds also give equal arrays whatever the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if n_events <= SMALL_EVENTS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
