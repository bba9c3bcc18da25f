"""A network beside the running average of its weights: the average is what is validated and served."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)

_YOUNG = 10
"""In the first steps the average forgets faster: after s steps it keeps at most s / (s + _YOUNG) of itself."""


class Averaged(nn.Module, Generic[N]):
    """Averages after every step of an optimizer, and warms its rates up. All of it is state, so it resumes.

    At every epoch an average scores about as a network would whose rates had fallen to nothing by then, so nobody
    needs to know beforehand which epoch is the last. memory, warmup: in steps. Warm, the rates are whoever's who
    sets them.
    """

    steps: torch.Tensor

    def __init__(self, network: N, optimizer: torch.optim.Optimizer, *, memory: int, warmup: int) -> None:
        super().__init__()
        self.live = network
        self.average: N = copy.deepcopy(network).requires_grad_(False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._kept, self._warmup = 1.0 - 1.0 / max(memory, 1), max(warmup, 1)
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        optimizer.register_step_pre_hook(self._warm_up)
        optimizer.register_step_post_hook(self._follow)

    def _warm_up(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if (steps := int(self.steps) + 1) > self._warmup:
            return
        share = steps / self._warmup
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * share

    def _follow(self, *_: Any) -> None:
        self.steps += 1
        steps = int(self.steps)
        kept = min(self._kept, steps / (steps + _YOUNG))
        with torch.no_grad():
            for mine, its in zip(self.average.parameters(), self.live.parameters(), strict=True):
                mine.lerp_(its, 1.0 - kept)
