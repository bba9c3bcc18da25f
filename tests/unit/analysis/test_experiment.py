from __future__ import annotations

import warnings
from pathlib import Path

import polars as pl
import pytest
from made_logs import START_MS, botify_line, botify_lines, feedback, listening, slate, written
from scipy import stats

from models.analysis.declared import Declared, read_declared
from models.analysis.experiment import Choices, Experiment, analyse
from models.analysis.log import opened
from models.analysis.users import assignments, user_sums
from service.errors import DataError, InputError
from service.policy.botify_experiments import SHIPPED
from service.policy.experiments_file import read_experiments


def analysed(path: Path, name: str = "E", **more: object) -> Experiment:
    with opened(path) as log:
        return analyse(log.events, assignments(log.events)[name], Choices(resamples=200), **more)  # type: ignore[arg-type]


def tiny(folder: Path) -> Path:
    """Two users a treatment; the numbers in the tests below are worked out by hand from these lines."""
    c, t = {"E": "C"}, {"E": "T1"}
    return botify_lines(
        folder,
        [
            # User 1: sessions of 2 and 1 tracks, then one that is never closed. Lines of different users interleave.
            botify_line("next", 1000, 1, 1.0, 0.001, c),
            botify_line("next", 1001, 3, 0.5, 0.004, t),
            botify_line("last", 2000, 1, 0.5, 0.003, c),
            botify_line("last", 3000, 1, 0.3, 0.002, c),
            botify_line("next", 4000, 1, 9.0, 0.9, c),
            # User 2: one session of 1 track.
            botify_line("last", 1500, 2, 0.6, 0.004, c),
            # User 3: one session of 3 tracks, its lines out of order in the file.
            botify_line("last", 5000, 3, 0.5, 0.002, t),
            botify_line("next", 1002, 3, 1.0, 0.003, t),
            # User 4: one session of 2.
            botify_line("next", 100, 4, 1.0, 0.001, t),
            botify_line("last", 200, 4, 0.0, 0.001, t),
            # User 5 closed none.
            botify_line("next", 100, 5, 1.0, 0.001, t),
        ],
    )


def test_sessions_are_closed_by_last_and_unclosed_ones_dropped(tmp_path: Path) -> None:
    with opened(tiny(tmp_path)) as log:
        sums = user_sums(log.events).filter(pl.col("sessions") > 0)
    rows = {row["user_id"]: row for row in sums.iter_rows(named=True)}
    assert list(rows) == ["1", "2", "3", "4"]
    assert [rows[u]["sessions"] for u in rows] == [2, 1, 1, 1]
    assert [rows[u]["tracks"] for u in rows] == [3, 1, 3, 2]
    assert [rows[u]["time"] for u in rows] == pytest.approx([1.8, 0.6, 2.0, 1.0])
    assert [rows[u]["latency_ms"] for u in rows] == pytest.approx([6.0, 4.0, 9.0, 2.0])


def test_user_means_variances_and_intervals_by_hand(tmp_path: Path) -> None:
    found = {one.metric.name: one for one in analysed(tiny(tmp_path)).comparisons}
    means: dict[str, tuple[list[float], list[float]]] = {
        # users 1, 2 (control) and 3, 4 (treatment)
        "time": ([1.8, 0.6], [2.0, 1.0]),
        "sessions": ([2, 1], [1, 1]),
        "mean_request_latency": ([2.0, 4.0], [3.0, 1.0]),
        "mean_tracks_per_session": ([1.5, 1.0], [3.0, 2.0]),
        "mean_time_per_session": ([0.9, 0.6], [2.0, 1.0]),
    }
    for name, (control, treatment) in means.items():
        one = found[name]
        assert one.users == (2, 2)
        assert one.difference.control == pytest.approx(sum(control) / 2), name
        assert one.difference.treatment == pytest.approx(sum(treatment) / 2), name
        assert one.variances == pytest.approx(tuple((a - b) ** 2 / 2 for a, b in (control, treatment))), name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # scipy doubts values that are equal
            low, high = stats.ttest_ind(treatment, control, equal_var=False).confidence_interval(0.95)
        document = one.as_json()
        assert document["lower"] == pytest.approx(100 * low / (sum(control) / 2)), name
        assert document["upper"] == pytest.approx(100 * high / (sum(control) / 2)), name
    assert found["mean_time_per_session"].as_json()["effect"] == pytest.approx(100.0)


def test_an_export_and_a_folder_of_botify_pieces_give_the_same(tmp_path: Path) -> None:
    whole = tiny(tmp_path)
    lines = whole.read_bytes().splitlines(keepends=True)
    folder = tmp_path / "log"
    folder.mkdir()
    (folder / "data.json.1").write_bytes(b"".join(lines[:5]))
    (folder / "data.json").write_bytes(b"".join(lines[5:]))
    assert analysed(folder).as_json() == analysed(whole).as_json()


def test_a_lift_is_found_and_the_past_narrows_its_interval(tmp_path: Path) -> None:
    found = analysed(botify_lines(tmp_path, listening(800, lift=0.06, past=True)))
    one = next(one for one in found.comparisons if one.metric.name == "mean_time_per_session")
    assert found.past_users == 800
    assert one.verdict == "better"
    assert one.adjusted is not None
    assert one.adjusted.standard_error < 0.85 * one.difference.standard_error
    assert one.difference.lower < one.adjusted.effect < one.difference.upper


def test_a_session_before_the_start_is_the_past_and_no_part_of_the_effect(tmp_path: Path) -> None:
    with_past = analysed(botify_lines(tmp_path, listening(60, past=True, seed=5)))
    assert with_past.began_ms >= START_MS
    assert {one.users for one in with_past.comparisons} == {(with_past.users["C"], with_past.users["T1"])}
    sessions = next(one for one in with_past.comparisons if one.metric.name == "sessions")
    assert sessions.difference.control == 2.0
    assert sessions.verdict == "no difference"


def test_who_saw_two_treatments_is_left_out_and_told(tmp_path: Path) -> None:
    lines = [*listening(40, seed=1), botify_line("last", START_MS * 2, 7, 0.1, 0.001, {"E": "C"}),
             botify_line("last", START_MS * 2 + 1, 7, 0.1, 0.001, {"E": "T1"})]  # fmt: skip
    found = analysed(botify_lines(tmp_path, lines))
    assert found.mixed == 1
    assert sum(found.users.values()) == 39
    assert any("several treatments" in alarm for alarm in found.alarms)


def test_a_split_other_than_declared_raises_an_alarm(tmp_path: Path) -> None:
    path = botify_lines(tmp_path, listening(600, share=0.7))
    assert any("mismatch" in alarm for alarm in analysed(path).alarms)
    assert not analysed(path, weights={"C": 3.0, "T1": 7.0}).alarms
    with pytest.raises(InputError, match="has treatment 'T1', declared are C, X"):
        analysed(path, weights={"C": 1.0, "X": 1.0})


def test_guardrails_tell_a_treatment_that_falls_back_and_is_slow(tmp_path: Path) -> None:
    records = [
        slate(
            f"{user}-{n}", user, START_MS + n, [1, 2, 3], treatments={"E": "T1" if user % 2 else "C"},
            source="popular" if user % 2 and n % 3 == 0 else "personal",
            latency_ms=(6.0 if user % 2 else 2.0) + (user * 7 + n) % 5 / 10,
        )
        for user in range(60)
        for n in range(4 + user % 3)
    ]  # fmt: skip
    found = analysed(written(tmp_path, records))
    assert [one.treatment for one in found.latency] == ["C", "T1"]
    assert found.latency[1].p50 > 5.9 > found.latency[0].p99
    worse = {one.metric.name for one in found.guardrails if one.verdict == "worse"}
    assert worse == {"fallback / slate", "latency_ms / answer"}
    assert len(found.alarms) == 2


def test_clicks_count_everybody_assigned_also_who_did_nothing(tmp_path: Path) -> None:
    records = [
        slate(f"r{user}", user, START_MS, [1, 2], treatments={"E": "T1" if user > 2 else "C"})
        for user in range(1, 7)
    ] + [feedback(f"c{user}{n}", "click", user, START_MS + 1) for user in (1, 4, 5) for n in range(user)]
    one = next(one for one in analysed(written(tmp_path, records)).comparisons if one.metric.name == "clicks")
    assert one.users == (2, 4)
    assert one.difference.control == 0.5
    assert one.difference.treatment == 9 / 4


def test_declarations_of_both_kinds_are_read(tmp_path: Path) -> None:
    ours = tmp_path / "ours.toml"
    ours.write_text(
        "[experiments.ranking]\ncontrol = 'old'\nstart = 2026-01-01T00:00:00Z\n"
        "[experiments.ranking.treatments]\nold = { weight = 3 }\nnew = {}\n"
    )
    assert read_declared(ours) == {"ranking": Declared({"old": 3.0, "new": 1.0}, "old", START_MS, None)}
    served = read_experiments(ours).experiments["ranking"]  # the service reads the same
    assert {name: one.weight for name, one in served.treatments.items()} == {"old": 3.0, "new": 1.0}
    shipped = read_declared(SHIPPED)
    assert shipped["TOP_POP"].weights == {"C": 1.0, "T1": 1.0, "T2": 1.0, "T3": 1.0}
    botify = tmp_path / "botify.toml"
    botify.write_text("[AA]\nsplit = 2\n[TOP]\ntreatments = [{ recommender = 'random' }]\n")
    assert read_declared(botify) == {
        "AA": Declared({"C": 1.0, "T1": 1.0}, "C"),
        "TOP": Declared({"C": 1.0}, "C"),
    }
    ours.write_text("[experiments.ranking.treatments]\nold = { weight = -1 }\n")
    with pytest.raises(
        InputError, match=r"experiments.ranking\] treatments.old.weight: must be a number above 0"
    ):
        read_declared(ours)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"message": "next"', "row 2: not JSON"),
        (b'{"message": "stop", "timestamp": 1, "user": 1, "track": 1, "time": 1, "latency": 1, "experiments": {}}',
         "row 2, column 'message': must be next or last"),
        (b'{"message": "last", "timestamp": 1, "user": 1, "track": 1, "time": "x", "latency": 1, "experiments": {}}',
         "row 2, column 'time': must be a number"),
        (b'{"type": "view", "event_id": "1", "user_id": 1}', "row 2, column 'timestamp_ms': missing key"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = botify_lines(tmp_path, [botify_line("last", 1, 1, 1.0, 0.1, {})])
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(DataError, match=message), opened(path):
        pass


def test_a_table_that_is_no_export_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pl.DataFrame({"user_id": ["1"]}).write_parquet(path)
    with pytest.raises(InputError, match="no column 'event_id'"), opened(path):
        pass
    with pytest.raises(InputError, match="there is no"), opened(tmp_path / "nothing"):
        pass
