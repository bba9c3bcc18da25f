"""What a file of rules may say, and when its rules hold."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import write_tiny_bundle

from service.bundle.reader import load_bundle
from service.errors import InputError
from service.policy.rules import Rules, check_rules
from service.policy.rules_file import read_rules
from service.recommender.live import LiveBundle, go_live

SALE = """
n_candidates = 30
[rules.sale]
action = "boost"
attribute = "genres"
values = ["comedy"]
strength = 2.0
start = 2026-01-01T00:00:00Z
end = 2026-01-02T00:00:00Z
[rules.always]
action = "pin"
items = [10]
on = ["als"]
"""
JANUARY = 1767225600.0


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    return go_live(load_bundle(write_tiny_bundle(tmp_path_factory.mktemp("live"))))


def written(folder: Path, text: str) -> Path:
    path = folder / "rules.toml"
    path.write_text(text, "utf-8")
    return path


def test_rules_hold_from_their_first_moment_until_before_their_last(tmp_path: Path, live: LiveBundle) -> None:
    now = JANUARY - 1
    rules = Rules(read_rules(written(tmp_path, SALE)), clock=lambda: now)

    def holding(model: str) -> list[str]:
        found = rules.applied(None, model, live)
        return [] if found is None else [rule.name for rule in found.plan.rules]

    assert (holding("knn"), holding("als")) == ([], ["always"])
    now = JANUARY
    assert (holding("knn"), holding("als")) == (["sale"], ["sale", "always"])
    now = JANUARY + 86_399.9
    assert holding("knn") == ["sale"]
    now = JANUARY + 86_400
    assert (holding("knn"), holding("als")) == ([], ["always"])


def test_the_same_request_gets_the_same_object(tmp_path: Path, live: LiveBundle) -> None:
    rules = Rules(read_rules(written(tmp_path, SALE)), clock=lambda: JANUARY)
    first = rules.applied(None, "als", live)
    assert first is rules.applied(None, "als", live)
    assert first is not None
    assert (first.plan.n_candidates, first.plan.model, first.header) == (30, "als", b"")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[rules.a]\naction = "boost"\n', "give 'items', or 'attribute' and 'values'"),
        ('[rules.a]\naction = "lift"\nitems = [1]\n', r"\[rules.a\] action: "),
        ('[rules.a]\naction = "pin"\nitems = [1]\nstrength = 2.0\n', "takes 'most' and no 'strength'"),
        ('[rules.a]\naction = "bury"\nitems = [1]\nmost = 2\n', "takes 'strength' and no 'most'"),
        ('[rules.a]\naction = "bury"\nattribute = "kind"\n', "go together"),
        ('[rules.a]\naction = "bury"\nitems = [1]\nstart = 2026-01-02T00:00:00Z\nend = 2026-01-01T00:00:00Z\n',
         "'end' is not after 'start'"),
        ('[rules.a]\naction = "bury"\nitems = [1]\nstart = 2026-01-02\n', r"\[rules.a\] start"),
        ("[rules", "not TOML"),
    ],
)  # fmt: skip
def test_a_fault_names_file_table_and_key(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as refused:
        read_rules(written(tmp_path, text))
    assert str(refused.value).startswith(str(tmp_path / "rules.toml"))


def test_what_the_bundle_lacks_is_named(tmp_path: Path, live: LiveBundle) -> None:
    path = written(tmp_path, '[rules.a]\naction = "bury"\nattribute = "colour"\nvalues = ["red"]\n')
    with pytest.raises(InputError, match="no attribute 'colour'; it has: genres, kind"):
        check_rules(read_rules(path), path, live)
    path = written(tmp_path, '[rules.a]\naction = "pin"\nitems = [10]\non = ["nope"]\n')
    with pytest.raises(InputError, match="holds no model 'nope'"):
        check_rules(read_rules(path), path, live)
    with pytest.raises(InputError, match="RECO_RULES"):
        read_rules(tmp_path / "none.toml")
