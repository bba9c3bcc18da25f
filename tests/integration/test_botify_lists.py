"""Botify's files of recommendations in one bundle, and its recommenders over them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter

from models.data.botify import json_lines, read_recommendations
from service import cli
from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.domain import Deadline, Plan, Query
from service.recommender.botify.tracks import read_tracks
from service.recommender.botify.treatments import Recommender, Treatment, Turn, bind
from service.recommender.live import LiveBundle, go_live
from service.recommender.pipeline import recommend
from service.state.listens import Listen

TRACKS = [{"track": n, "artist": f"Artist {n % 3}", "title": f"Title {n}"} for n in range(12)]


def lines(path: Path, documents: list[dict[str, Any]]) -> Path:
    path.write_bytes(b"\n".join(map(orjson.dumps, documents)))
    return path


def imported(out: Path, *arguments: object) -> LiveBundle:
    assert cli.main(["bundle", "import", "--out", str(out), *map(str, arguments)]) == 0
    return go_live(load_bundle(ArtifactStore(out).current()))


def made(live: LiveBundle, **declared: Any) -> Recommender:
    treatment: Treatment = TypeAdapter(Treatment).validate_python(declared)
    return bind(treatment, live, read_tracks(live.bundle), Random(0), recommend)


def turn(user: int, *heard: tuple[int, float]) -> Turn:
    listens = tuple(Listen(*one) for one in heard)
    return Turn(user, listens[0], listens, Deadline.none())


def chosen(recommender: Recommender, asked: Turn) -> set[int | None]:
    return {recommender(asked) for _ in range(200)}


def test_several_lists_are_several_models_of_one_bundle(tmp_path: Path) -> None:
    tracks = lines(tmp_path / "tracks.json", TRACKS)
    hstu = lines(tmp_path / "h.json", [{"user": 7, "tracks": [3, 1, 2]}, {"user": 2, "tracks": [9]}])
    own = lines(tmp_path / "g=cf.json", [{"user": 7, "tracks": [5]}])
    i2i = lines(tmp_path / "i.jsonl", [{"item_id": 3, "recommendations": [8, 4]}])
    (tmp_path / "top.json").write_bytes(orjson.dumps([6, 4, 0]))
    live = imported(
        tmp_path / "out", "--items", tracks, "--lists", f"hstu={hstu}", "--lists", f"gcf={own}",
        "--lists", f"sasrec_i2i={i2i}", "--lists", tmp_path / "top.json",
    )  # fmt: skip
    assert set(live.models) == {"default", "popular", "hstu", "gcf", "sasrec_i2i"}
    assert live.resolve("default").name == "hstu"
    assert chosen(made(live, recommender="indexed", model="hstu"), turn(7, (0, 1.0))) == {1, 2, 3}
    assert chosen(made(live, recommender="indexed", model="gcf"), turn(7, (0, 1.0))) == {5}
    assert chosen(made(live, recommender="indexed", model="gcf"), turn(2, (0, 1.0))) == {None}
    assert chosen(made(live, recommender="sequential", model="hstu"), turn(7, (3, 1.0))) == {1}
    assert chosen(made(live, recommender="contextual", model="sasrec_i2i"), turn(1, (3, 0.0))) == {4, 8}
    assert chosen(made(live, recommender="i2i", model="sasrec_i2i"), turn(1, (8, 0.0), (3, 0.5))) == {4}
    assert chosen(made(live, recommender="sticky_artist"), turn(1, (0, 1.0))) == {3, 6, 9}
    assert chosen(made(live, recommender="top_pop", k=2), turn(1, (0, 1.0))) == {6, 4}


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["{a}", "{b}"], "a second model 'imported'"),
        (["x={a}", "x={b}"], "a second model 'x'"),
        (["default={a}"], "the name is taken"),
        (["x={a}", "y={top}", "z={top}"], "a second list for everybody"),
        (["x=nowhere.json"], "nowhere.json"),
    ],
)
def test_lists_that_do_not_go_together_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: list[str], says: str
) -> None:
    files = {
        "a": lines(tmp_path / "a.json", [{"user": 7, "tracks": [3]}]),
        "b": lines(tmp_path / "b.json", [{"user": 8, "tracks": [4]}]),
        "top": tmp_path / "top.json",
    }
    files["top"].write_bytes(b"[1, 2]")
    arguments = [part for name in names for part in ("--lists", name.format(**files))]
    assert cli.main(["bundle", "import", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert says in capsys.readouterr().err


def test_the_courses_own_files(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "botify"
    names = {
        "hstu": "2026_hstu_recommendations.json.gz",
        "sasrec_i2i": "2026_sasrec_i2i.jsonl.gz",
        "lightfm_i2i": "2026_lightfm_i2i.jsonl.gz",
    }
    arguments = [part for name, file in names.items() for part in ("--lists", f"{name}={folder / file}")]
    live = imported(
        tmp_path, "--items", folder / "tracks.json.gz", *arguments, "--lists", folder / "top_tracks.json.gz"
    )
    tracks = read_tracks(live.bundle)
    artist_of = {line["track"]: line["artist"] for _, line in json_lines(folder / "tracks.json.gz")}
    assert len(tracks) == len(artist_of)
    for track in list(artist_of)[::997]:
        row = tracks.row_of(track)
        assert tracks.artist(row) == artist_of[track]
        assert {artist_of[one] for one in tracks.of_artist_of(track)} == {artist_of[track]}
    top = read_recommendations(folder / "top_tracks.json.gz").of(0)
    asked = Query(None, 10, exclude_seen=False)
    assert recommend(asked, Plan("popular"), live, Deadline.none()).item_ids == top[:10].tolist()
    assert chosen(made(live, recommender="top_pop", k=10), turn(1, (0, 1.0))) <= set(top[:10].tolist())
    users = read_recommendations(folder / names["hstu"])
    assert chosen(made(live, recommender="indexed", model="hstu"), turn(int(users.keys[5]), (0, 1.0))) <= set(
        users.of(5).tolist()
    )
    near = read_recommendations(folder / names["sasrec_i2i"])
    first = next(one for one in near.of(9).tolist() if one != near.keys[9])
    anchored = made(live, recommender="i2i", model="sasrec_i2i")
    assert chosen(anchored, turn(1, (int(near.keys[9]), 0.4))) == {first}
