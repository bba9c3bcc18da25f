from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

from loadtest.loop.one_page import write_page
from loadtest.loop.report import DayReport, page, table
from loadtest.simulator.comparison import welch
from loadtest.simulator.figures import Figure

DAYS = [
    DayReport(0, "any <track>", 9, Figure(1.5, 0.5, 9), Figure(6, 1, 9), Figure(1.5, 0.5, 5), 40),
    DayReport(
        1,
        "ab12",
        9,
        Figure(2.5, 0.5, 9),
        Figure(7, 1, 9),
        Figure(2.5, 0.5, 5),
        90,
        0.1,
        0.2,
        {"knn/newest": {"share": 0.2}},
        "knn/newest",
        "cd34",
        0.3,
    ),
]


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)


def test_the_table_has_a_row_a_day() -> None:
    rows = [row.split() for row in table(DAYS).splitlines()]

    assert rows[2][:3] == ["1", "ab12", "2.500"]
    assert rows[2][-2:] == ["0.1000", "0.2000"]
    assert len(rows) == 3


def test_a_day_is_json() -> None:
    day = json.loads(json.dumps(DAYS[1].as_json(), allow_nan=False))

    assert day["published"] == "cd34"
    assert day["time_per_session"]["mean"] == 2.5


def test_the_page_stands_alone_and_shows_text_as_text(tmp_path: Path) -> None:
    page(DAYS, welch(DAYS[0].users, DAYS[1].users), tmp_path / "report.html")

    text = (tmp_path / "report.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert "svg" in tags.seen
    assert tags.seen.count("tr") == 3
    assert "script" not in tags.seen
    assert "any &lt;track&gt;" in text
    assert "<track>" not in text


def test_the_one_page_of_an_audience_bench_says_whether_it_holds(tmp_path: Path) -> None:
    better = {
        "control_mean": 2.8, "treatment_mean": 4.2, "effect": 50.0, "lower": 45.0, "upper": 55.0, "p": 1e-9,
        "significant": True, "users": 1900,
    }  # fmt: skip
    same = {
        **better,
        "treatment_mean": 2.81,
        "effect": 0.4,
        "lower": -1.0,
        "upper": 1.8,
        "significant": False,
    }
    path = tmp_path / "report.html"
    write_page(
        {1: {"AUDIENCE": better, "AA": same}}, {"model": "<knn>"}, path, experiment="AUDIENCE", aa="AA"
    )
    text = path.read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.seen.count("tr") == 3
    assert {"svg", "script"} & set(tags.seen) == {"svg"}
    assert "On every seed the model is better" in text
    assert "&lt;knn&gt;" in text
    assert "+50.0%" in text
    write_page({1: {"AUDIENCE": better, "AA": better}}, {}, path, experiment="AUDIENCE", aa="AA")
    assert "It does not hold on every seed" in path.read_text()
