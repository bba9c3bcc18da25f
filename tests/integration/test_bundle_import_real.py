"""Real vectors and real recommendation lists through `reco bundle import`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest

from models.data.botify import read_recommendations
from service import cli
from service.bundle.reader import load_bundle
from service.domain import Deadline, Plan, Query
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend
from service.recommender.similar import similar


def imported(tmp_path: Path, capsys: pytest.CaptureFixture[str], *flags: object) -> LiveBundle:
    code = cli.main(["bundle", "import", "--out", str(tmp_path), *map(str, flags)])
    out, err = capsys.readouterr()
    assert code == 0, err
    return go_live(load_bundle(Path(orjson.loads(out.splitlines()[-1])["path"])))


def answer(live: LiveBundle, user: int, k: int) -> list[object]:
    slate = recommend(Query(user, k), Plan(live.resolve("default").name), live, Deadline.none())
    assert slate.n_personal == k
    return list(slate.item_ids)


@pytest.mark.parametrize("index", ["none", "hnsw"])
def test_item_vectors_of_kion(
    index: str, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = real_data / "kion-artifacts" / "item_vectors.npz"
    live = imported(tmp_path, capsys, "--item-vectors", file, "--name", "kion", "--index", index)
    vectors = np.load(file)["vectors"]
    model = live.resolve("kion")
    assert (len(live.bundle.item_ids), model.data.entry.dim) == vectors.shape == (14_163, 32)
    assert model.data.entry.retrieval is not None
    assert model.data.entry.retrieval.retriever == ("exact" if index == "none" else "hnsw")
    found = 0
    generator = np.random.default_rng(0)
    for _ in range(100):
        history = generator.choice(len(vectors), 5, replace=False)
        scores = vectors @ vectors[history].mean(axis=0)
        scores[history] = -np.inf
        best = set(np.argsort(-scores)[:10].tolist())
        query = Query(None, 10, history=tuple(history.tolist()))
        found += len(best & set(recommend(query, Plan("kion"), live, Deadline.none()).item_ids))
    # The graph is not exact on these vectors, whose norms differ 600-fold: what it loses is measured and stored.
    assert found / 1000 >= model.data.entry.retrieval.recall.at_10 - 0.03
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    nearness = unit @ unit[77]
    nearness[77] = -np.inf
    assert similar(77, 1, "kion", live)[0][0] == int(np.argmax(nearness))


def test_lists_of_kion_users(real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = real_data / "kion-artifacts" / "recvae_top10.csv.gz"
    live = imported(tmp_path, capsys, "--lists", file, "--name", "recvae")
    frame = pl.read_csv(file).sort("user_id", "rank")
    users = frame["user_id"].unique().sort()
    assert live.bundle.user_ids.take(np.arange(len(users))) == users.to_list()
    for user in users[:: len(users) // 50].to_list():
        own = frame.filter(pl.col("user_id") == user)["item_id"].to_list()
        assert answer(live, user, len(own)) == own


def test_lists_of_botify_users_with_titles(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = real_data / "botify"
    file = folder / "2026_hstu_recommendations.json.gz"
    live = imported(tmp_path, capsys, "--lists", file, "--items", folder / "tracks.json.gz", "--name", "hstu")
    read = read_recommendations(file)
    for place in range(0, len(read), 100):
        own = read.of(place).tolist()
        assert answer(live, int(read.keys[place]), len(own)) == own
    assert live.bundle.titles is not None
    assert all(live.bundle.titles[live.bundle.item_ids.row_of(item)] for item in read.of(0).tolist())


@pytest.mark.parametrize("name", ["2026_sasrec_i2i.jsonl.gz", "2026_lightfm_i2i.jsonl.gz"])
def test_item_lists_of_botify(
    name: str, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = real_data / "botify" / name
    live = imported(tmp_path, capsys, "--lists", file, "--name", "i2i")
    read = read_recommendations(file)
    for place in range(0, len(read), 500):
        item, own = int(read.keys[place]), read.of(place).tolist()
        assert [other for other, _ in similar(item, len(own), "i2i", live)] == [
            one for one in own if one != item
        ]


def test_top_tracks_of_botify(real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = real_data / "botify" / "top_tracks.json.gz"
    live = imported(tmp_path, capsys, "--lists", file)
    top = read_recommendations(file).of(0)[:50].tolist()
    assert recommend(Query(None, 50), Plan("popular"), live, Deadline.none()).item_ids == top
