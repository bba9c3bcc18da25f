"""The training loop of every tower: batches, early stopping, a time budget, checkpoints, the best state kept.

    course = fit(network, optimizer, batches=draw_batches, loss=loss_of, validate=ndcg_of_validation,
                 schedule=Schedule(max_epochs=30, max_seconds=120), seed=seed, label="DSSM", progress=progress)

`batches` takes the epoch's own random generator and gives its batches, of whatever type `loss` takes; where they have
a length there is a bar. `loss` gives a scalar tensor to be made small. `validate`, called after each epoch with the
network in evaluation mode and without gradients, gives a figure to be made large. Afterwards the network holds its best
state (its last one without `validate`) and is in evaluation mode.

What is drawn in epoch e depends on the seed and on e alone, torch's own generator included. So a run resumed from a
checkpoint ends as an uninterrupted one does, bit by bit on one thread, unless time ran out.

Build the network inside `seeded(seed)`. To train on everything, after validation found when to stop: `fit` again, from
a fresh network with the same seed and without `validate`, with `Schedule(max_epochs=course.best_epoch)`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import nn

from models.progress import advancing
from models.towers.checkpoints import Checkpoint, Kept, State, snapshot
from service.errors import InputError

B = TypeVar("B")
Stopped = Literal["epochs", "patience", "time"]


@dataclass(frozen=True, slots=True)
class Plateau:
    """Slow down where validation stands still: after `patience` epochs without a better one, rates times `factor`."""

    factor: float = 0.8
    patience: int = 2


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to stop, and how fast to go.

    patience: epochs without a better validation. max_seconds: of all runs together that a checkpoint joins.
    clip_norm: the largest norm of all gradients together. plateau: None keeps the optimizer's rates.
    """

    max_epochs: int = 50
    patience: int = 3
    max_seconds: float = math.inf
    clip_norm: float | None = None
    plateau: Plateau | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """How training went. losses, scores: one an epoch; `scores` is empty without validation.

    best_epoch: the epoch, counted from 1, after which the state kept was reached; 0: no epoch was begun. An epoch
    that time cut short counts as one.
    """

    losses: tuple[float, ...]
    scores: tuple[float, ...]
    best_epoch: int
    stopped: Stopped
    seconds: float


def fit(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    batches: Callable[[np.random.Generator], Iterable[B]],
    loss: Callable[[B], torch.Tensor],
    schedule: Schedule,
    seed: int,
    validate: Callable[[], float] | None = None,
    checkpoint: Checkpoint | None = None,
    label: str = "training",
    progress: bool = False,
) -> Course:
    """Train until validation no longer improves, or epochs or time run out; see the module.

    With `checkpoint` the state is written after each whole epoch, and taken up where there is one. Raises
    InputError if a loss is not finite, or for a checkpoint that another training wrote.
    """
    run = _Run(network, optimizer, schedule)
    if checkpoint is not None and (kept := checkpoint.read()) is not None:
        run.take_up(kept)
    with torch.random.fork_rng(devices=[]):
        stopped = run.ended(judged=validate is not None)
        while stopped is None:
            generator = _generator(seed, len(run.losses))
            whole = run.epoch(batches(generator), loss, f"{label}, {run.so_far()}", progress)
            run.judge(validate)
            if whole and checkpoint is not None:
                checkpoint.write(run.kept())
            stopped = run.ended(judged=validate is not None) if whole else "time"
    run.leave_best()
    return Course(tuple(run.losses), tuple(run.scores), run.best_epoch, stopped, run.seconds())


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Build a network inside: its first weights depend on the seed alone, and nobody else's randomness on them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _generator(seed: int, epoch: int) -> np.random.Generator:
    """Randomness of one epoch; torch's is seeded along."""
    sequence = np.random.SeedSequence((seed, epoch))
    torch.manual_seed(int(sequence.generate_state(1)[0]))
    return np.random.default_rng(sequence)


class _Run:
    """A network on its way: what it scored, its best state, the seconds spent."""

    def __init__(self, network: nn.Module, optimizer: torch.optim.Optimizer, schedule: Schedule) -> None:
        self._network, self._optimizer, self._schedule = network, optimizer, schedule
        self._rates = [float(group["lr"]) for group in optimizer.param_groups]
        self._began, self._before = time.monotonic(), 0.0
        self._best: State = snapshot(network)
        self.losses: list[float] = []
        self.scores: list[float] = []
        self.best_epoch = 0

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._began

    def so_far(self) -> str:
        best = f", best {max(self.scores):.4f}" if self.scores else ""
        return f"epoch {len(self.losses) + 1}{best}"

    def ended(self, *, judged: bool) -> Stopped | None:
        epochs = len(self.losses)
        if epochs >= self._schedule.max_epochs:
            return "epochs"
        if judged and epochs - self.best_epoch >= self._schedule.patience:
            return "patience"
        return "time" if self.seconds() >= self._schedule.max_seconds else None

    def epoch(
        self, batches: Iterable[B], loss: Callable[[B], torch.Tensor], title: str, progress: bool
    ) -> bool:
        """Take a step a batch; whether time sufficed for all of them."""
        self._network.train()
        self._slow_down()
        total, count, whole = 0.0, 0, True
        length = len(batches) if isinstance(batches, Sized) else 0
        with advancing(title, length, progress and length > 0) as advance:
            for batch in batches:
                total += self._step(loss(batch))
                count += 1
                advance()
                if self.seconds() >= self._schedule.max_seconds:
                    whole = False
                    break
        self.losses.append(total / max(count, 1))
        return whole

    def judge(self, validate: Callable[[], float] | None) -> None:
        """Ask validation, where there is one, whether this state is the best so far; else the last one is."""
        self._network.eval()
        if validate is not None:
            with torch.no_grad():
                self.scores.append(float(validate()))
            if self.best_epoch and not self.scores[-1] > self.scores[self.best_epoch - 1]:
                return
            self._best = snapshot(self._network)
        self.best_epoch = len(self.losses)

    def leave_best(self) -> None:
        if self.scores:
            self._network.load_state_dict(self._best)
        self._network.eval()

    def kept(self) -> Kept:
        best = self._best if self.scores else {}
        optimizer = self._optimizer.state_dict()["state"]
        return Kept(
            snapshot(self._network),
            best,
            optimizer,
            self.losses,
            self.scores,
            self.best_epoch,
            self.seconds(),
        )

    def take_up(self, kept: Kept) -> None:
        groups = self._optimizer.state_dict()["param_groups"]
        self._network.load_state_dict(kept.network)
        self._optimizer.load_state_dict({"state": kept.optimizer, "param_groups": groups})
        self._best = kept.best or kept.network
        self.losses, self.scores = list(kept.losses), list(kept.scores)
        self.best_epoch, self._before = kept.best_epoch, kept.seconds

    def _step(self, value: torch.Tensor) -> float:
        found = float(value.detach())
        if not math.isfinite(found):
            raise InputError(
                f"training diverged in epoch {len(self.losses) + 1}: the loss is {found}; lower its learning_rate"
            )
        self._optimizer.zero_grad()
        torch.autograd.backward(value)
        if self._schedule.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._network.parameters(), self._schedule.clip_norm)
        self._optimizer.step()
        return found

    def _slow_down(self) -> None:
        """Set the rates by what was scored so far: nothing to remember, so nothing to lose on resuming."""
        if self._schedule.plateau is None:
            return
        factor = self._schedule.plateau.factor ** standstills(self.scores, self._schedule.plateau.patience)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor


def standstills(scores: list[float], patience: int) -> int:
    """Count how often `patience` epochs in a row brought nothing better than the best before them."""
    best, waited, found = -math.inf, 0, 0
    for score in scores:
        if score > best:
            best, waited = score, 0
            continue
        waited += 1
        if waited >= patience:
            found, waited = found + 1, 0
    return found
