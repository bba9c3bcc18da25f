"""Experiments of the botify profile: as declared, divided as botify divides, and refused where they can't run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from service.errors import InputError
from service.policy.botify_experiments import SHIPPED, number_of, read_experiments

COURSE = {
    "AA": 2, "STICKY_ARTIST": 2, "STICKY_ARTIST_WITH_FALLBACK": 2, "TOP_POP": 4, "USER_BASED": 2, "PERSONALIZED": 2,
    "DSSM": 2, "CONTEXTUAL": 2, "GCF": 2, "DLRM": 2, "DIVERSITY": 3, "DEBIAS": 2, "I2I": 3, "HSTU": 2, "ALL": 8,
}  # fmt: skip


def declared(folder: Path, text: str) -> Path:
    path = folder / "experiments.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "split"), COURSE.items())
def test_every_experiment_of_the_course_is_declared(name: str, split: int) -> None:
    (experiment,) = read_experiments(None, {name}).experiments
    assert experiment.split == split
    assert len(experiment.treatments) == (0 if name == "AA" else split)


def test_nothing_else_is_shipped() -> None:
    with pytest.raises(InputError, match=f"it declares: {', '.join(COURSE)}$"):
        read_experiments(None, {"NONE_OF_THEM"})


def test_by_default_an_aa_runs_beside_sticky_artist() -> None:
    experiments = read_experiments(None, ())
    assert list(experiments.assign(1)) == ["AA", "STICKY_ARTIST"]
    assert experiments.serving is not None
    assert experiments.serving.name == "STICKY_ARTIST"


@pytest.mark.parametrize(
    ("name", "user", "label"),
    [("AA", 3255, "C"), ("AA", 7229, "T1"), ("STICKY_ARTIST", 5020, "T1"), ("STICKY_ARTIST", 6128, "C"),
     ("STICKY_ARTIST_WITH_FALLBACK", 3255, "T1"), ("STICKY_ARTIST_WITH_FALLBACK", 7229, "C"), ("HSTU", 3736, "T1"),
     ("HSTU", 6661, "C")],
)  # fmt: skip
def test_users_are_divided_as_published_logs_show(name: str, user: int, label: str) -> None:
    experiments = read_experiments(None, {name})
    assigned = experiments.assign(user)
    assert assigned == {name: label}
    assert experiments.played(assigned) == (0 if name == "AA" else number_of(label))


def test_each_treatment_gets_its_share() -> None:
    experiments = read_experiments(None, {"TOP_POP"})
    counts = Counter(experiments.played(experiments.assign(user)) for user in range(8000))
    assert set(counts) == {0, 1, 2, 3}
    assert all(abs(count - 2000) < 200 for count in counts.values())


def test_all_of_ones_own_file_run_unless_some_are_named(tmp_path: Path) -> None:
    path = declared(
        tmp_path,
        '[A]\nsplit = 5\n[B]\nsplit = 2\n[ONE]\ntreatments = [{ recommender = "model", model = "als", k = 2 }]\n',
    )
    everything = read_experiments(path, ())
    assert [one.name for one in everything.experiments] == ["A", "B", "ONE"]
    assert everything.assign(3)["ONE"] == "C"
    assert [one.name for one in read_experiments(path, {"B"}).experiments] == ["B"]
    assert read_experiments(path, {"B"}).serving is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[A", "not TOML"),
        ("[A]\n", "give either 'treatments' or"),
        ('[A]\nsplit = 2\ntreatments = [{ recommender = "random" }]\n', "give either"),
        ("[A]\nsplit = 11\n", "A.split"),
        ("[A]\nsplit = '2'\n", "A.split"),
        ("[A]\nsplti = 2\n", "A.splti"),
        ("['a b']\nsplit = 2\n", "a b"),
        ("split = 2\n", "split"),
        ('[A]\ntreatments = [{ recommender = "best" }]\n', "A.treatments.0"),
        ('[A]\ntreatments = [{ recommender = "top_pop" }]\n', "k"),
        ('[A]\ntreatments = [{ recommender = "top_pop", k = 0 }]\n', "k"),
        ('[A]\ntreatments = [{ recommender = "random", k = 3 }]\n', "k"),
        (
            '[A]\ntreatments = [{ recommender = "random" }]\n[B]\ntreatments = [{ recommender = "random" }]\n',
            "A and B would both decide",
        ),
    ],
)
def test_a_declaration_that_cannot_run_is_refused_by_its_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as refused:
        read_experiments(declared(tmp_path, text), ())
    assert "experiments.toml" in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"RECO_BOTIFY_EXPERIMENTS=.*nowhere\.toml"):
        read_experiments(tmp_path / "nowhere.toml", ())
    assert SHIPPED.is_file()
