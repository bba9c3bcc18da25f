"""`reco recipe`: a declared build, from raw files to a published bundle."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from models.build.settings import read_settings
from models.commands import recipe
from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.errors import InputError
from service.recommender.live import go_live


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    recipe.configure(parser)
    return recipe.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    rows = [
        f"{user},{(user % 2) + 2 * item},{86_400 * (user + n)}"
        for user in range(80)
        for n, item in enumerate(rng.choice(15, 8, replace=False).tolist())
    ]
    path = tmp_path / "data.csv"
    path.write_text("user_id,item_id,timestamp\n" + "\n".join(rows))
    return path


def test_a_recipe_of_ones_own_builds_and_publishes_what_it_declares(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.toml"
    own.write_text('[recipe]\nmodels = ["knn", "transitions"]\ntune = "off"\n[knn]\nneighbours = 7\n')
    assert run(own, "--data", data, "--out", tmp_path / "artifacts") == 0
    told = json.loads(capsys.readouterr().out)
    live = go_live(load_bundle(ArtifactStore(tmp_path / "artifacts").current()))
    assert set(live.bundle.models) >= {"popular", "knn", "transitions"}
    assert told["configs"]["knn"]["neighbours"] == 7


@pytest.mark.parametrize("name", recipe.shipped())
def test_shipped_recipes_are_fit_and_name_no_setting_but_budgets(name: str) -> None:
    path = Path(recipe.__file__).parents[1] / "recipes" / f"{name}.toml"
    found = read_settings(path)
    assert found.recipe is not None
    assert found.recipe.about
    assert {"als", "knn", "transitions", "sequence", "two_stage"} <= set(found.recipe.models)
    for config in found.configs.values():
        changed = {
            key for key in type(config).__slots__ if getattr(config, key) != getattr(type(config)(), key)
        }
        assert changed <= {"max_seconds"}  # nothing is tuned to a data set's name


def test_recipes_of_the_courses_are_there() -> None:
    assert recipe.shipped() == ["botify", "kion", "movielens-1m"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[als]\nfactors = 8\n", r"has no \[recipe\]"),
        ('[recipe]\nmodels = ["nope"]\n', r"\[recipe\] models: must be a list of"),
        ("[recipe]\nmodels = []\n", r"\[recipe\] models: must be a list of"),
        ('[recipe]\nmodels = ["als"]\ntune = "hard"\n', r"\[recipe\] tune: must be one of off"),
        ('[recipe]\nmodels = ["als"]\ndepth = 1\n', r"\[recipe\] depth: no such key"),
    ],
)
def test_faults_name_the_file_and_the_key(tmp_path: Path, data: Path, text: str, told: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        run(path, "--data", data, "--out", tmp_path / "artifacts")
    with pytest.raises(InputError, match="no such recipe"):
        run("nothing", "--data", data, "--out", tmp_path / "artifacts")
