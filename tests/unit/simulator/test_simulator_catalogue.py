from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from loadtest.simulator.audience import draw_audience, read_audience, write_audience
from loadtest.simulator.catalogue import read_catalogue, write_catalogue
from loadtest.simulator.errors import SimulatorError
from loadtest.simulator.generator import generate_catalogue


def test_a_generated_catalogue_has_centred_unit_float16_vectors_and_every_artist() -> None:
    catalogue = generate_catalogue(600, 120, 5)
    vectors = catalogue.embeddings.astype(np.float64)

    assert catalogue.embeddings.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    assert np.linalg.norm(vectors.mean(axis=0)) < 0.02
    assert len(set(catalogue.artists)) == 120


def test_tracks_of_an_artist_sound_alike_more_than_tracks_of_others() -> None:
    catalogue = generate_catalogue(600, 120, 5)
    vectors = catalogue.embeddings.astype(np.float64)
    products = vectors @ vectors.T
    artists = np.array(catalogue.artists)
    same = artists[:, None] == artists[None, :]
    np.fill_diagonal(same, val=False)
    other = artists[:, None] != artists[None, :]

    assert products[same].mean() == pytest.approx(0.7, abs=0.07)
    assert abs(products[other].mean()) < 0.06


def test_a_catalogue_is_a_function_of_its_arguments() -> None:
    first, again, other = (generate_catalogue(50, 10, seed) for seed in (1, 1, 2))

    assert first.embeddings.tobytes() == again.embeddings.tobytes()
    assert (first.artists, first.titles) == (again.artists, again.titles)
    assert first.embeddings.tobytes() != other.embeddings.tobytes()


def test_a_catalogue_survives_its_files(tmp_path: Path) -> None:
    catalogue = generate_catalogue(50, 10, 1)
    write_catalogue(catalogue, tmp_path / "made" / "here")
    folder = tmp_path / "made" / "here"

    again = read_catalogue(folder / "tracks.json", folder / "embeddings.npy")

    np.testing.assert_array_equal(again.embeddings, catalogue.embeddings)
    assert (again.artists, again.titles) == (list(catalogue.artists), list(catalogue.titles))
    assert json.loads((folder / "tracks.json").read_text().splitlines()[7])["track"] == 7


def test_the_nearest_tracks_are_those_of_brute_force() -> None:
    catalogue = generate_catalogue(2500, 500, 1)  # more than are looked at at once
    products = catalogue.embeddings.astype(np.float32) @ catalogue.embeddings[17].astype(np.float32)

    nearest = catalogue.nearest(17, 10)

    assert nearest[0] == 17
    assert set(nearest) == set(np.argpartition(-products, 10)[:10].tolist())
    assert list(products[list(nearest)]) == sorted(products[list(nearest)], reverse=True)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda rows: rows[:-1], "49 tracks, but"),
        (lambda rows: [*rows, rows[0]], "row 51: track 0 is there twice"),
        (lambda rows: [*rows[:-1], '{"track": 50, "artist": "x"}'], "row 50: 'track' is 50"),
        (lambda rows: [*rows[:-1], '{"track": true}'], "row 50: 'track' is True"),
        (lambda rows: ["{", *rows], "row 1: not JSON"),
        (lambda rows: ["[1]", *rows], "row 1: not a JSON object"),
    ],
)
def test_tracks_that_do_not_fit_the_embeddings_are_named(tmp_path: Path, spoil: object, says: str) -> None:
    write_catalogue(generate_catalogue(50, 10, 1), tmp_path)
    tracks = tmp_path / "tracks.json"
    tracks.write_text("\n".join(spoil(tracks.read_text().splitlines())))  # type: ignore[operator]

    with pytest.raises(SimulatorError, match=r"tracks\.json") as refusal:
        read_catalogue(tracks, tmp_path / "embeddings.npy")
    assert says in str(refusal.value)


@pytest.mark.parametrize(
    ("matrix", "says"),
    [
        (np.ones((2, 2)), "row 0: norm 1.414"),
        (np.array([[1.0, 0], [np.nan, 0]]), "row 1: norm nan"),
        (np.ones(3), "matrix of floats"),
        (np.ones((2, 1), np.int64), "matrix of floats"),
        (np.empty((0, 4)), "matrix of floats"),
    ],
)
def test_embeddings_that_are_none_are_refused(tmp_path: Path, matrix: np.ndarray, says: str) -> None:
    np.save(tmp_path / "e.npy", matrix)
    (tmp_path / "tracks.json").write_text("")

    with pytest.raises(SimulatorError) as refusal:
        read_catalogue(tmp_path / "tracks.json", tmp_path / "e.npy")
    assert says in str(refusal.value)
    assert "e.npy" in str(refusal.value)


def test_no_object_is_unpickled_from_an_embeddings_file(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.array([[{}]], dtype=object))
    (tmp_path / "tracks.json").write_text("")

    with pytest.raises(SimulatorError, match="not a matrix"):
        read_catalogue(tmp_path / "tracks.json", tmp_path / "e.npy")


@pytest.mark.parametrize("arguments", [(10, 11, 0), (10, 0, 0), (1, 1, 0), (10, 2, -1)])
def test_a_catalogue_that_cannot_be_is_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(SimulatorError):
        generate_catalogue(*arguments)


def test_the_audience_follows_the_published_distributions() -> None:
    people = draw_audience(20_000, 1000, 3)
    bias = np.array([person.consume_bias for person in people])
    sharpness = np.array([person.consume_sharpness for person in people])
    openness = np.array([person.openness for person in people])
    interests = Counter(len(person.interests) for person in people)

    for values, low, high in ((bias, 0.1, 0.6), (sharpness, 4, 15), (openness, 0.25, 0.75)):
        assert values.min() >= low
        assert values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, rel=0.01)
        assert values.var() == pytest.approx((high - low) ** 2 / 12, rel=0.03)
    for extra, share in enumerate((1, 5, 10, 10, 5, 1)):
        assert interests[1 + extra] / 20_000 == pytest.approx(share / 32, abs=0.012)
    assert all(len(set(person.interests)) == len(person.interests) for person in people)
    assert [person.user for person in people] == list(range(20_000))


def test_an_audience_survives_its_file(tmp_path: Path) -> None:
    people = draw_audience(30, 100, 3)
    write_audience(people, tmp_path / "users.json")

    assert read_audience(tmp_path / "users.json", 100) == people


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"interests": [1]}', "'user' is None"),
        ('{"user": 1}', "'interests' is None"),
        ('{"user": 1, "interests": []}', "'interests' is []"),
        ('{"user": 1, "interests": [100]}', "track 100"),
        ('{"user": 1, "interests": [1], "consume_bias": "high"}', "'consume_bias' is 'high'"),
        ('{"user": 1, "interests": [1], "session_budget": 0}', "'session_budget' is 0"),
    ],
)
def test_people_who_cannot_be_are_named_by_row_and_key(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "users.json"
    path.write_text('{"user": 0, "interests": [1]}\n' + line)

    with pytest.raises(SimulatorError, match="row 2") as refusal:
        read_audience(path, 100)
    assert says in str(refusal.value)


def test_the_courses_own_users_file_can_be_read(tmp_path: Path) -> None:
    line = {"user": 3, "interests": [5, 9], "consume_bias": 5.5, "consume_sharpness": 1.05}
    (tmp_path / "users.json").write_text(json.dumps(line))

    (person,) = read_audience(tmp_path / "users.json", 10)

    assert (person.user, person.interests, person.consume_bias) == (3, (5, 9), 5.5)
    assert person.session_budget == 5
