"""Search by sampling: within its time and trials, from the start, never the same twice, resumable without pickle."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from factories import tiny_dataset

from models.build.sampling import sample
from models.build.tune import tune
from models.build.tuning import Axis, Found, Gains
from models.data.splits import validation_split
from models.knn import item_knn

AXES = (Axis("a", tuple(range(10))), Axis("b", (0.1, 0.2, 0.4, 0.8)), Axis("c", ("x", "y")))


@dataclass(frozen=True, slots=True)
class Config:
    a: int = 3
    b: float = 0.3
    c: str = "x"


def examined(tried: list[Config]) -> object:
    def examine(config: Config) -> Gains:
        tried.append(config)
        good = -((config.a - 7) ** 2) - 10 * abs(config.b - 0.4) + (config.c == "y")
        return np.array([good, good])

    return examine


def search(
    tried: list[Config], *, most: int = 40, journal: Path | None = None, seed: int = 0
) -> Found[Config]:
    return sample(
        Config(), AXES, examined(tried), seconds=math.inf, most=most, seed=seed, journal=journal  # type: ignore[arg-type]  # a closure
    )  # fmt: skip


def test_the_start_is_tried_first_and_nothing_twice() -> None:
    tried: list[Config] = []
    found = search(tried)
    assert tried[0] == Config()  # 0.3 is on no grid, and yet the start's own
    assert len(tried) == len(set(tried)) == len(found.trials) == 40
    assert found.score == max(trial.score for trial in found.trials)


def test_it_finds_the_best_of_a_small_grid_and_then_ends() -> None:
    tried: list[Config] = []
    found = search(tried, most=10_000)
    assert found.config == Config(7, 0.4, "y")
    assert len(tried) <= 100


def test_equal_seeds_end_equal() -> None:
    runs: list[list[Config]] = [[], [], []]
    for tried, seed in zip(runs, (0, 0, 1), strict=True):
        search(tried, seed=seed)
    first, second, other = runs
    assert first == second != other


def test_a_journal_is_taken_up_and_is_json(tmp_path: Path) -> None:
    journal = tmp_path / "trials.jsonl"
    first: list[Config] = []
    before = search(first, most=20, journal=journal)
    assert len(first) == 20
    more: list[Config] = []
    after = search(more, most=30, journal=journal)
    assert len(more) == 10
    assert not set(more) & set(first)
    assert {trial.config for trial in after.trials} == set(first) | set(more)
    assert after.score >= before.score
    assert all(isinstance(json.loads(line), dict) for line in journal.read_text().splitlines())


def test_a_model_is_tuned_by_it() -> None:
    split = validation_split(tiny_dataset(n_users=120))
    start = item_knn.Config()
    found = tune("knn", split, "full", start=start, seconds=1.0, search="sample")
    assert found.trials[0].config == start
    assert len(found.trials) > 1
    assert found.score == max(trial.score for trial in found.trials)
