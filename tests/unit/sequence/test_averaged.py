from __future__ import annotations

import pytest
from with_torch import torch

from models.sequence.averaged import Averaged


def averaged(
    *, memory: int = 1_000, warmup: int = 4
) -> tuple[Averaged[torch.nn.Linear], torch.optim.Optimizer]:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    return Averaged(network, optimizer, memory=memory, warmup=warmup), optimizer


def step(network: Averaged[torch.nn.Linear], optimizer: torch.optim.Optimizer) -> float:
    """Pull the weight up by the rate of the step, which is returned."""
    before = float(network.live.weight.detach())
    network.live.weight.grad = -torch.ones_like(network.live.weight)
    optimizer.step()
    return float(network.live.weight.detach()) - before


def test_rates_rise_to_their_own_and_are_then_whoevers_who_sets_them() -> None:
    network, optimizer = averaged()
    assert [step(network, optimizer) for _ in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    optimizer.param_groups[0]["lr"] = 0.125
    assert step(network, optimizer) == pytest.approx(0.125)


def test_the_average_lags_behind_what_is_learned_and_forgets_where_it_began() -> None:
    network, optimizer = averaged(memory=5)
    for _ in range(200):
        step(network, optimizer)
    lag = float(network.live.weight.detach() - network.average.weight.detach())
    assert lag == pytest.approx(4.0, abs=0.1)  # (memory - 1) steps of 1, once warm
