from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
from made_logs import botify_lines, listening

from models.analysis.aa import _moments_of_mean, _moments_of_ratio, _ratio_p, _welch_p, false_positives
from models.analysis.log import opened
from models.analysis.statistics import ratio_difference, welch
from models.analysis.users import user_sums
from service.cli import main
from service.errors import InputError


def test_the_test_of_a_division_is_the_reports() -> None:
    rng = np.random.default_rng(0)
    values, bottom = rng.gamma(2, 3, 200), rng.poisson(5, 200).astype(np.float64) + 1
    values[::7] = np.nan
    treated = rng.random(200) < 0.5
    moments = _moments_of_mean(values)
    p = _welch_p([moments[~treated].sum(axis=0)[None], moments[treated].sum(axis=0)[None]])
    inside = np.isfinite(values)
    expected = welch(values[inside & ~treated], values[inside & treated])
    assert expected is not None
    assert p[0] == pytest.approx(expected.p)
    top = np.nan_to_num(values)
    moments = _moments_of_ratio(top, bottom)
    p = _ratio_p([moments[~treated].sum(axis=0)[None], moments[treated].sum(axis=0)[None]])
    ratio = ratio_difference((top[~treated], bottom[~treated]), (top[treated], bottom[treated]))
    assert ratio is not None
    assert p[0] == pytest.approx(ratio.p)


def test_the_rate_is_nominal_where_nothing_differs(tmp_path: Path) -> None:
    with opened(botify_lines(tmp_path, listening(500))) as log:
        sums = user_sums(log.events)
    found = {one.metric.name: one for one in false_positives(sums, repeats=1000, seed=1)}
    assert set(found) >= {"mean_time_per_session", "mean_tracks_per_session", "time / session"}
    for one in found.values():
        assert one.calibrated
        assert one.lower <= one.rate <= one.upper
    assert "sessions" not in found  # everybody has two: nothing can differ
    again = false_positives(sums, repeats=1000, seed=1)
    assert [one.positives for one in again] == [one.positives for one in found.values()]


def test_a_few_users_who_weigh_too_much_are_found_out(tmp_path: Path) -> None:
    with opened(botify_lines(tmp_path, listening(60))) as log:
        sums = user_sums(log.events)
    # One user with all of the time: the t interval is wrong for so heavy a tail, and the division shows it.
    heavy = sums.with_columns(
        pl.when(pl.arange(pl.len()) == 0).then(1e6).otherwise(pl.col("time")).alias("time")
    )
    one = next(one for one in false_positives(heavy, repeats=1000) if one.metric.name == "time")
    assert not one.calibrated
    assert one.verdict == "finds too little"


def test_the_command_prints_a_line_and_writes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, html = botify_lines(tmp_path, listening(100)), tmp_path / "aa.html"
    assert main(["experiment", "aa", "--events", str(log), "--repeats", "200", "--html", str(html)]) == 0
    captured = capsys.readouterr()
    summary = orjson.loads(captured.out.splitlines()[-1])
    assert summary["repeats"] == 200
    assert all(one["lower"] <= one["rate"] <= one["upper"] for one in summary["metrics"])
    assert html.read_text().count("<svg") == len(summary["metrics"])


def test_too_few_users_are_refused() -> None:
    with pytest.raises(InputError, match="nothing to divide"):
        false_positives(user_sums(pl.LazyFrame(schema=_SCHEMA)))


_SCHEMA = {
    "user_id": pl.String(), "type": pl.String(), "timestamp_ms": pl.Int64(), "value": pl.Float64(),
    "items": pl.List(pl.String()), "latency_ms": pl.Float64(), "degraded": pl.List(pl.String()), "source": pl.String(),
}  # fmt: skip
