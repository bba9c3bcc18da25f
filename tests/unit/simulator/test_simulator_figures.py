from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from loadtest.simulator.comparison import read_baseline, welch, worse
from loadtest.simulator.days import Sitting
from loadtest.simulator.errors import SimulatorError
from loadtest.simulator.figures import Figure, Figures, by_day, faults, table
from loadtest.simulator.listening_log import write_log
from loadtest.simulator.session import Playback


def sitting(number: int, user: int, *times: float, day: int = 1, fault: str | None = None) -> Sitting:
    played = (Playback(0, 1.0), *(Playback(n + 1, time) for n, time in enumerate(times)))
    at_ms = tuple(1000 * number + n for n in range(len(played)))
    return Sitting(day, number, user, played, at_ms, (0.002,) * len(times), fault)


SITTINGS = [
    sitting(0, 7, 0.5, 0.0),
    sitting(1, 7, 0.25, 0.25, 0.5, 0.0),
    sitting(2, 9, 1.0),
    sitting(3, 9, 1.0, fault="silent"),
]


def test_figures_are_those_of_a_hand() -> None:
    figures = Figures.of(SITTINGS)

    assert (figures.sessions, figures.users) == (3, 2)
    assert figures.time_per_session.mean == pytest.approx((1.5 + 2.0 + 2.0) / 3)
    assert figures.time_per_session.sem == pytest.approx(scipy.stats.sem([1.5, 2.0, 2.0]))
    assert figures.tracks_per_session.mean == pytest.approx((3 + 5 + 2) / 3)
    assert figures.satisfaction.mean == pytest.approx((0.25 + 0.25 + 1.0) / 3)
    assert figures.latency_ms.mean == pytest.approx(2.0)
    assert figures.user_time_per_session.mean == pytest.approx((1.75 + 2.0) / 2)
    assert figures.user_time_per_session.n == 2


def test_sessions_that_were_broken_off_are_told_by_reason() -> None:
    assert faults(SITTINGS) == {"silent": 1}


def test_days_are_summed_up_apart_and_together() -> None:
    days = [sitting(0, 1, 0.5), sitting(0, 1, 1.0, day=2)]

    assert {day: figures.time_per_session.mean for day, figures in by_day(days).items()} == {1: 1.5, 2: 2.0}
    assert [row.split()[0] for row in table(days).splitlines()] == ["day", "1", "2", "all"]
    assert "1.750" in table(days).splitlines()[-1]


def test_no_session_at_all_gives_null_in_json_rather_than_nan() -> None:
    assert (
        json.loads(json.dumps(Figures.of([]).as_json(), allow_nan=False))["time_per_session"]["mean"] is None
    )


samples = st.lists(st.floats(0.5, 20), min_size=2, max_size=40)


@given(samples, samples)
def test_the_comparison_is_welchs(control: list[float], treatment: list[float]) -> None:
    assume(min(np.var(control), np.var(treatment)) > 1e-6)  # scipy warns of samples that hardly vary

    effect = welch(Figure.of(control), Figure.of(treatment))

    interval = scipy.stats.ttest_ind(treatment, control, equal_var=False).confidence_interval(0.95)
    percent = 100 / np.mean(control)
    assert effect.lower == pytest.approx(interval.low * percent, rel=1e-6, abs=1e-6)
    assert effect.upper == pytest.approx(interval.high * percent, rel=1e-6, abs=1e-6)


def test_people_leave_earlier_only_when_it_is_significant_and_below_the_bound() -> None:
    before = Figure(4.0, 1.0, 1000)

    assert worse(welch(before, Figure(3.5, 1.0, 1000)), 0.95)
    assert not worse(welch(before, Figure(3.5, 1.0, 1000)), 0.8)  # not by so much
    assert not worse(welch(before, Figure(3.5, 1.0, 3)), 0.95)  # may be chance
    assert not worse(welch(before, Figure(4.5, 1.0, 1000)), 0.95)


@pytest.mark.parametrize(
    ("control", "treatment"),
    [
        (Figure(1, None, 1), Figure(1, 1, 2)),
        (Figure(1, 1, 2), Figure(1, None, 1)),
        (Figure(0, 1, 2), Figure(1, 1, 2)),
    ],
)
def test_what_cannot_be_compared_is_refused(control: Figure, treatment: Figure) -> None:
    with pytest.raises(SimulatorError):
        welch(control, treatment)


def test_a_saved_result_is_read_whatever_precedes_its_last_line(tmp_path: Path) -> None:
    figures = Figures.of(SITTINGS)
    path = tmp_path / "baseline.json"
    path.write_text("a table\n" + json.dumps(figures.as_json()) + "\n")

    assert read_baseline(path) == figures.user_time_per_session


@pytest.mark.parametrize(
    "text", ["", "no", "[1]", '{"user_time_per_session": {"mean": 1, "var": null, "n": 1}}']
)
def test_what_is_no_result_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(text)

    with pytest.raises(SimulatorError, match=r"baseline\.json"):
        read_baseline(path)


def test_the_log_has_botifys_keys_in_their_order_and_closes_each_session(tmp_path: Path) -> None:
    write_log([sitting(0, 7, 0.5), sitting(1, 9, 0.25)], tmp_path / "data.json")

    lines = [json.loads(line) for line in (tmp_path / "data.json").read_text().splitlines()]

    assert [list(line) for line in lines] == [
        ["message", "timestamp", "user", "track", "time", "latency", "recommendation", "experiments"]
    ] * 4
    assert [(line["message"], line["user"], line["track"], line["time"]) for line in lines] == [
        ("next", 7, 0, 1.0), ("last", 7, 1, 0.5), ("next", 9, 0, 1.0), ("last", 9, 1, 0.25),
    ]  # fmt: skip
    assert [line["recommendation"] for line in lines] == [1, None, 1, None]
