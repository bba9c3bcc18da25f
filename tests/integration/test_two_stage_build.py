"""A build with a second stage: learned from the past only, better than its sources, and the same offline as served."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from models.build import second_stage
from models.build.build import Built, Order, build
from models.data.dataset import Dataset
from models.data.read import read_dataset
from models.data.splits import validation_split
from models.ranker.config import Config
from models.ranker.rows import Statics, rows_of
from models.ranker.statics import item_statics, user_statics
from service.bundle.reader import load_bundle
from service.domain import Deadline, Query
from service.errors import InputError
from service.recommender.filters import Eligible
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend
from service.recommender.plan import plan_for
from service.recommender.user_state import UserState

pytest.importorskip("lightgbm")
N_USERS, N_ITEMS, LENGTH = 320, 80, 24
FAST = Config(rounds=40, patience=20, least_rows=20, n_candidates=60, quota=30, popular_quota=20, l2=1.0)
SOURCES = ("knn", "transitions")


def write_events(folder: Path, n_users: int) -> Path:
    """Users who go round a ring of items, mostly to the next one, sometimes to one that all like."""
    random = np.random.default_rng(3)
    lines = ["user_id,item_id,pos"]
    for user in range(n_users):
        item, seen = int(random.integers(N_ITEMS)), set()
        for pos in range(LENGTH):
            while item in seen:
                step = (
                    int(random.integers(1, 4))
                    if random.random() < 0.7
                    else int(random.integers(N_ITEMS) ** 2)
                )
                item = (item + step) % N_ITEMS
            seen.add(item)
            lines.append(f"{user},{item},{pos}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "interactions.csv").write_text("\n".join(lines) + "\n")
    return folder


@dataclass(frozen=True)
class World:
    dataset: Dataset
    built: Built
    live: LiveBundle


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("two-stage")
    data = write_events(root / "data", N_USERS)
    built = build(
        Order(
            data=data,
            out=root / "artifacts",
            models=(*SOURCES, second_stage.NAME),
            configs={second_stage.NAME: FAST},
            effort="off",
        ),
        progress=False,
    )
    return World(read_dataset(data), built, go_live(load_bundle(built.path)))


def test_a_build_learns_a_second_stage_and_judges_it_beside_its_sources(world: World) -> None:
    learned, metrics = world.built.ranker, world.built.as_json()["metrics"]
    assert isinstance(learned, second_stage.Learned)
    assert {source.model for source in learned.sources} == {"popular", *SOURCES}
    assert metrics[second_stage.NAME]["NDCG@10"] >= max(metrics[name]["NDCG@10"] for name in SOURCES)
    assert world.built.default_model == second_stage.NAME
    entry = world.live.bundle.manifest.models[second_stage.NAME]
    assert entry.training["rounds_grown"] == learned.final.rounds
    assert entry.training["mean_abs_shap"]


def test_a_page_says_what_the_ranker_listens_to(world: World, tmp_path: Path) -> None:
    learned = world.built.ranker
    assert isinstance(learned, second_stage.Learned)
    second_stage.write_report(learned, tmp_path / "pages" / "ranker.html")
    text = (tmp_path / "pages" / "ranker.html").read_text("utf-8")
    assert text.index("<svg") < text.index("<table>")
    places = [text.index(f">{name}<", text.index("<table>")) for name in learned.contributions]
    assert places == sorted(places)
    assert "http" not in text


def test_what_was_learned_from_is_what_is_served(world: World) -> None:
    """The same user at the same moment: features and scores, by training's code and by the line's, bit for bit."""
    learned, live, data = world.built.ranker, world.live, world.dataset
    assert isinstance(learned, second_stage.Learned)
    model = live.models[second_stage.NAME]
    stage = model.ranking
    assert stage is not None
    unread = read_later(data)
    statics = Statics(item_statics(data), user_statics(data))
    rows = rows_of(
        live, unread, learned.sources, FAST.n_candidates, statics,
        max_users=20, negatives=1.0, seed=0, names=learned.final.names,
    )  # fmt: skip
    assert len(rows.groups) > 5
    begin = 0
    for row, size in zip(rows.user_rows.tolist(), rows.groups.tolist(), strict=True):
        history = live.bundle.history_of(row)
        user = UserState(row, history, live=False)
        pool, _ = stage.gatherer.gather(user, Eligible(history, None))
        assert pool is not None
        own = rows.features[begin : begin + size]
        np.testing.assert_array_equal(own, stage.features.of(user, pool))
        scores = stage.forest.scores(own)
        order = (-scores).argsort(kind="stable")[:5]
        slate = recommend(
            Query(data.user_ids.take(np.array([row]))[0], 5),
            plan_for(second_stage.NAME, live),
            live,
            Deadline.none(),
        )
        assert slate.item_ids == data.item_ids.take(pool.item_rows[order])
        begin += size


def test_features_know_nothing_of_what_comes_later(world: World) -> None:
    """Whatever is read after the moment changes labels, never a feature of a candidate."""
    learned, data = world.built.ranker, world.dataset
    assert isinstance(learned, second_stage.Learned)
    statics = Statics(item_statics(data), user_statics(data))
    one, other = (
        rows_of(
            world.live, read_later(data, offset), learned.sources, FAST.n_candidates, statics,
            max_users=N_USERS, negatives=1.0, seed=0,
        )
        for offset in (0, 1)
    )  # fmt: skip
    shared = np.intersect1d(one.user_rows, other.user_rows)
    assert len(shared) > N_USERS // 2
    one, other = (rows.select(np.isin(rows.user_rows, shared)) for rows in (one, other))
    np.testing.assert_array_equal(one.features, other.features)
    assert (one.labels != other.labels).any()


def test_the_earlier_moment_is_before_the_later_one(world: World) -> None:
    later = validation_split(world.dataset, seed=0)
    earlier = validation_split(later.train, seed=0)
    before, after = earlier.test.times, later.test.times
    assert before is not None
    assert after is not None
    for user in range(N_USERS):
        first, second = before[earlier.test.user_rows == user], after[later.test.user_rows == user]
        assert len(first) == 0 or len(second) == 0 or first.max() < second.min()


def test_one_core_and_two_end_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches, trainings, pools and replays, forked or not; enough users that all of them are."""
    data = write_events(tmp_path / "data", 420)
    ends = []
    for cores in ({0}, {0, 1}):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: cores, raising=False)
        heard: list[str] = []
        order = Order(
            data=data,
            out=tmp_path / f"artifacts-{len(cores)}",
            models=("als", *SOURCES, second_stage.NAME),
            configs={second_stage.NAME: FAST},
        )

        def hear(name: str, _: object, heard: list[str] = heard) -> None:
            heard.append(name)

        built = build(order, progress=False, on_trial=hear)
        metrics = {name: found.metrics for name, found in built.evaluations.items()}
        ends.append((built.bundle_id, built.configs, metrics, sorted(heard)))
    assert ends[0] == ends[1]
    assert isinstance(built.ranker, second_stage.Learned)


def test_too_few_users_teach_no_order(tmp_path: Path) -> None:
    data = write_events(tmp_path / "few", 60)
    order = Order(data=data, out=tmp_path / "artifacts", models=(*SOURCES, second_stage.NAME), effort="off")
    with pytest.raises(InputError, match="fewer than 200 users"):
        build(order, progress=False)


def test_a_second_stage_needs_a_first(tmp_path: Path) -> None:
    data = write_events(tmp_path / "alone", 60)
    order = Order(data=data, out=tmp_path / "artifacts", models=("popular", second_stage.NAME), effort="off")
    with pytest.raises(InputError, match="only popular is built"):
        build(order, progress=False)


def read_later(data: Dataset, offset: int = 0) -> Dataset:
    """For every user some items that they have not read."""
    read = data.matrix(binary=True).toarray() > 0
    users, items = np.nonzero(~read)
    kept = (users + items) % 3 == offset
    take = np.zeros(int(kept.sum()), np.int64)
    later = data.select(take)
    later.user_rows[:] = users[kept]
    later.item_rows[:] = items[kept]
    return later
