from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from with_torch import torch

from models.towers.checkpoints import checkpoint_of, checkpoints_in
from models.towers.loop import Course, Plateau, Schedule, fit, seeded, standstills
from service.errors import InputError

TRUTH = np.array([1.0, -2.0, 0.5], np.float32)


class Line(torch.nn.Module):
    """Learns TRUTH from noisy sums; drops out, so that torch's own randomness counts too."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Linear(3, 1)
        self.dropout = torch.nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.weights(self.dropout(x))
        return found


def draw(generator: np.random.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
    x = generator.normal(size=(8, 16, 3)).astype(np.float32)
    return [(torch.from_numpy(part), torch.from_numpy(part @ TRUTH[:, None])) for part in x]


def trained(
    schedule: Schedule,
    *,
    seed: int = 3,
    rate: float = 0.05,
    scores: Iterable[float] | None = None,
    adam: bool = True,
) -> tuple[Line, Course]:
    with seeded(seed):
        network = Line()
    optimizer: torch.optim.Optimizer = (
        torch.optim.Adam(network.parameters(), rate)
        if adam
        else torch.optim.SGD(network.parameters(), rate, momentum=0.9)
    )
    given = iter(scores) if scores is not None else None
    course = fit(
        network,
        optimizer,
        batches=draw,
        loss=lambda batch: ((network(batch[0]) - batch[1]) ** 2).mean(),
        schedule=schedule,
        seed=seed,
        validate=None if given is None else lambda: next(given),
        checkpoint=checkpoint_of("line", seed, rate),
    )
    return network, course


def weights(network: torch.nn.Module) -> list[float]:
    found: list[float] = torch.cat([value.flatten() for value in network.state_dict().values()]).tolist()
    return found


def test_it_learns_and_ends_after_its_epochs() -> None:
    network, course = trained(Schedule(max_epochs=40))
    assert course.losses[-1] < course.losses[0] / 3
    assert course.stopped == "epochs"
    assert course.best_epoch == len(course.losses) == 40
    assert not network.training


def test_equal_seeds_end_equal_and_others_elsewhere() -> None:
    first, again, other = (weights(trained(Schedule(max_epochs=3), seed=seed)[0]) for seed in (1, 1, 2))
    assert first == again != other


def test_training_leaves_the_callers_randomness_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3).tolist()
    torch.manual_seed(5)
    trained(Schedule(max_epochs=2))
    assert torch.rand(3).tolist() == expected


def test_it_stops_when_validation_no_longer_improves_and_keeps_the_best() -> None:
    network, course = trained(Schedule(max_epochs=50, patience=3), scores=[0.1, 0.3, 0.2, 0.3, 0.25, 0.9])
    assert course.stopped == "patience"
    assert course.scores == (0.1, 0.3, 0.2, 0.3, 0.25)
    assert course.best_epoch == 2
    # The state after two epochs, as training for just those two leaves it: the rule by which everything is refit.
    assert weights(network) == weights(trained(Schedule(max_epochs=course.best_epoch))[0])


def test_time_that_ran_out_ends_it_within_an_epoch() -> None:
    _, course = trained(Schedule(max_epochs=50, max_seconds=1e-9))
    assert (course.stopped, len(course.losses)) == ("time", 0)
    _, course = trained(Schedule(max_epochs=10**9, max_seconds=0.05))
    assert course.stopped == "time"
    assert course.best_epoch == len(course.losses) > 0


@pytest.mark.parametrize("adam", [True, False])
def test_a_resumed_training_ends_as_an_uninterrupted_one(tmp_path: Path, adam: bool) -> None:
    scores = [0.1, 0.4, 0.2, 0.3, 0.5, 0.4, 0.4]
    slowing = Plateau(factor=0.5, patience=1)
    whole = Schedule(max_epochs=7, patience=3, plateau=slowing)
    straight, course = trained(whole, scores=scores, adam=adam)
    with checkpoints_in(tmp_path):
        for epochs in (1, 3, 4):
            done = len(list(tmp_path.glob("*"))) and {1: 0, 3: 1, 4: 3}[epochs]
            trained(Schedule(max_epochs=epochs, plateau=slowing), scores=scores[done:], adam=adam)
        resumed, continued = trained(whole, scores=scores[4:], adam=adam)
    assert weights(resumed) == weights(straight)
    assert (continued.losses, continued.scores) == (course.losses, course.scores)
    assert (continued.best_epoch, continued.stopped) == (course.best_epoch, course.stopped) == (5, "epochs")
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_a_finished_training_is_not_run_again(tmp_path: Path) -> None:
    with checkpoints_in(tmp_path):
        first, _ = trained(Schedule(max_epochs=4, patience=2), scores=[0.3, 0.2, 0.1])
        again, course = trained(Schedule(max_epochs=4, patience=2), scores=[])
    assert weights(first) == weights(again)
    assert (course.best_epoch, course.stopped) == (1, "patience")


def test_trainings_that_differ_never_share_a_checkpoint(tmp_path: Path) -> None:
    with checkpoints_in(tmp_path):
        trained(Schedule(max_epochs=1), seed=1)
        (own,) = tmp_path.iterdir()
        trained(Schedule(max_epochs=1), seed=2)
        (other,) = {*tmp_path.iterdir()} - {own}
        own.write_bytes(other.read_bytes())
        with pytest.raises(InputError, match=rf"{own.name}.*another training"):
            trained(Schedule(max_epochs=2), seed=1)


def test_a_torn_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    with checkpoints_in(tmp_path):
        trained(Schedule(max_epochs=1))
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:100])
        with pytest.raises(InputError, match=rf"{file.name}.*delete it to train anew"):
            trained(Schedule(max_epochs=2))


def test_a_training_that_diverges_says_so() -> None:
    with pytest.raises(InputError, match=r"diverged in epoch \d+.*learning_rate"):
        trained(Schedule(max_epochs=50), rate=1e9, adam=False)


def test_rates_fall_where_validation_stands_still() -> None:
    assert standstills([], 2) == 0
    assert standstills([0.1, 0.2, 0.2, 0.1], 2) == 1
    assert standstills([0.3, 0.2, 0.2, 0.1, 0.1, 0.4, 0.4], 2) == 2
    still = Schedule(max_epochs=12, patience=12, plateau=Plateau(factor=0.0, patience=1))
    network, _ = trained(still, scores=[0.5] + [0.6 + 0.01 * n for n in range(1)] + [0.1] * 10)
    assert weights(network) == weights(trained(Schedule(max_epochs=2))[0])
