from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.data.read import read_dataset
from service.cli import main

SMALL = ["data", "generate", "--users", "300", "--items", "200", "--interactions", "3000", "--seed", "4"]


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_a_small_data_set_is_written_and_summed_up_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file_format: str
) -> None:
    assert main([*SMALL, "--out", str(tmp_path / "demo"), "--format", file_format]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["interactions"] == len(read_dataset(tmp_path / "demo")) == 3000
    assert (summary["users"], summary["items"], summary["seed"]) == (300, 200, 4)


def test_days_are_chosen_by_flags(tmp_path: Path) -> None:
    assert main([*SMALL, "--out", str(tmp_path), "--start", "2024-01-01", "--end", "2024-01-31"]) == 0
    days = {line.split(",")[2] for line in (tmp_path / "interactions.csv").read_text().splitlines()[1:]}
    assert (min(days), max(days)) == ("2024-01-01", "2024-01-31")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--start", "13.03.2021"], "--start"),
        (["--end", "1999-01-01"], "--end"),
        (["--interactions", "100000000"], "--interactions"),
        (["--users", "many"], "--users"),
    ],
)
def test_bad_flags_are_one_message_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], named: str
) -> None:
    assert main([*SMALL, "--out", str(tmp_path / "demo"), *flags]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert named in streams.err
    assert "Traceback" not in streams.err
    assert not (tmp_path / "demo").exists()
