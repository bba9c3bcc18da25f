from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest
from events_at import feedback, impression, logging_to
from made_logs import botify_lines, listening

from service.cli import main
from service.domain import Slate


def test_reports_botifys_log_as_a_table_a_line_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = botify_lines(tmp_path, listening(400, lift=0.2, past=True))
    html = tmp_path / "report.html"
    assert main(["experiment", "report", "--events", str(log), "--html", str(html)]) == 0
    captured = capsys.readouterr()
    (experiment,) = orjson.loads(captured.out.splitlines()[-1])["experiments"]
    metric = next(one for one in experiment["metrics"] if one["metric"] == "mean_time_per_session")
    assert metric["significant"]
    assert metric["lower"] < metric["effect"] < metric["upper"]
    assert metric["cuped"]["variance_removed"] > 0.2
    assert "mean_time_per_session" in captured.err
    page = html.read_text()
    assert page.count("<svg") == 1
    assert "mean_time_per_session" in page
    assert "src=" not in page
    assert "http" not in page


def test_reads_the_folder_that_a_service_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def write() -> None:
        async with logging_to(tmp_path / "events") as log:
            for user in range(40):
                slate = Slate([10, 12], [1.5, 0.5], "personal", 2, "popular", (), ())
                log.emit(
                    impression(
                        f"r{user}",
                        user_id=user,
                        slate=slate,
                        treatments={"E": "new" if user % 2 else "control"},
                    )
                )
                if user % 2 or user % 4 == 0:
                    await log.append(
                        [
                            feedback(
                                f"c{user}",
                                type="click",
                                user_id=user,
                                request_id=f"r{user}",
                                timestamp_ms=1_700_000_001_000,
                            )
                        ]
                    )

    asyncio.run(write())
    assert main(["experiment", "report", "--events", str(tmp_path / "events"), "--experiment", "E"]) == 0
    (experiment,) = orjson.loads(capsys.readouterr().out.splitlines()[-1])["experiments"]
    clicks = next(one for one in experiment["metrics"] if one["metric"] == "clicks")
    assert experiment["control"] == "control"
    assert experiment["users"] == {"control": 20, "new": 20}
    assert (clicks["control_mean"], clicks["treatment_mean"]) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--experiment", "X"], "the log has no 'X'; it has E"),
        (["--control", "X"], "experiment E: the log has no control 'X'; it has C, T1"),
        (["--experiments", "none.toml"], "none.toml"),
    ],
)
def test_what_the_log_has_not_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    log = botify_lines(tmp_path, listening(10))
    assert main(["experiment", "report", "--events", str(log), *flags]) == 2
    assert message in capsys.readouterr().err
