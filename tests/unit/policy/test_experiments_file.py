"""The file of experiments: what is not fit is refused by file, table and key."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.domain import AttributeCap, Exploration, Reranking
from service.errors import InputError
from service.policy.experiments_file import places, read_experiments

FIT = """
[experiments.ranking]
control = "als"
start = 2026-01-05T00:00:00Z
end = 2026-02-05T00:00:00+03:00
on = ["default"]
traffic = 0.5
[experiments.ranking.eligible]
known = "warm"
[experiments.ranking.treatments.als]
weight = 1
[experiments.ranking.treatments.ease]
weight = 3
model = "ease"
n_candidates = 100
exploration = { kind = "epsilon", epsilon = 0.1 }
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "experiments.toml"


def refusal(file: Path, text: str) -> str:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_experiments(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: "), message
    assert "\n" not in message
    return message.removeprefix(f"{file}: ")


def two(first: str = "", second: str = "", plans: str = 'model = "ease"') -> str:
    return "".join(
        f"[experiments.{name}]\ncontrol = 'c'\n{keys}\n[experiments.{name}.treatments]\nc = {{}}\nt = {{ {plans} }}\n"
        for name, keys in (("one", first), ("two", second))
    )


def test_a_fit_file_is_read_whole(file: Path) -> None:
    file.write_text(FIT, encoding="utf-8")
    (one,) = read_experiments(file).experiments.values()
    assert (one.layer, one.control, one.traffic, one.on) == ("main", "als", 0.5, ["default"])
    assert one.starts_at == datetime(2026, 1, 5, tzinfo=UTC).timestamp()
    assert one.ends_at == datetime(2026, 2, 4, 21, tzinfo=UTC).timestamp()
    ease = one.treatments["ease"]
    assert (ease.weight, ease.model, ease.n_candidates) == (3, "ease", 100)
    assert ease.exploration is not None
    assert ease.exploration.settings() == Exploration("epsilon", 0.1)
    assert one.eligible.known == "warm"


def test_an_empty_file_declares_nothing(file: Path) -> None:
    file.write_text("", encoding="utf-8")
    assert read_experiments(file).experiments == {}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('control = "als"\n', "", "[experiments.ranking] control: Field required"),
        ('control = "als"', 'control = "b"', "[experiments.ranking]: 'control' names no treatment: 'b'"),
        ("traffic = 0.5", "traffic = 1.5", "[experiments.ranking] traffic: Input should be less than or equal to 1"),
        ("traffic = 0.5", "trafic = 0.5", "[experiments.ranking] trafic: Extra inputs are not permitted"),
        ("traffic = 0.5", 'traffic = "half"', "[experiments.ranking] traffic: Input should be a valid number"),
        ("weight = 3", "weight = 0", "[experiments.ranking.treatments.ease] weight: Input should be greater than 0"),
        ("weight = 3", "weight = inf", "[experiments.ranking.treatments.ease] weight: Input should be"),
        ("n_candidates = 100\n", "", "[experiments.ranking.treatments.ease]: 'exploration' needs 'n_candidates'"),
        (
            "n_candidates = 100", "n_candidates = 1001",
            "[experiments.ranking.treatments.ease]: 'exploration' takes at most 1000 'n_candidates'",
        ),
        ("traffic = 0.5", 'salt = "layer/main"', "[experiments.ranking] salt: a salt that begins with 'layer/'"),
        ("epsilon = 0.1", "epsilon = 2", "[experiments.ranking.treatments.ease.exploration] epsilon: Input should be"),
        (
            "epsilon = 0.1", "temperature = 1",
            "[experiments.ranking.treatments.ease.exploration]: kind 'epsilon' takes 'epsilon' and nothing else",
        ),
        ('"warm"', '"lukewarm"', "[experiments.ranking.eligible] known: Input should be 'warm' or 'cold'"),
        ('known = "warm"', 'pattern = "["', "[experiments.ranking.eligible] pattern: not a regular expression"),
        ("T00:00:00Z", "T00:00:00", "[experiments.ranking] start: Input should have timezone info"),
        ("2026-02-05", "2026-01-05", "[experiments.ranking]: 'end' is not after 'start'"),
        ("treatments.ease", 'treatments."a,b"', "[experiments.ranking.treatments.a,b]: String should match pattern"),
        ("\n[experiments.ranking]", "\n[other]\n[experiments.ranking]", "[other]: Extra inputs are not permitted"),
        ('on = ["default"]', "on = []", "[experiments.ranking] on: List should have at least 1 item"),
        ('control = "als"', "control =", "not TOML: "),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_table_and_key(file: Path, before: str, after: str, message: str) -> None:
    assert FIT.count(before) >= 1
    assert refusal(file, FIT.replace(before, after, 1)).startswith(message)


def test_a_missing_file_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"RECO_EXPERIMENTS=.*nothing\.toml: No such file"):
        read_experiments(tmp_path / "nothing.toml")


def test_text_that_is_not_utf_8_is_not_toml(file: Path) -> None:
    file.write_bytes(b"\xff")
    with pytest.raises(InputError, match="not TOML"):
        read_experiments(file)


class TestLayers:
    def test_experiments_of_a_layer_take_its_traffic_one_after_the_other(self, file: Path) -> None:
        file.write_text(two("traffic = 0.3", "traffic = 0.7"), encoding="utf-8")
        experiments = read_experiments(file).experiments
        assert places(experiments, "one") == (0.0, 0.3)
        assert places(experiments, "two") == (0.3, 1.0)

    def test_a_layer_has_traffic_for_one_only_once(self, file: Path) -> None:
        assert refusal(file, two("traffic = 0.6", "traffic = 0.6")).startswith(
            "[experiments.two] traffic: layer 'main' has no room for 0.6 to 1.2"
        )

    def test_they_may_not_share_users(self, file: Path) -> None:
        message = refusal(file, two("traffic = 0.6", "traffic = 0.6\ntraffic_from = 0.4"))
        assert (
            message
            == "[experiments.two] traffic_from: it shares users with experiment 'one' of the same layer"
        )

    def test_they_may_when_they_run_at_other_times(self, file: Path) -> None:
        file.write_text(
            two("end = 2026-01-05T00:00:00Z", "start = 2026-01-05T00:00:00Z\ntraffic_from = 0"),
            encoding="utf-8",
        )
        assert places(read_experiments(file).experiments, "two") == (0.0, 1.0)

    def test_two_layers_may_not_decide_the_same(self, file: Path) -> None:
        assert refusal(file, two("", "layer = 'other'")).startswith(
            "[experiments.two] treatments: both it and experiment 'one' decide 'model'"
        )

    def test_they_may_on_different_models(self, file: Path) -> None:
        file.write_text(two("on = ['als']", "on = ['ease']\nlayer = 'other'"), encoding="utf-8")
        assert set(read_experiments(file).experiments) == {"one", "two"}

    def test_two_layers_may_not_divide_users_alike(self, file: Path) -> None:
        assert refusal(file, two("", "layer = 'other'\nsalt = 'one'", plans="")).startswith(
            "[experiments.two] salt: "
        )


def with_plan(plan: str) -> str:
    return f"[experiments.x]\ncontrol = 'a'\n[experiments.x.treatments]\na = {{}}\nb = {{ {plan} }}\n"


def test_a_reranking_is_read_with_its_defaults(file: Path) -> None:
    file.write_text(
        with_plan("n_candidates = 50, rerank = { method = 'dpp', cap = { attribute = 'artist', most = 2 } }"),
        encoding="utf-8",
    )
    table = read_experiments(file).experiments["x"].treatments["b"].rerank
    assert table is not None
    assert table.settings() == Reranking("dpp", 0.7, 10, AttributeCap("artist", 2))


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ("rerank = { method = 'mmr' }", "'rerank' needs 'n_candidates'"),
        ("n_candidates = 201, rerank = { method = 'mmr' }", "at most 200"),
        ("n_candidates = 20, rerank = { method = 'best' }", "rerank"),
        ("n_candidates = 20, rerank = { method = 'mmr', window = 5 }", "takes no 'window'"),
        ("n_candidates = 20, rerank = { method = 'dpp', relevance = 1.0 }", "at most 0.99"),
        ("n_candidates = 20, rerank = { method = 'mmr', relevance = nan }", "relevance"),
        ("n_candidates = 20, rerank = { method = 'mmr', cap = { attribute = 'a', most = 0 } }", "cap"),
        (
            "n_candidates = 20, rerank = { method = 'mmr' }, exploration = { kind = 'softmax', temperature = 1.0 }",
            "'softmax' orders by score again",
        ),
    ],
)
def test_a_reranking_that_makes_no_sense_is_refused(file: Path, plan: str, reason: str) -> None:
    message = refusal(file, with_plan(plan))
    assert message.startswith("[experiments.x.treatments.b")
    assert reason in message


def test_two_layers_may_not_both_rerank(file: Path) -> None:
    plans = "n_candidates = 20, rerank = { method = 'mmr' }"
    assert "both it and experiment 'one' decide" in refusal(file, two("", "layer = 'other'", plans))
