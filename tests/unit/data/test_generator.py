from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data import kion
from models.data.dataset import Dataset
from models.data.generator import Format, generate
from models.data.read import read_dataset
from models.data.splits import global_time, hold_out_users, last_fraction
from service.errors import InputError

N_USERS, N_ITEMS, N_INTERACTIONS = 3_000, 800, 60_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    generate(folder, n_users=N_USERS, n_items=N_ITEMS, n_interactions=N_INTERACTIONS, seed=11)
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return read_dataset(folder)


def test_the_columns_are_kions_in_order(folder: Path) -> None:
    for name, columns in (("interactions", kion.INTERACTIONS), ("users", kion.USERS), ("items", kion.ITEMS)):
        assert tuple(pl.read_csv(folder / f"{name}.csv", n_rows=1).columns) == columns


def test_the_kion_reader_takes_it_whole(folder: Path, dataset: Dataset) -> None:
    assert kion.accepts(folder)
    assert len(dataset) == N_INTERACTIONS
    assert (dataset.n_users, dataset.n_items) == (N_USERS, N_ITEMS)
    assert dict(dataset.dropped) == {}
    pairs = dataset.user_rows.astype(np.int64) * N_ITEMS + dataset.item_rows
    assert len(np.unique(pairs)) == N_INTERACTIONS


def test_values_are_kions(folder: Path) -> None:
    users, items = pl.read_csv(folder / "users.csv"), pl.read_csv(folder / "items.csv")
    assert set(users["sex"].drop_nulls()) == {"М", "Ж"}  # noqa: RUF001
    assert "age_18_24" in set(users["age"])
    assert "income_20_40" in set(users["income"])
    assert users["age"].null_count() > 0
    assert set(items["content_type"]) == {"film", "series"}
    assert items["genres"].str.contains(", ").any()
    text = (folder / "interactions.csv").read_text().splitlines()
    assert text[1].split(",")[2] == "2021-03-13"
    assert text[1].split(",")[4].endswith(".0")


def test_days_run_from_the_first_to_the_last(dataset: Dataset) -> None:
    assert dataset.times is not None
    first, last = datetime(2021, 3, 13, tzinfo=UTC), datetime(2021, 8, 22, tzinfo=UTC)
    assert dataset.times[0] == dataset.times.min() == first.timestamp() * 1000
    assert dataset.times[-1] == dataset.times.max() == last.timestamp() * 1000


def test_some_users_and_items_are_cold_and_some_come_late(dataset: Dataset) -> None:
    of_user = np.bincount(dataset.user_rows, minlength=N_USERS)
    of_item = np.bincount(dataset.item_rows, minlength=N_ITEMS)
    assert 0.05 * N_USERS < (of_user == 0).sum() < 0.12 * N_USERS
    assert (of_item == 0).sum() > 0.01 * N_ITEMS
    split = global_time(dataset, quantile=0.9, warm=True)
    assert split.dropped["cold_user"] > 100
    assert split.dropped["cold_item"] > 10


def test_popularity_is_skewed_and_drifts(dataset: Dataset) -> None:
    of_item = np.sort(np.bincount(dataset.item_rows, minlength=N_ITEMS))[::-1]
    assert of_item[: N_ITEMS // 10].sum() > 0.35 * len(dataset)
    early = np.bincount(dataset.item_rows[: len(dataset) // 4], minlength=N_ITEMS)
    late = np.bincount(dataset.item_rows[-len(dataset) // 4 :], minlength=N_ITEMS)
    one_half = np.bincount(dataset.item_rows[: len(dataset) // 4 : 2], minlength=N_ITEMS)
    other_half = np.bincount(dataset.item_rows[1 : len(dataset) // 4 : 2], minlength=N_ITEMS)
    assert np.corrcoef(early, late)[0, 1] < np.corrcoef(one_half, other_half)[0, 1] - 0.1


def test_what_they_like_they_watch_longer(dataset: Dataset) -> None:
    share, seconds = dataset.signals["watched_pct"], dataset.signals["total_dur"]
    known = ~np.isnan(share)
    assert np.corrcoef(share[known], seconds[known])[0, 1] > 0.4
    fit = (dataset.matrix(binary=True) @ _co_occurrence(dataset)).toarray()
    # How much better it fits than the user's activity and the item's popularity would have it.
    lift = fit[dataset.user_rows, dataset.item_rows]
    lift = lift / (fit.mean(axis=1)[dataset.user_rows] * fit.mean(axis=0)[dataset.item_rows])
    top, bottom = np.quantile(lift, [0.8, 0.2])
    assert share[known & (lift >= top)].mean() > share[known & (lift <= bottom)].mean() + 8


def _co_occurrence(train: Dataset) -> sp.csr_matrix:
    """Cosine of items over users, none with itself."""
    seen = train.matrix(binary=True)
    norm = sp.diags(1 / np.sqrt(np.maximum(np.asarray(seen.sum(axis=0)).ravel(), 1)))
    cosine = (norm @ seen.T @ seen @ norm).tolil()
    cosine.setdiag(0)
    return cosine.tocsr()


def _recall(scores: npt.NDArray[np.floating], train: Dataset, test: Dataset) -> float:
    """Mean recall@10 over test users, items of train left out; scores (n_users, n_items)."""
    seen, relevant = train.matrix(binary=True).toarray() > 0, test.matrix(binary=True).toarray() > 0
    users = np.flatnonzero(relevant.any(axis=1))
    top = np.argsort(-np.where(seen, -np.inf, scores), axis=1, kind="stable")[users, :10]
    hits = relevant[users[:, None], top].sum(axis=1)
    return float(np.mean(hits / np.minimum(relevant[users].sum(axis=1), 10)))


def test_co_occurrence_beats_popularity_by_far(dataset: Dataset) -> None:
    for split in (last_fraction(dataset, 0.2), global_time(dataset, quantile=0.9, warm=True)):
        seen = split.train.matrix(binary=True)
        popular = np.broadcast_to(np.asarray(seen.sum(axis=0)), (N_USERS, N_ITEMS))
        personal = (seen @ _co_occurrence(split.train)).toarray()
        assert _recall(personal, split.train, split.test) > 1.25 * _recall(popular, split.train, split.test)


def test_popularity_in_the_segment_beats_popularity_for_cold_users(dataset: Dataset) -> None:
    assert dataset.users is not None
    ids = np.array(dataset.user_ids.take(np.arange(N_USERS)))
    split = hold_out_users(dataset, ids % 4 == 0)
    label = dataset.users.select(pl.concat_str("age", "sex", ignore_nulls=True))["age"].to_numpy()
    _, segment = np.unique(label.astype(str), return_inverse=True)
    seen = split.train.matrix(binary=True).toarray()
    popular = seen.sum(axis=0)
    by_segment = np.array([seen[segment == s].sum(axis=0) for s in range(segment.max() + 1)])
    # A segment's own counts where there are many, leaning on everybody's where there are few.
    blended = by_segment + 50 * popular / popular.sum()
    everybody = _recall(np.broadcast_to(popular, seen.shape), split.train, split.test)
    assert _recall(blended[segment], split.train, split.test) > 1.08 * everybody


@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path, file_format: Format) -> None:
    def written(name: str, seed: int) -> dict[str, bytes]:
        generate(
            tmp_path / name,
            n_users=300,
            n_items=200,
            n_interactions=3_000,
            seed=seed,
            file_format=file_format,
        )
        return {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}

    first = written("a", 1)
    assert set(first) == {f"{name}.{file_format}" for name in ("interactions", "users", "items")}
    assert written("b", 1) == first
    other = written("c", 2)
    assert all(other[name] != first[name] for name in first)


def test_both_formats_hold_the_same_data(tmp_path: Path) -> None:
    generate(tmp_path / "a", n_users=300, n_items=200, n_interactions=3_000, seed=1, file_format="csv")
    generate(tmp_path / "b", n_users=300, n_items=200, n_interactions=3_000, seed=1, file_format="parquet")
    first, second = read_dataset(tmp_path / "a"), read_dataset(tmp_path / "b")
    assert first.times is not None
    assert second.times is not None
    assert first.user_rows.tolist() == second.user_rows.tolist()
    assert first.item_rows.tolist() == second.item_rows.tolist()
    assert first.times.tolist() == second.times.tolist()
    assert first.users is not None
    assert first.items is not None
    assert second.users is not None
    assert second.items is not None
    assert first.users.equals(second.users)
    assert first.items["genres"].equals(second.items["genres"])


@settings(max_examples=40, deadline=None)
@given(
    n_users=st.integers(1, 60),
    n_items=st.integers(1, 40),
    fill=st.floats(0, 1),
    n_days=st.integers(1, 40),
    seed=st.integers(0, 2**32),
)
def test_any_size_that_is_promised_is_met_exactly(
    tmp_path_factory: pytest.TempPathFactory, n_users: int, n_items: int, fill: float, n_days: int, seed: int
) -> None:
    out = tmp_path_factory.mktemp("size") / "data"
    wanted = max(int(fill * n_users * n_items * 0.25), 1)
    end = date.fromordinal(date(2024, 1, 1).toordinal() + n_days - 1)
    try:
        generate(
            out,
            n_users=n_users,
            n_items=n_items,
            n_interactions=wanted,
            seed=seed,
            start=date(2024, 1, 1),
            end=end,
        )
    except InputError:
        # Only where nearly everything would have to be watched; nothing is left behind.
        assert fill > 0.2
        assert not out.exists()
        return
    dataset = read_dataset(out)
    assert len(dataset) == wanted
    assert (dataset.n_users, dataset.n_items) <= (n_users, n_items)
    assert len(set(zip(dataset.user_rows, dataset.item_rows, strict=True))) == wanted


def test_a_world_is_split_over_runs_without_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.data.taste.CHUNK_USERS", 70)
    monkeypatch.setattr("models.data.generator.WRITE_ROWS", 999)
    generate(tmp_path, n_users=300, n_items=200, n_interactions=3_000, seed=1)
    dataset = read_dataset(tmp_path)
    assert len(dataset) == 3_000
    assert len(set(zip(dataset.user_rows, dataset.item_rows, strict=True))) == 3_000


def test_a_folder_that_holds_data_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv.gz").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"interactions\.csv\.gz is there already"):
        generate(tmp_path, n_users=30, n_items=20, n_interactions=50, seed=1)
    assert [file.name for file in tmp_path.iterdir()] == ["interactions.csv.gz"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_users": 0}, "--users 0"),
        ({"n_items": -1}, "--items -1"),
        ({"n_interactions": 0}, "--interactions 0"),
        ({"seed": -1}, "--seed -1"),
        ({"end": date(2020, 1, 1)}, "--end 2020-01-01"),
        ({"n_interactions": 10_000}, "--interactions 10000: too many"),
    ],
)
def test_a_size_that_makes_no_sense_is_refused_naming_the_flag(
    tmp_path: Path, changed: dict[str, int], message: str
) -> None:
    sizes = {"n_users": 30, "n_items": 20, "n_interactions": 50, "seed": 1} | changed
    with pytest.raises(InputError, match=message):
        generate(tmp_path / "out", **sizes)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
