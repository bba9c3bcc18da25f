from __future__ import annotations

from pathlib import Path

import pytest

from models.als import als
from models.build.recipes import RECIPES
from models.build.settings import read_settings, write_settings
from models.ease import ease
from models.knn import item_knn, user_knn
from models.popularity import popularity
from models.transitions import transitions
from service.errors import InputError


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    configs = {
        **{name: recipe.config_type() for name, recipe in RECIPES.items()},
        "popular": popularity.Config(days=14, segments=("age", "sex"), smoothing=30.0),
        "als": als.Config(factors=96, alpha=0.5, half_life=3),
        "knn": item_knn.Config(weighting="bm25", history_half_life=2.5),
        "ease": ease.Config(width=400),
        "transitions": transitions.Config(window=5, backward=0.3, history_half_life=0.5),
        "userknn": user_knn.Config(idf=False),
    }
    file = tmp_path / "new" / "settings.toml"
    write_settings(file, configs)
    assert read_settings(file).configs == configs


def test_writing_one_model_keeps_what_else_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(
        'reader = "table"\n[columns]\nuser_id = "a \\"quoted\\" uid"\n'
        '[avatars]\n"x y" = [1, "T"]\n[als]\nfactors = 16\n'
    )
    write_settings(file, {"ease": ease.Config(regularization=30.0)})
    settings = read_settings(file)
    assert settings.reader == "table"
    assert settings.columns == {"user_id": 'a "quoted" uid'}
    assert settings.avatars == {"x y": (1, "T")}
    assert settings.configs == {"als": als.Config(factors=16), "ease": ease.Config(regularization=30.0)}


def test_what_a_section_leaves_out_keeps_its_default(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[als]\nregularization = 3\n")
    assert read_settings(file).configs == {"als": als.Config(regularization=3.0)}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[als\n", "not TOML"),
        ("[alss]\nfactors = 3", "no such section 'alss'"),
        ("als = 3", "als: must be a section"),
        ("[als]\nfactor = 3", r"\[als\] factor: no such setting \(known: factors"),
        ("[als]\nfactors = 3.5", r"\[als\] factors: must be a whole number, found 3.5"),
        ("[als]\nfactors = true", r"\[als\] factors: must be a whole number, found True"),
        ('[als]\nalpha = "x"', r"\[als\] alpha: must be a number, found 'x'"),
        ("[als]\nalpha = nan", r"\[als\] alpha: must be a number, found nan"),
        ('[knn]\nweighting = "idf"', r"\[knn\] weighting: must be one of cosine, tfidf, bm25"),
        ('[popular]\nsegments = "age"', r"\[popular\] segments: must be a list of text"),
        ("[userknn]\nidf = 1", r"\[userknn\] idf: must be true or false, found 1"),
        ("reader = 3", "reader: must be text"),
        ("columns = 3", r"\[columns\]"),
        ("[avatars]\nme = 3", r"\[avatars\]: must map names to lists"),
    ],
)
def test_a_fault_names_file_section_and_key(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=f"settings.toml: .*{complaint}"):
        read_settings(file)


def test_a_recipe_survives_settings_that_are_written_into_it(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('[recipe]\nmodels = ["als", "knn"]\ntune = "full"\n', "utf-8")
    before = read_settings(path).recipe
    write_settings(path, {"als": RECIPES["als"].config_type(factors=8)})
    found = read_settings(path)
    assert found.recipe == before
    assert found.configs["als"].factors == 8
