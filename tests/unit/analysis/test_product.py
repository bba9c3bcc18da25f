from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_logs import DAY_MS, START_MS, feedback, slate, written

from models.analysis.product import measure
from models.analysis.shown import population_stability
from models.events_table import SCHEMA, row_of
from service.cli import main
from service.errors import InputError


def small() -> list[Mapping[str, Any]]:
    """Three users, three slates on two days; the answers below are counted off by hand."""
    day2 = START_MS + DAY_MS
    return [
        slate("a", 1, START_MS, [1, 2, 3]),
        feedback("a1", "view", 1, START_MS + 1_000, item_id=1, request_id="a", value=0.5),
        feedback("a2", "click", 1, START_MS + 2_000, item_id=1, request_id="a"),
        feedback("a3", "click", 1, START_MS + 3_000, item_id=1, request_id="a"),
        feedback("a4", "purchase", 1, START_MS + 60_000, item_id=1, request_id="a", value=30.0),
        feedback("a5", "last", 1, START_MS + 61_000, item_id=1),
        slate("b", 2, START_MS, [1, 2], source="popular"),
        feedback("b1", "click", 2, START_MS + 5_000, item_id=2, request_id="b"),  # not viewed
        feedback("b2", "click", 2, START_MS + 6_000, item_id=9, request_id="b"),  # not shown
        slate("c", 1, day2, [4, 2, 1], model="ease"),
        feedback("c1", "view", 1, day2 + 10_000, item_id=4, request_id="c"),
        feedback("d1", "purchase", 3, day2, item_id=5, value=12.0),
        slate("e", None, day2, [7]),  # a bare history: shown to nobody in particular
    ]


def table(records: list[Mapping[str, Any]]) -> pl.LazyFrame:
    return pl.DataFrame([row_of(one) for one in records], schema=SCHEMA).lazy()


def test_the_funnel_by_hand() -> None:
    steps = {one.name: one for one in measure(table(small())).exposure.funnel}
    assert [(one.events, one.users) for one in steps.values()] == [(4, 2), (2, 1), (4, 2), (2, 2)]
    # Of eight places shown to somebody: viewed a/1, c/4; clicked a/1, b/2; bought a/1.
    assert [one.places for one in steps.values()] == [8, 2, 2, 1]
    assert [one.through for one in steps.values()] == [8, 2, 1, 1]


def test_click_through_rates_by_hand() -> None:
    rates = measure(table(small())).exposure.rates
    found = {key: {one.name: (one.shown, one.clicked) for one in rows} for key, rows in rates.items()}
    assert found["position"] == {"1": (3, 1), "2": (3, 1), "3": (2, 0)}
    assert found["source"] == {"personal": (6, 1), "popular": (2, 1)}
    assert found["model"] == {"als": (5, 2), "ease": (3, 0)}


def test_audience_money_sessions_and_coverage_by_hand() -> None:
    product = measure(table(small()), items=pl.DataFrame({"item_id": [str(n) for n in range(1, 11)]}))
    assert product.daily.tolist() == [2, 2]
    assert product.monthly.tolist() == [2, 3]
    assert product.stickiness == pytest.approx((1 + 2 / 3) / 2)
    money, sessions, coverage = product.money, product.sessions, product.coverage
    assert money is not None
    assert (money.gmv, money.orders, money.buyers, money.per_user, money.per_buyer) == (
        42.0,
        2,
        2,
        14.0,
        21.0,
    )
    assert sessions is not None
    # 61 s closed by its last, 6 s, 10 s, 0 s.
    assert (sessions.count, sessions.seconds_mean, sessions.records_mean) == (4, 77 / 4, 3.0)
    # Shown 1, 2, 3, 4, 7, of ten; 1 and 2 three times each.
    assert (coverage.shown, coverage.acted_on, coverage.catalogue) == (5, 5, 10)
    counts = [0, 0, 0, 0, 0, 1, 1, 1, 3, 3]
    gini = sum((2 * j - 11) * n / 9 for j, n in enumerate(counts, 1)) / 9
    assert coverage.gini == pytest.approx(gini)


def test_a_pause_ends_a_session_and_the_gap_decides_which() -> None:
    records = [feedback(str(at), "view", 1, START_MS + at * 60_000) for at in (0, 10, 50, 55)]
    assert [
        one.count for gap in (5, 30, 60) if (one := measure(table(records), gap_ms=gap * 60_000).sessions)
    ] == [3, 2, 1]


def test_no_amount_no_money() -> None:
    assert measure(table([feedback("p", "purchase", 1, START_MS)])).money is None


def test_drift_tells_a_shift_of_items_from_none() -> None:
    records: list[Mapping[str, Any]] = []
    for day in range(10):
        for n in range(40):
            items = [n % 4, 4 + n % 3] if day < 5 else [6 + n % 3, n % 4]
            records.append(slate(f"{day}-{n}", n, START_MS + day * DAY_MS, items))
    categories = pl.DataFrame({"item_id": [str(n) for n in range(12)], "category": ["a"] * 4 + ["b"] * 8})
    drift = measure(table(records), items=categories).drift
    assert drift["items shown"] > 0.25
    assert drift["categories shown"] < 0.001
    assert drift["models"] < 0.001
    assert (
        measure(table(records), split_ms=START_MS + 2 * DAY_MS, items=categories).drift["items shown"] > 0.1
    )


def test_the_index_by_hand() -> None:
    # Shares (10.5, 30.5) / 41 and (20.5, 20.5) / 41.
    p, q = 10.5 / 41, 0.5
    expected = (q - p) * math.log(q / p) + (p - q) * math.log(q / (1 - p))
    assert population_stability({"a": 10, "b": 30}, {"a": 20, "b": 20}) == pytest.approx(expected)


COUNTS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1000), min_size=1)


@given(one=COUNTS, other=COUNTS)
def test_the_index_is_symmetric_finite_and_0_for_the_same(one: dict[str, int], other: dict[str, int]) -> None:
    found = population_stability(one, other)
    assert 0 <= found < math.inf
    assert found == pytest.approx(population_stability(other, one))
    assert population_stability(one, one) == 0


def test_the_command_prints_a_line_and_writes_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, html, items = written(tmp_path, small()), tmp_path / "p.html", tmp_path / "items.csv"
    items.write_text("item_id,category\n1,x\n2,x\n3,y\n4,y\n7,y\n")
    assert main(["events", "report", "--events", str(log), "--html", str(html), "--items", str(items)]) == 0
    captured = capsys.readouterr()
    summary = orjson.loads(captured.out.splitlines()[-1])
    assert (summary["users"], summary["dau"], summary["days"]) == (3, 2, 2)
    assert summary["coverage"]["catalogue"] == 5
    assert summary["ctr"]["position"]["1"] == {"shown": 3, "ctr": 1 / 3}
    assert "funnel" in captured.err
    page = html.read_text()
    assert page.count("<svg") == 3
    assert "http" not in page


def test_a_log_of_feedback_alone_makes_a_report_and_an_empty_one_is_refused(tmp_path: Path) -> None:
    log = written(tmp_path, [feedback("a", "view", 1, START_MS)])
    assert main(["events", "report", "--events", str(log), "--html", str(tmp_path / "p.html")]) == 0
    with pytest.raises(InputError, match="no record of a user"):
        measure(pl.LazyFrame(schema=SCHEMA))
