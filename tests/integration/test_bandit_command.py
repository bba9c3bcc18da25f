"""`reco experiment bandit`: arms are treatments as the log has them; bandits lose less than an even split."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from made_logs import START_MS, feedback, slate, written

from models.analysis.log import opened
from models.commands import experiment_bandit
from models.commands.experiment_bandit import arms_of
from service.errors import InputError


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 answers a treatment; of T1's every second is clicked, of C's every tenth."""
    records: list[Any] = []
    for n in range(600):
        treatment = "T1" if n % 2 else "C"
        records.append(slate(f"r{n}", n, START_MS + n, [1, 2], treatments={"RANK": treatment, "OTHER": "X"}))
        if (n // 2) % (2 if treatment == "T1" else 10) == 0:
            records += [
                feedback(f"c{n}-{item}", "click", n, START_MS + n, item_id=item, request_id=f"r{n}")
                for item in (1, 2)
            ]
    return written(tmp_path_factory.mktemp("log"), records)


def test_arms_are_treatments_with_the_share_of_answers_acted_on(log: Path) -> None:
    with opened(log) as found:
        arms = {arm.name: (arm.answers, round(arm.mean, 9)) for arm in arms_of(found.events, "RANK", "click")}
    assert arms == {"C": (300, 0.1), "T1": (300, 0.5)}


def test_bandits_lose_less_than_an_even_split(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    experiment_bandit.configure(parser)
    words = ["--events", str(log), "--experiment", "RANK", "--repeats", "5"]
    assert experiment_bandit.run(parser.parse_args(words)) == 0
    told = json.loads(capsys.readouterr().out)
    regret = {name: one["regret"] for name, one in told["regret"].items()}
    assert regret.pop("even split") == pytest.approx(600 * 0.2)
    assert set(regret) == {"epsilon-greedy .1", "epsilon 1/(1+.05n)", "UCB1", "gradient", "Thompson"}
    assert max(regret.values()) < 60
    assert told["regret"]["Thompson"]["best_share"] > 0.9


def test_an_experiment_that_is_not_in_the_log(log: Path) -> None:
    with opened(log) as found, pytest.raises(InputError, match="has 0 of its treatments"):
        arms_of(found.events, "NOPE", "click")
    with opened(log) as found, pytest.raises(InputError, match="has 1 of its treatments"):
        arms_of(found.events, "OTHER", "click")
