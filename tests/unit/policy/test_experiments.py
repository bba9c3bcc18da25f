"""Assignment: sticky, balanced, exclusive within a layer and independent between layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from factories import write_tiny_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.domain import Exploration, Plan
from service.errors import InputError
from service.policy.experiments import Experiments, check_experiments
from service.policy.experiments_file import read_experiments
from service.recommender.live import LiveBundle, go_live
from service.telemetry import Telemetry

USERS = range(10_000)
Make = Callable[..., Experiments]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> LiveBundle:
    root = tmp_path_factory.mktemp("assigned")
    write_tiny_bundle(root)
    return go_live(load_bundle(ArtifactStore(root).current()))


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    folder = tmp_path_factory.mktemp("files")

    def made(text: str, now: float = 0.0, telemetry: Telemetry | None = None) -> Experiments:
        (folder / "e.toml").write_text(text, encoding="utf-8")
        telemetry = telemetry or Telemetry(budget_s=0.05)
        return Experiments(read_experiments(folder / "e.toml"), telemetry, clock=lambda: now)

    return made


def one(name: str = "x", keys: str = "", treatments: str = "", table: str = "") -> str:
    treatments = treatments or "C = {}\nT1 = { model = 'knn' }"
    return f"[experiments.{name}]\ncontrol = 'C'\n{keys}\n[experiments.{name}.treatments]\n{treatments}\n{table}\n"


def treatments_of(
    experiments: Experiments, live: LiveBundle, name: str = "x", users: range = USERS
) -> list[str | None]:
    return [
        None if assignment is None else assignment.treatments.get(name)
        for assignment in (experiments.assign(user, "default", live) for user in users)
    ]


def test_a_user_always_has_the_same_treatment(make: Make, live: LiveBundle) -> None:
    first, second = make(one()), make(one())
    assert treatments_of(first, live) == treatments_of(first, live) == treatments_of(second, live)


def test_other_experiments_move_nobody(make: Make, live: LiveBundle) -> None:
    alone = treatments_of(make(one(keys="traffic = 0.4")), live)
    beside = (
        one(keys="traffic = 0.4") + one("y", "traffic = 0.6") + one("z", "layer = 'other'", "C = {}\nT = {}")
    )
    assert treatments_of(make(beside), live) == alone


def test_growing_traffic_moves_nobody_who_is_in(make: Make, live: LiveBundle) -> None:
    small, large = (treatments_of(make(one(keys=f"traffic = {share}")), live) for share in (0.2, 0.5))
    assert all(before in (None, after) for before, after in zip(small, large, strict=True))
    assert sum(after is not None for after in large) > sum(before is not None for before in small)


@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (0.2, 0.3, 0.5), (1, 1, 1, 1, 1, 1, 1)])
def test_shares_follow_the_weights(make: Make, live: LiveBundle, weights: tuple[float, ...]) -> None:
    names = ["C", *(f"T{number}" for number in range(1, len(weights)))]
    arms = "\n".join(f"{name} = {{ weight = {weight} }}" for name, weight in zip(names, weights, strict=True))
    counts = Counter(treatments_of(make(one(treatments=arms)), live))
    expected = np.array(weights) / sum(weights) * len(USERS)
    assert chisquare([counts[name] for name in names], expected).pvalue > 1e-4


@settings(deadline=None)
@given(st.text("abcXYZ019 -_.é", min_size=1, max_size=20))
def test_every_salt_divides_fairly(make: Make, live: LiveBundle, salt: str) -> None:
    counts = Counter(treatments_of(make(one(keys=f"salt = '{salt}'")), live, users=range(2_000)))
    assert chisquare([counts["C"], counts["T1"]]).pvalue > 1e-9


def test_traffic_is_the_share_that_takes_part(make: Make, live: LiveBundle) -> None:
    inside = sum(found is not None for found in treatments_of(make(one(keys="traffic = 0.25")), live))
    assert chisquare([inside, len(USERS) - inside], [2_500, 7_500]).pvalue > 1e-4


def test_experiments_of_one_layer_share_no_user(make: Make, live: LiveBundle) -> None:
    experiments = make(one("x", "traffic = 0.5") + one("y", "traffic = 0.5"))
    xs, ys = treatments_of(experiments, live, "x"), treatments_of(experiments, live, "y")
    assert all((x is None) != (y is None) for x, y in zip(xs, ys, strict=True))


def test_layers_are_independent(make: Make, live: LiveBundle) -> None:
    arms = "C = {}\nT1 = { n_candidates = 20, exploration = { kind = 'epsilon', epsilon = 0.5 } }"
    experiments = make(one("x", "traffic = 0.8") + one("y", "layer = 'other'\ntraffic = 0.6", arms))
    pairs = Counter(
        zip(treatments_of(experiments, live, "x"), treatments_of(experiments, live, "y"), strict=True)
    )
    table = [[pairs[x, y] for y in ("C", "T1", None)] for x in ("C", "T1", None)]
    assert min(map(min, table)) > 300
    assert chi2_contingency(table).pvalue > 1e-4


def test_layers_together_make_one_plan(make: Make, live: LiveBundle) -> None:
    arms = "C = {}\nT1 = { n_candidates = 20, exploration = { kind = 'softmax', temperature = 2 } }"
    experiments = make(one("x") + one("y", "layer = 'other'", arms))
    plans = {}
    for user in USERS:
        assignment = experiments.assign(user, "als", live)
        assert assignment is not None
        plans[tuple(assignment.treatments.items())] = (assignment.plan, assignment.header)
    explored = Exploration("softmax", 2.0)
    assert plans == {
        (("x", "C"), ("y", "C")): (Plan("als"), b"x=C,y=C"),
        (("x", "T1"), ("y", "C")): (Plan("knn"), b"x=T1,y=C"),
        (("x", "C"), ("y", "T1")): (Plan("als", 20, explored), b"x=C,y=T1"),
        (("x", "T1"), ("y", "T1")): (Plan("knn", 20, explored), b"x=T1,y=T1"),
    }


@pytest.mark.parametrize(("now", "runs"), [(99.9, False), (100.0, True), (199.9, True), (200.0, False)])
def test_it_runs_from_start_until_end(make: Make, live: LiveBundle, now: float, runs: bool) -> None:
    window = "start = 1970-01-01T00:01:40Z\nend = 1970-01-01T00:03:20Z"
    assert (make(one(keys=window), now=now).assign(7, "default", live) is not None) == runs


def test_one_follows_the_other_in_the_same_traffic(make: Make, live: LiveBundle) -> None:
    text = one("x", "end = 1970-01-01T00:01:40Z") + one("y", "start = 1970-01-01T00:01:40Z\ntraffic_from = 0")
    for now, name in ((99.0, "x"), (100.0, "y")):
        assignment = make(text, now=now).assign(7, "default", live)
        assert assignment is not None
        assert list(assignment.treatments) == [name]


def test_it_applies_to_the_models_it_names_as_they_are_asked_for(make: Make, live: LiveBundle) -> None:
    experiments = make(one(keys="on = ['default']"))
    assert experiments.assign(7, "default", live) is not None
    assert experiments.assign(7, live.models["default"].name, live) is None


def test_nobody_in_particular_is_in_no_experiment(make: Make, live: LiveBundle) -> None:
    assert make(one()).assign(None, "default", live) is None


@pytest.mark.parametrize(
    ("eligible", "inside", "outside"),
    [
        ("users = [100, '103']", [100, 103, "100"], [106, 1]),
        ("pattern = '1[0-9]+'", [100, 19], [21, 210]),
        ("known = 'warm'", [100, 103], [101, 5]),
        ("known = 'cold'", [101, 5], [100, 103]),
        ("segments = ['even']", [100, 106], [103, 101]),
        ("segments = ['even', 'odd']", [100, 103], [101]),
        ("segments = ['even']\npattern = '10.'", [100, 106], [112, 103]),
    ],
)
def test_only_the_eligible_take_part(
    make: Make, live: LiveBundle, eligible: str, inside: list[int | str], outside: list[int]
) -> None:
    experiments = make(one(table=f"[experiments.x.eligible]\n{eligible}"))
    assert [user for user in inside if experiments.assign(user, "als", live) is None] == []
    assert [user for user in outside if experiments.assign(user, "als", live) is not None] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (one(keys="on = ['nope']"), r"e\.toml: \[experiments\.x\] on: bundle \w+ holds no model 'nope'"),
        (one(treatments="C = {}\nT1 = { model = 'nope' }"), r"\[experiments\.x\.treatments\.T1\] model: bundle"),
        (one(table="[experiments.x.eligible]\nsegments = ['rich']"), r"\[experiments\.x\.eligible\] segments: .*rich"),
        ("[shadows.s]\nmodel = 'nope'", r"\[shadows\.s\] model: bundle"),
    ],
)  # fmt: skip
def test_what_a_bundle_cannot_serve_is_refused(
    tmp_path: Path, live: LiveBundle, text: str, message: str
) -> None:
    file = tmp_path / "e.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        check_experiments(read_experiments(file), file, live)


def test_an_experiment_that_a_new_bundle_cannot_serve_is_suspended_whole(
    tmp_path: Path, live: LiveBundle
) -> None:
    file = tmp_path / "e.toml"
    file.write_text(
        one("x", "traffic = 0.5", "C = {}\nT1 = { model = 'nope' }") + one("y", "traffic = 0.5"),
        encoding="utf-8",
    )
    said: list[str] = []
    experiments = Experiments(
        read_experiments(file), Telemetry(budget_s=0.05), say=lambda *_, reason: said.append(reason)
    )
    found = {
        name for user in USERS if (got := experiments.assign(user, "als", live)) for name in got.treatments
    }
    experiments.bind(live)
    assert found == {"y"}
    assert len(said) == 1
    assert "'nope'" in said[0]


def test_assignments_are_counted_by_treatment(make: Make, live: LiveBundle) -> None:
    telemetry = Telemetry(budget_s=0.05)
    experiments = make(one(), telemetry=telemetry)
    counts = Counter(treatments_of(experiments, live))
    experiments.flush_counts()
    for treatment, count in counts.items():
        labels = {"experiment": "x", "treatment": str(treatment)}
        assert telemetry.registry.get_sample_value("reco_experiment_assignments_total", labels) == count
