from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.build.assemble import assemble
from models.build.scoring import exam_of, ndcg
from models.build.tune import tune, tuning_split
from models.data.dataset import Dataset
from models.data.splits import validation_split
from models.data.windows import in_window
from models.evaluation.run import evaluate_model
from models.popularity.popularity import Config, train
from models.popularity.segments import segment_choices, segments_of
from models.trained import TrainedModel
from service.bundle.ids import UNKNOWN, IntIds
from service.bundle.reader import load_bundle
from service.errors import InputError
from service.recommender.filters import EVERYTHING
from service.recommender.live import go_live
from service.recommender.user_state import UserState


def data(
    events: list[tuple[int, int, str]],
    *,
    n_users: int = 4,
    n_items: int = 4,
    weights: list[float] | None = None,
    users: pl.DataFrame | None = None,
) -> Dataset:
    """events: (user row, item row, ISO moment)."""
    moments = [
        datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp() * 1000 for _, _, moment in events
    ]
    return Dataset(
        name="fixture",
        user_ids=IntIds(np.arange(n_users)),
        item_ids=IntIds(np.arange(n_items)),
        user_rows=np.array([user for user, _, _ in events], np.int32),
        item_rows=np.array([item for _, item, _ in events], np.int32),
        weights=np.array(weights or [1.0] * len(events), np.float32),
        times=np.array(moments, np.int64),
        time_kind="timestamp",
        users=users,
    )


def segment(model: TrainedModel, number: int) -> list[int]:
    begin, end = model.arrays["indptr"][number : number + 2]
    listed: list[int] = model.arrays["items"][begin:end].tolist()
    return listed


# Item 0 is the favourite of all time, item 1 of the last week, item 2 was read twice, item 3 never.
DRIFT = [
    (0, 0, "2021-08-01"), (1, 0, "2021-08-02"), (2, 0, "2021-08-03"), (3, 0, "2021-08-03"),
    (0, 2, "2021-08-14"), (1, 2, "2021-08-15"),
    (0, 1, "2021-08-16"), (1, 1, "2021-08-20T09:30"), (2, 1, "2021-08-21T23:00"),
]  # fmt: skip


def test_all_time_counts_every_event() -> None:
    model = train(data(DRIFT), Config())
    assert segment(model, 0) == [0, 1, 2, 3]
    assert model.arrays["scores"].tolist() == [4, 3, 2, 0]


def test_window_counts_dates_after_the_last_midnight_less_the_days() -> None:
    # max.normalize() is 2021-08-21T00:00; less 7 days 2021-08-14T00:00, which itself is out.
    kept = in_window(data(DRIFT), 7)
    assert kept.tolist() == [False] * 4 + [False, True, True, True, True]


def test_windowed_list_orders_the_rest_by_all_time_and_then_by_row() -> None:
    model = train(data(DRIFT), Config(days=5))
    assert segment(model, 0) == [1, 0, 2, 3]
    assert model.arrays["scores"].tolist() == [2, 0, 0, 0]


def test_half_life_weighs_an_event_by_its_age_in_days() -> None:
    events = [(0, 0, "2021-08-01"), (1, 0, "2021-08-01"), (2, 1, "2021-08-11")]
    model = train(data(events, n_items=2), Config(half_life=10))
    assert model.arrays["scores"].tolist() == pytest.approx([1.0, 1.0])
    model = train(data(events, n_items=2), Config(half_life=5))
    assert segment(model, 0) == [1, 0]
    assert model.arrays["scores"].tolist() == pytest.approx([1.0, 0.5])


def test_positions_know_no_window() -> None:
    dated = data(DRIFT)
    ordered = Dataset(
        **{
            name: getattr(dated, name)
            for name in ("name", "user_ids", "item_ids", "user_rows", "item_rows", "weights", "times")
        },
        time_kind="position",
    )
    assert segment(train(ordered, Config(days=1)), 0) == [0, 1, 2, 3]


def test_socdem_segments_fill_missing_values_with_unknown() -> None:
    users = pl.DataFrame(
        {
            "age": ["18_24", "18_24", None, None],
            "sex": ["F", "F", "M", None],
            "kids_flg": [0, 1, 0, 1],
        }
    )
    events = [
        (0, 1, "2021-08-20"), (1, 1, "2021-08-20"), (0, 0, "2021-08-20"),
        (2, 2, "2021-08-20"), (3, 0, "2021-08-20"), (3, 0, "2021-08-21"),
    ]  # fmt: skip
    model = train(data(events, users=users), Config(days=21, segments=("age", "sex"), smoothing=0))
    assert model.parameters["segments"] == ["all", "age=18_24,sex=F", "age=unknown,sex=M"]
    assert model.arrays["user_segment"].tolist() == [1, 1, 2, 0]
    assert segment(model, 0) == [0, 1, 2, 3]
    assert segment(model, 1)[:2] == [1, 0]
    assert segment(model, 2)[0] == 2
    # What the segment never read is filled in everybody's order.
    assert segment(model, 1)[2:] == [2, 3]
    assert segment(model, 2)[1:] == [0, 1, 3]


def test_smoothing_holds_a_small_segment_towards_everybody() -> None:
    users = pl.DataFrame({"sex": ["F", "M", "M", "M"]})
    events = [(0, 3, "2021-08-20")] + [(user, 0, "2021-08-20") for user in (1, 2, 3)] * 3
    trusting = train(data(events, users=users), Config(segments=("sex",), smoothing=0))
    careful = train(data(events, users=users), Config(segments=("sex",), smoothing=100))
    female = trusting.parameters["segments"].index("sex=F")
    assert segment(trusting, female)[0] == 3
    assert segment(careful, female)[0] == 0
    # (1 event + 100 * 0.1) / (1 + 100) of item 3, everybody's share of which is 1/10.
    begin = careful.arrays["indptr"][female]
    assert careful.arrays["scores"][begin + 1] == pytest.approx(11 / 101)


def test_mean_rating_is_held_towards_the_mean_of_all() -> None:
    events = [(0, 0, "2021-08-20"), (0, 1, "2021-08-20"), (1, 1, "2021-08-20"), (2, 1, "2021-08-20")]
    rated = replace(data(events, n_items=3), ratings=np.array([5, 4, 4, 4], np.float32))
    assert segment(train(rated, Config(measure="mean", smoothing=0)), 0)[0] == 0
    held = train(rated, Config(measure="mean", smoothing=2))
    mean = 17 / 4
    expected = {0: (5 + 2 * mean) / 3, 1: (12 + 2 * mean) / 5, 2: mean}
    assert dict(zip(segment(held, 0), held.arrays["scores"].tolist(), strict=True)) == pytest.approx(expected)


def test_numbers_of_many_values_are_binned() -> None:
    users = pl.DataFrame({"age": [*range(10, 60), None]})
    numbers, names = segments_of(data([(0, 0, "2021-08-20")], n_users=51, users=users), ["age"])
    assert names == ["all", "age=<19.8", "age=>=19.8", "age=>=29.6", "age=>=39.4", "age=>=49.2"]
    assert np.bincount(numbers).tolist() == [1, 10, 10, 10, 10, 10]


def test_age_and_sex_are_tried_first_and_lists_never() -> None:
    users = pl.DataFrame(
        {
            "city": ["a", "b", "c", "d"],
            "age": [1, 2, 3, 4],
            "gender": ["F", "M", "F", "M"],
            "tags": [["x"], ["y"], [], None],
        }
    )
    choices = segment_choices(data([(0, 0, "2021-08-20")], users=users))
    assert choices[:2] == [(), ("age", "gender")]
    assert not any("tags" in choice for choice in choices)


def test_a_missing_segment_column_is_named() -> None:
    with pytest.raises(InputError, match="'height'"):
        train(data(DRIFT), Config(segments=("height",)))


@pytest.mark.parametrize("config", [Config(days=0), Config(half_life=-1), Config(smoothing=-1)])
def test_settings_out_of_range_are_refused(config: Config) -> None:
    with pytest.raises(InputError, match="popularity"):
        train(data(DRIFT), config)


@given(
    events=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(1, 28)), min_size=1, max_size=60
    ),
    days=st.none() | st.integers(1, 30),
    half_life=st.none() | st.floats(0.5, 30),
    measure=st.sampled_from(["count", "weight", "mean"]),
    by=st.sampled_from([(), ("sex",)]),
)
def test_everybody_gets_every_item_once_and_scores_never_rise(
    events: list[tuple[int, int, int]],
    days: int | None,
    half_life: float | None,
    measure: str,
    by: tuple[str, ...],
) -> None:
    users = pl.DataFrame({"sex": ["F", "M", None, "F", "M", "F"]})
    dated = data([(u, i, f"2021-08-{day:02d}") for u, i, day in events], n_users=6, n_items=8, users=users)
    model = train(dated, Config(days=days, half_life=half_life, measure=measure, segments=by))  # type: ignore[arg-type]
    assert sorted(segment(model, 0)) == list(range(8))
    indptr, scores = model.arrays["indptr"], model.arrays["scores"]
    for begin, end in pairwise(indptr.tolist()):
        assert (np.diff(scores[begin:end]) <= 0).all()
        assert len(set(model.arrays["items"][begin:end].tolist())) == end - begin
    assert np.isfinite(scores).all()
    assert model.arrays["user_segment"].max() < len(model.parameters["segments"]) == len(indptr) - 1


def test_an_event_without_a_rating_says_nothing_of_the_mean() -> None:
    events = [(0, 0, "2021-08-20"), (1, 0, "2021-08-20"), (0, 1, "2021-08-20")]
    rated = replace(data(events, n_items=2), ratings=np.array([5, np.nan, 3], np.float32))
    model = train(rated, Config(measure="mean", smoothing=0))
    assert dict(zip(segment(model, 0), model.arrays["scores"].tolist(), strict=True)) == {0: 5.0, 1: 3.0}


# Everybody ends with item 0, which makes it the favourite; men begin with item 1, women with item 2.
BEGUN = [
    (user, item, f"2021-08-{day:02d}")
    for user, opening in enumerate((1, 1, 1, 2))
    for day, item in enumerate((opening, 3, 0, 0), start=1)
]  # fmt: skip
SEXES = pl.DataFrame({"sex": ["M", "M", "M", "F", "F", None]})


def test_users_without_history_have_lists_of_what_is_read_first() -> None:
    begun = data(BEGUN, n_users=6, users=SEXES)
    model = train(begun, Config(first=1, segments=("sex",), smoothing=1))
    behind = model.parameters["first_lists"]
    assert model.parameters["segments"] == ["all", "sex=F", "sex=M"]
    assert behind == 3
    assert segment(model, 0) == [0, 3, 1, 2]
    assert segment(model, behind) == [1, 2, 0, 3]
    assert segment(model, 1 + behind)[0] == 2
    assert segment(model, 2 + behind)[0] == 1
    # The lists of those with a history are what they were.
    plain = train(begun, Config(segments=("sex",), smoothing=1))
    assert [segment(model, number) for number in range(3)] == [segment(plain, number) for number in range(3)]


def test_without_an_order_nobody_reads_anything_first() -> None:
    unordered = replace(data(BEGUN), times=None, time_kind=None)
    assert "first_lists" not in train(unordered, Config(first=1)).parameters


def test_a_history_decides_which_of_a_segments_two_lists_is_served(tmp_path: Path) -> None:
    begun = data(BEGUN, n_users=6, users=SEXES)
    model = train(begun, Config(first=1, segments=("sex",)))
    path = assemble(tmp_path, begun, {"popular": model}, default_model="popular", index="none").path
    popular = go_live(load_bundle(path)).popular
    nothing, something = np.zeros(0, np.int32), np.array([3], np.int32)
    # A user without known features, a woman, a man, and somebody the bundle doesn't know.
    for row, number in ((5, 0), (3, 1), (0, 2), (UNKNOWN, 0)):
        known, new = (UserState(row, history, live=True) for history in (something, nothing))
        assert popular.segment_of(known) == number
        assert popular.segment_of(new) == number + 3
        for user in (known, new):
            found = popular.retrieve(user, 2, EVERYTHING)
            assert found is not None
            assert found.source == ("segment_popular" if number else "popular")
            assert found.item_rows.tolist() == segment(model, popular.segment_of(user))[:2]


def test_tuning_asks_users_without_history_as_the_serving_line_answers_them(tmp_path: Path) -> None:
    """Everybody begins with 20 of 60 items and goes on with 40 of 50 others, which are thus read more."""
    generator = np.random.default_rng(4)
    events = []
    for user in range(150):
        items = [*generator.permutation(60)[:20].tolist(), *(60 + generator.permutation(50)[:40]).tolist()]
        events += [
            (user, item, f"2021-{1 + day // 28:02d}-{1 + day % 28:02d}") for day, item in enumerate(items)
        ]
    ordered = replace(data(events, n_users=150, n_items=110), time_kind="position")
    split = tuning_split("popular", ordered, validation_split(ordered))
    assert split.name == "user_cold"
    found = tune("popular", split, "quick")
    assert found.config.first is not None
    exam = exam_of(split.train, split.test, max_users=1000, seed=0, with_cold=True)
    models = {"popular": train(split.train, found.config)}
    path = assemble(tmp_path, split.train, models, default_model="popular", index="none").path
    users, items = (
        split.test.user_ids.take(split.test.user_rows),
        split.test.item_ids.take(split.test.item_rows),
    )
    served = evaluate_model(go_live(load_bundle(path)), "popular", users, items, k=10).metrics["NDCG@10"]
    assert served == pytest.approx(float(ndcg(models["popular"], exam).mean()), abs=1e-6)
    plain = train(split.train, replace(found.config, first=None))
    assert served > 0.2 + float(ndcg(plain, exam).mean())
