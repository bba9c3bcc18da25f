"""`reco bundle import` on files of every kind it reads, and what it says of those it can't use."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import polars as pl
import pytest
import scipy.sparse as sp
from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking
from implicit.utils import check_blas_config
from safetensors.numpy import save_file
from threadpoolctl import threadpool_limits

from service import cli
from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.domain import Deadline, Plan, Query
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend
from service.recommender.similar import similar

Vectors = npt.NDArray[np.float32]
N_ITEMS, N_USERS, DIM = 30, 12, 6


@pytest.fixture
def items() -> Vectors:
    return np.random.default_rng(1).normal(size=(N_ITEMS, DIM)).astype(np.float32)


@pytest.fixture
def users() -> Vectors:
    return np.random.default_rng(2).normal(size=(N_USERS, DIM)).astype(np.float32)


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Every user's three events: of user u the items u, u + 1 and 0."""
    path = tmp_path / "interactions.csv"
    rows = [(f"u{u}", f"i{i}", t) for u in range(N_USERS) for t, i in enumerate((u + 2, u + 1, 0))]
    write_csv(path, ("user_id", "item_id", "pos"), rows)
    return path


@pytest.fixture
def item_ids(tmp_path: Path) -> Path:
    path = tmp_path / "item_ids.txt"
    path.write_text("".join(f"i{row}\n" for row in range(N_ITEMS)))
    return path


@pytest.fixture
def user_ids(tmp_path: Path) -> Path:
    path = tmp_path / "user_ids.txt"
    path.write_text("".join(f"u{row}\n" for row in range(N_USERS)))
    return path


Import = Callable[..., dict[str, Any]]


@pytest.fixture
def run_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Import:
    """Run the command with these flags; gives the JSON of its last line."""

    def run(*flags: object) -> dict[str, Any]:
        code = cli.main(["bundle", "import", "--out", str(tmp_path / "artifacts"), *map(str, flags)])
        out, err = capsys.readouterr()
        assert code == 0, err
        summary: dict[str, Any] = orjson.loads(out.splitlines()[-1])
        return summary

    return run


@pytest.fixture
def complaint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command with these flags; gives its one line of complaint."""

    def run(*flags: object) -> str:
        out = tmp_path / "artifacts"
        assert cli.main(["bundle", "import", "--out", str(out), *map(str, flags)]) == cli.BAD_INPUT
        printed, err = capsys.readouterr()
        assert printed == ""
        assert err.count("\n") == 1
        assert not list(out.glob("bundles/*"))
        return err

    return run


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def live_of(summary: dict[str, Any]) -> LiveBundle:
    return go_live(load_bundle(Path(summary["path"])))


def asked(live: LiveBundle, user: Any, k: int = 5, **query: Any) -> Any:
    name = live.resolve("default").name
    return recommend(Query(user, k, **query), Plan(name), live, Deadline.none())


def save_npy(path: Path, vectors: Vectors) -> None:
    np.save(path, vectors)


def save_npy_float64(path: Path, vectors: Vectors) -> None:
    np.save(path, vectors.astype(np.float64))


def save_npz(path: Path, vectors: Vectors) -> None:
    np.savez(path, vectors=vectors, ids=np.arange(len(vectors)))


def save_safetensors(path: Path, vectors: Vectors) -> None:
    save_file({"embedding.weight": vectors}, path)


def save_parquet_lists(path: Path, vectors: Vectors) -> None:
    pl.DataFrame({"vector": vectors.tolist()}).write_parquet(path)


def save_parquet_arrays(path: Path, vectors: Vectors) -> None:
    pl.DataFrame({"vector": vectors}, schema={"vector": pl.Array(pl.Float32, DIM)}).write_parquet(path)


def save_parquet_columns(path: Path, vectors: Vectors) -> None:
    pl.DataFrame({f"d{i}": vectors[:, i] for i in range(DIM)}).write_parquet(path)


VECTOR_FILES: dict[str, Callable[[Path, Vectors], None]] = {
    "a.npy": save_npy,
    "b.npy": save_npy_float64,
    "c.npz": save_npz,
    "d.safetensors": save_safetensors,
    "e.parquet": save_parquet_lists,
    "f.parquet": save_parquet_arrays,
    "g.parquet": save_parquet_columns,
}


@pytest.mark.parametrize("name", VECTOR_FILES)
def test_vectors_of_every_kind_of_file_answer_as_brute_force_does(
    name: str,
    items: Vectors,
    users: Vectors,
    item_ids: Path,
    user_ids: Path,
    tmp_path: Path,
    run_import: Import,
) -> None:
    VECTOR_FILES[name](tmp_path / name, items)
    save_npy(tmp_path / "users.npy", users)
    summary = run_import(
        "--item-vectors", tmp_path / name, "--item-ids", item_ids,
        "--user-vectors", tmp_path / "users.npy", "--user-ids", user_ids, "--name", "mine",
    )  # fmt: skip
    assert summary["model"] == "mine"
    assert (summary["users"], summary["items"], summary["dim"], summary["space"]) == (
        N_USERS,
        N_ITEMS,
        DIM,
        "ip",
    )
    assert summary["recall"]["at_10"] == 1.0
    live = live_of(summary)
    for user in range(N_USERS):
        slate = asked(live, f"u{user}")
        best = np.argsort(-(items @ users[user]))[:5]
        assert slate.item_ids == [f"i{row}" for row in best]
        assert slate.source == "personal"


@pytest.mark.parametrize("space", ["ip", "cosine", "l2"])
@pytest.mark.parametrize("index", ["auto", "exact", "hnsw", "ivf", "none"])
def test_every_space_and_index_choice_gives_the_nearest(
    space: str, index: str, items: Vectors, users: Vectors, tmp_path: Path, run_import: Import
) -> None:
    save_npy(tmp_path / "items.npy", items)
    save_npy(tmp_path / "users.npy", users)
    flags = ("--item-vectors", tmp_path / "items.npy", "--user-vectors", tmp_path / "users.npy")
    summary = run_import(*flags, "--space", space, "--index", index)
    assert summary["retriever"] in (
        ("exact", "hnsw") if index == "auto" else (index if index in ("hnsw", "ivf") else "exact",)
    )
    live = live_of(summary)
    for user in range(N_USERS):
        nearness = {
            "ip": items @ users[user],
            "cosine": items @ users[user] / np.linalg.norm(items, axis=1),
            "l2": -np.linalg.norm(items - users[user], axis=1),
        }[space]
        assert asked(live, user).item_ids == np.argsort(-nearness)[:5].tolist()


ID_FILES: dict[str, Callable[[Path, list[str]], object]] = {
    "ids.txt": lambda path, ids: path.write_text("\n".join(ids)),  # no newline at the end
    "ids.txt.gz": lambda path, ids: path.write_bytes(gzip.compress("\r\n".join(ids).encode())),
    "ids.csv": lambda path, ids: write_csv(path, ("row", "item_id"), list(enumerate(ids))),
    "one.csv": lambda path, ids: write_csv(path, ("anything",), [(one,) for one in ids]),
    "ids.npy": lambda path, ids: np.save(path, np.array(ids)),
    "ids.json": lambda path, ids: path.write_bytes(orjson.dumps(ids)),
    "ids.parquet": lambda path, ids: pl.DataFrame({"id": ids}).write_parquet(path),
}


@pytest.mark.parametrize("name", ID_FILES)
def test_ids_of_every_kind_of_file_name_the_rows(
    name: str, items: Vectors, tmp_path: Path, run_import: Import
) -> None:
    ids = [f"film {(7 * row) % N_ITEMS}" for row in range(N_ITEMS)]
    ID_FILES[name](tmp_path / name, ids)
    save_npy(tmp_path / "items.npy", items)
    live = live_of(run_import("--item-vectors", tmp_path / "items.npy", "--item-ids", tmp_path / name))
    unit = items / np.linalg.norm(items, axis=1, keepdims=True)
    for row in range(N_ITEMS):
        nearness = unit @ unit[row]
        nearness[row] = -np.inf
        expected = [ids[other] for other in np.argsort(-nearness)[:3]]
        assert [item for item, _ in similar(ids[row], 3, "default", live)] == expected


def test_ids_stand_beside_the_vectors_in_parquet(items: Vectors, tmp_path: Path, run_import: Import) -> None:
    frame = pl.DataFrame({"item_id": np.arange(N_ITEMS) * 10 + 5, "vector": items.tolist()}).reverse()
    frame.write_parquet(tmp_path / "items.parquet")
    live = live_of(run_import("--item-vectors", tmp_path / "items.parquet"))
    assert live.bundle.item_ids.take(np.arange(N_ITEMS)) == list(range(5, 10 * N_ITEMS, 10))
    slate = asked(live, None, history=(5,))
    nearness = items @ items[0]
    nearness[0] = -np.inf
    assert slate.item_ids == [10 * row + 5 for row in np.argsort(-nearness)[:5].tolist()]


@pytest.fixture
def matrix() -> sp.csr_matrix:
    generator = np.random.default_rng(5)
    return sp.csr_matrix((generator.random((N_USERS, N_ITEMS)) < 0.2).astype(np.float32))


@pytest.fixture
def als(matrix: sp.csr_matrix) -> Any:
    with threadpool_limits(1, "blas"):
        check_blas_config()
        model = AlternatingLeastSquares(DIM, regularization=0.5, alpha=3.0, random_state=1, num_threads=1)
        model.fit(matrix, show_progress=False)
    return model


def test_what_implicit_saved_answers_as_implicit_does(
    als: Any, matrix: sp.csr_matrix, tmp_path: Path, item_ids: Path, user_ids: Path, run_import: Import
) -> None:
    als.save(str(tmp_path / "als.npz"))
    write_csv(
        tmp_path / "interactions.csv",
        ("user_id", "item_id"),
        [(f"u{user}", f"i{item}") for user, item in zip(*matrix.nonzero(), strict=True)],
    )
    summary = run_import(
        "--item-vectors", tmp_path / "als.npz", "--item-ids", item_ids, "--user-ids", user_ids,
        "--history", tmp_path / "interactions.csv", "--drop-zero",
    )  # fmt: skip
    assert summary["fold_in"] == "as ALS solves it"
    assert summary["popularity"] == "events of the history"
    live = live_of(summary)
    for user in range(N_USERS):
        best, scores = als.recommend(user, matrix[user], N=5, filter_already_liked_items=True)
        slate = asked(live, f"u{user}")
        assert slate.item_ids == [f"i{row}" for row in best]
        np.testing.assert_allclose(slate.scores, scores, rtol=1e-3, atol=1e-4)


def test_users_that_implicit_never_saw_are_solved_as_it_would(
    als: Any, matrix: sp.csr_matrix, tmp_path: Path, item_ids: Path, user_ids: Path, run_import: Import
) -> None:
    als.save(str(tmp_path / "als.npz"))
    flags = (
        "--item-vectors",
        tmp_path / "als.npz",
        "--item-ids",
        item_ids,
        "--user-ids",
        user_ids,
        "--drop-zero",
    )
    live = live_of(run_import(*flags))
    history = matrix[3].indices
    best, scores = als.recommend(0, matrix[3], N=5, recalculate_user=True)
    slate = asked(live, None, history=tuple(f"i{row}" for row in history))
    assert slate.source == "fold_in"
    assert slate.item_ids == [f"i{row}" for row in best]
    np.testing.assert_allclose(slate.scores, scores, rtol=1e-2, atol=1e-3)


def test_other_models_of_implicit_have_no_solver_and_say_so(
    matrix: sp.csr_matrix, tmp_path: Path, run_import: Import
) -> None:
    model = BayesianPersonalizedRanking(factors=DIM, iterations=3, random_state=1, num_threads=1)
    with threadpool_limits(1, "blas"):
        model.fit(matrix, show_progress=False)
    model.save(str(tmp_path / "bpr.npz"))
    summary = run_import("--item-vectors", tmp_path / "bpr.npz", "--drop-zero")
    assert summary["fold_in"] == "mean of the history's vectors"
    assert summary["dim"] == DIM + 1
    scores = model.item_factors @ model.user_factors[2]
    assert asked(live_of(summary), 2).item_ids == np.argsort(-scores)[:5].tolist()


@pytest.mark.parametrize("index", ["exact", "hnsw"])
def test_users_without_vectors_are_answered_by_their_history(
    index: str, items: Vectors, item_ids: Path, history: Path, tmp_path: Path, run_import: Import
) -> None:
    save_npy(tmp_path / "items.npy", items)
    summary = run_import(
        "--item-vectors",
        tmp_path / "items.npy",
        "--item-ids",
        item_ids,
        "--history",
        history,
        "--index",
        index,
    )
    assert summary["recall_asked_with"] == "means of the users' histories"
    assert summary["recall"]["queries"] == N_USERS
    assert summary["users_without_vector"] == N_USERS
    live = live_of(summary)
    slate = asked(live, "u4")
    scores = items @ items[[6, 5, 0]].mean(axis=0)
    scores[[6, 5, 0]] = -np.inf
    assert slate.item_ids == [f"i{row}" for row in np.argsort(-scores)[:5]]
    assert slate.source == "fold_in"
    cold = asked(live, "nobody")
    assert (cold.source, cold.item_ids[0]) == ("popular", "i0")  # everybody had i0


def test_without_history_popular_is_the_order_of_the_items_and_says_so(
    items: Vectors, tmp_path: Path, run_import: Import
) -> None:
    save_npy(tmp_path / "items.npy", items)
    (tmp_path / "ids.json").write_bytes(orjson.dumps(list(range(N_ITEMS, 0, -1))))
    summary = run_import("--item-vectors", tmp_path / "items.npy", "--item-ids", tmp_path / "ids.json")
    assert summary["popularity"] == "order of the imported items"
    assert summary["recall_asked_with"] == "means of random items"
    slate = asked(live_of(summary), None)
    assert (slate.source, slate.item_ids) == ("popular", [30, 29, 28, 27, 26])


def test_titles_and_attributes_come_from_a_table_of_items(
    items: Vectors, item_ids: Path, tmp_path: Path, run_import: Import
) -> None:
    save_npy(tmp_path / "items.npy", items)
    rows = [(f"i{row}", f"Film {row}", "drama" if row % 2 else "comedy") for row in range(N_ITEMS)]
    write_csv(tmp_path / "films.csv", ("item_id", "title", "genres"), [*rows, ("i99", "No vector", "drama")])
    flags = (
        "--item-vectors",
        tmp_path / "items.npy",
        "--item-ids",
        item_ids,
        "--items",
        tmp_path / "films.csv",
    )
    summary = run_import(*flags)
    assert (summary["items"], summary["items_without_vector"]) == (N_ITEMS + 1, 1)
    bundle = live_of(summary).bundle
    assert bundle.titles is not None
    assert bundle.titles[bundle.item_ids.row_of("i7")] == "Film 7"
    assert bundle.titles[bundle.item_ids.row_of("i99")] == "No vector"
    assert bundle.attributes["genres"].values == ("comedy", "drama")


def test_zero_vectors_are_refused_by_row_or_dropped_and_counted(
    items: Vectors, item_ids: Path, tmp_path: Path, run_import: Import, complaint: Callable[..., str]
) -> None:
    items[[4, 9]] = 0
    save_npy(tmp_path / "items.npy", items)
    flags = ("--item-vectors", tmp_path / "items.npy", "--item-ids", item_ids)
    said = complaint(*flags)
    assert "items.npy, row 5: a zero vector, one of 2 (leave them out with --drop-zero)" in said
    assert "'i4'" in said
    summary = run_import(*flags, "--drop-zero")
    assert summary["dropped"] == {"zero_item_vector": 2}
    assert summary["items"] == N_ITEMS - 2


def test_publishing_is_on_unless_told_otherwise(items: Vectors, tmp_path: Path, run_import: Import) -> None:
    save_npy(tmp_path / "items.npy", items)
    store = ArtifactStore(tmp_path / "artifacts")
    first = run_import("--item-vectors", tmp_path / "items.npy", "--name", "one", "--no-publish")
    assert first["published"] is False
    assert first["next"] == f"reco bundle publish {first['bundle_id']} --artifacts {tmp_path / 'artifacts'}"
    assert not store.pointer.exists()
    second = run_import("--item-vectors", tmp_path / "items.npy", "--name", "two")
    assert store.current().name == second["bundle_id"]
    assert second["next"] == f"reco serve --artifacts {tmp_path / 'artifacts'}"


def test_importing_the_same_again_gives_the_same_bundle(
    items: Vectors, tmp_path: Path, run_import: Import
) -> None:
    save_npy(tmp_path / "items.npy", items)
    flags = ("--item-vectors", tmp_path / "items.npy", "--index", "exact")
    assert run_import(*flags)["bundle_id"] == run_import(*flags)["bundle_id"]


class TestComplaints:
    def test_no_file(self, tmp_path: Path, complaint: Callable[..., str]) -> None:
        assert "none.npy: no such file" in complaint("--item-vectors", tmp_path / "none.npy")

    def test_neither_or_both_kinds(self, tmp_path: Path, complaint: Callable[..., str]) -> None:
        assert "give either --item-vectors or --lists" in complaint()
        assert "give either" in complaint("--item-vectors", "a", "--lists", "b")

    @pytest.mark.parametrize("name", ["popular", "default", "a/b", "", ".x", "x" * 65, "ä"])
    def test_a_name_that_cannot_be(
        self, name: str, items: Vectors, tmp_path: Path, complaint: Callable[..., str]
    ) -> None:
        save_npy(tmp_path / "items.npy", items)
        assert "--name" in complaint("--item-vectors", tmp_path / "items.npy", f"--name={name}")

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_a_number_that_is_not_finite(
        self, value: float, items: Vectors, tmp_path: Path, complaint: Callable[..., str]
    ) -> None:
        items[2, 3] = value
        save_npy(tmp_path / "v.npy", items)
        assert "v.npy, row 3, column '3': not a finite number" in complaint(
            "--item-vectors", tmp_path / "v.npy"
        )
        save_parquet_lists(tmp_path / "v.parquet", items)
        assert "row 3, column 'vector[3]'" in complaint("--item-vectors", tmp_path / "v.parquet")
        save_parquet_columns(tmp_path / "w.parquet", items)
        assert "row 3, column 'd3'" in complaint("--item-vectors", tmp_path / "w.parquet")

    def test_lengths_that_differ(
        self, items: Vectors, item_ids: Path, tmp_path: Path, complaint: Callable[..., str]
    ) -> None:
        save_npy(tmp_path / "v.npy", items[:-1])
        said = complaint("--item-vectors", tmp_path / "v.npy", "--item-ids", item_ids)
        assert f"item_ids.txt: {N_ITEMS} ids, but" in said
        assert f"v.npy holds {N_ITEMS - 1} vectors" in said

    def test_a_header_that_was_an_id(
        self, items: Vectors, tmp_path: Path, complaint: Callable[..., str]
    ) -> None:
        save_npy(tmp_path / "v.npy", items)
        (tmp_path / "ids.csv").write_text("".join(f"{row}\n" for row in range(N_ITEMS)))
        said = complaint("--item-vectors", tmp_path / "v.npy", "--item-ids", tmp_path / "ids.csv")
        assert "the first line was taken for the header" in said

    def test_an_id_twice(self, items: Vectors, tmp_path: Path, complaint: Callable[..., str]) -> None:
        save_npy(tmp_path / "v.npy", items)
        (tmp_path / "ids.txt").write_text("".join(f"{min(row, 28)}\n" for row in range(N_ITEMS)))
        said = complaint("--item-vectors", tmp_path / "v.npy", "--item-ids", tmp_path / "ids.txt")
        assert "ids.txt, row 30, column 'ids': the id occurs twice (found '28')" in said

    def test_a_missing_id(self, items: Vectors, tmp_path: Path, complaint: Callable[..., str]) -> None:
        save_npy(tmp_path / "v.npy", items)
        (tmp_path / "ids.txt").write_text("a\n\n" + "".join(f"{row}\n" for row in range(N_ITEMS - 2)))
        assert "ids.txt, row 2" in complaint(
            "--item-vectors", tmp_path / "v.npy", "--item-ids", tmp_path / "ids.txt"
        )

    def test_users_and_items_of_different_dimensions(
        self, items: Vectors, users: Vectors, tmp_path: Path, complaint: Callable[..., str]
    ) -> None:
        save_npy(tmp_path / "v.npy", items)
        save_npy(tmp_path / "u.npy", users[:, :4])
        said = complaint("--item-vectors", tmp_path / "v.npy", "--user-vectors", tmp_path / "u.npy")
        assert "u.npy: vectors of 4 numbers; those of" in said

    def test_lists_of_different_lengths(self, tmp_path: Path, complaint: Callable[..., str]) -> None:
        pl.DataFrame({"item_id": [1, 2], "v": [[1.0, 2.0], [3.0]]}).write_parquet(tmp_path / "v.parquet")
        said = complaint("--item-vectors", tmp_path / "v.parquet")
        assert "v.parquet, row 2, column 'v': 1 numbers where the first row has 2" in said

    def test_several_arrays(
        self, items: Vectors, tmp_path: Path, complaint: Callable[..., str], run_import: Import
    ) -> None:
        save_file({"a": items, "b": items[:, :2]}, tmp_path / "v.safetensors")
        np.savez(tmp_path / "v.npz", a=items, b=items[:, :2])
        for name in ("v.safetensors", "v.npz"):
            said = complaint("--item-vectors", tmp_path / name)
            assert "say which array holds the vectors" in said
            assert "a [30, 6], b [30, 2]" in said
            assert "no array 'c'" in complaint("--item-vectors", tmp_path / name, "--item-tensor", "c")
        for name in ("v.safetensors", "v.npz"):
            assert run_import("--item-vectors", tmp_path / name, "--item-tensor", "b")["dim"] == 2

    @pytest.mark.parametrize(
        "array", [np.zeros(5), np.zeros((2, 2, 2)), np.zeros((0, 3)), np.array([["a", "b"]])]
    )
    def test_what_is_no_matrix_of_numbers(
        self, array: npt.NDArray[Any], tmp_path: Path, complaint: Callable[..., str]
    ) -> None:
        np.save(tmp_path / "v.npy", array)
        assert "v.npy: " in complaint("--item-vectors", tmp_path / "v.npy")

    def test_pickled_objects(self, tmp_path: Path, complaint: Callable[..., str]) -> None:
        np.save(tmp_path / "v.npy", np.array([[1, None]], object))
        np.savez(tmp_path / "v.npz", vectors=np.array([[1, None]], object))
        assert "not a plain numpy array" in complaint("--item-vectors", tmp_path / "v.npy")
        assert "not an archive of plain numpy arrays" in complaint("--item-vectors", tmp_path / "v.npz")

    @pytest.mark.parametrize("name", ["v.npy", "v.npz", "v.safetensors", "v.parquet"])
    def test_a_cut_file(
        self, name: str, items: Vectors, tmp_path: Path, complaint: Callable[..., str]
    ) -> None:
        {
            "v.npy": save_npy,
            "v.npz": save_npz,
            "v.safetensors": save_safetensors,
            "v.parquet": save_parquet_lists,
        }[name](tmp_path / name, items)
        raw = (tmp_path / name).read_bytes()
        for size in (0, 5, 40, len(raw) // 2, len(raw) - 1):
            (tmp_path / name).write_bytes(raw[:size])
            assert name in complaint("--item-vectors", tmp_path / name)

    def test_a_history_of_other_items(
        self, items: Vectors, history: Path, tmp_path: Path, complaint: Callable[..., str]
    ) -> None:
        save_npy(tmp_path / "v.npy", items)
        said = complaint("--item-vectors", tmp_path / "v.npy", "--history", history)
        assert "are these the same ids?" in said

    def test_user_ids_without_vectors(
        self, items: Vectors, user_ids: Path, tmp_path: Path, complaint: Callable[..., str]
    ) -> None:
        save_npy(tmp_path / "v.npy", items)
        said = complaint("--item-vectors", tmp_path / "v.npy", "--user-ids", user_ids)
        assert "--user-ids goes with --user-vectors" in said


class TestLists:
    def test_by_user_from_a_table_sorted_by_rank(self, tmp_path: Path, run_import: Import) -> None:
        write_csv(
            tmp_path / "top.csv",
            ("user_id", "item_id", "rank"),
            [("b", "x", 2), ("a", "y", 1), ("b", "z", 1), ("a", "x", 2), ("b", "w", 3)],
        )
        summary = run_import("--lists", tmp_path / "top.csv", "--name", "ready")
        assert (summary["kind"], summary["lists"], summary["retriever"]) == ("lists", 2, None)
        live = live_of(summary)
        assert asked(live, "b", 3).item_ids == ["z", "x", "w"]
        assert asked(live, "a", 2).item_ids == ["y", "x"]
        assert asked(live, "c", 1).item_ids == ["x"]  # the most listed

    @pytest.mark.parametrize("key", [("user", "tracks")])
    def test_by_user_from_json_lines(self, key: tuple[str, str], tmp_path: Path, run_import: Import) -> None:
        lines = [{key[0]: 7, key[1]: [3, 1, 2]}, {key[0]: 2, key[1]: [9]}]
        (tmp_path / "r.json").write_bytes(b"\n".join(map(orjson.dumps, lines)))
        live = live_of(run_import("--lists", tmp_path / "r.json"))
        assert asked(live, 7, 3).item_ids == [3, 1, 2]
        assert asked(live, 2, 1).item_ids == [9]

    @pytest.mark.parametrize("key", ["item_id", "track"])
    def test_by_item_from_json_lines(self, key: str, tmp_path: Path, run_import: Import) -> None:
        lines = [{key: 1, "recommendations": [5, 6]}, {key: 2, "recommendations": [6, 7]}]
        (tmp_path / "r.jsonl.gz").write_bytes(gzip.compress(b"\n".join(map(orjson.dumps, lines))))
        summary = run_import("--lists", tmp_path / "r.jsonl.gz")
        assert summary["kind"] == "item_item"
        live = live_of(summary)
        assert similar(1, 2, "default", live) == [(5, 1.0), (6, 0.5)]
        assert asked(live, None, 3, history=(1, 2)).item_ids == [6, 5, 7]  # 1/2 + 1, then 1, then 1/2

    def test_one_list_for_everybody_is_what_is_popular(self, tmp_path: Path, run_import: Import) -> None:
        (tmp_path / "top.json").write_bytes(orjson.dumps([4, 2, 8]))
        summary = run_import("--lists", tmp_path / "top.json")
        assert (summary["model"], summary["kind"]) == ("popular", "popular")
        assert asked(live_of(summary), None, 3).item_ids == [4, 2, 8]

    def test_seen_items_are_left_out_of_lists(self, tmp_path: Path, run_import: Import) -> None:
        write_csv(tmp_path / "top.csv", ("user_id", "item_id"), [(1, 10), (1, 20), (1, 30), (2, 40)])
        write_csv(tmp_path / "seen.csv", ("user_id", "item_id"), [(1, 20), (2, 10)])
        live = live_of(run_import("--lists", tmp_path / "top.csv", "--history", tmp_path / "seen.csv"))
        assert asked(live, 1, 2).item_ids == [10, 30]

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("user_id,item_id\n1,5\n1,5\n", "row 2, column 'item_id': the item is twice in a list"),
            ("user_id,item_id,rank\n1,5,first\n", "row 1, column 'rank'"),
            ("user_id,item\n1,5\n", "no column 'item_id'"),
            ("user_id,item_id\n,5\n", "row 1, column 'user_id': missing id"),
            ("user_id,item_id\n", "no recommendations in it"),
            ('{"user": 1, "tracks": [3, 3]}\n', "row 1: an item is twice in a list"),
            ('{"user": 1, "tracks": ["a"]}\n', "row 1, column 'tracks'"),
            ("", "the file is empty"),
        ],
    )
    def test_a_fault_is_named_with_its_row(
        self, text: str, said: str, tmp_path: Path, complaint: Callable[..., str]
    ) -> None:
        (tmp_path / "lists.csv").write_text(text)
        complained = complaint("--lists", tmp_path / "lists.csv")
        assert "lists.csv" in complained
        assert said in complained
