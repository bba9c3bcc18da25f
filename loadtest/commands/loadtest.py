"""reco loadtest: the highest rate at which a running service keeps a scenario's objective."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from loadtest.openloop.generator import fast_loop
from loadtest.openloop.page import page
from loadtest.openloop.search import Found, Step, run_scenario
from loadtest.scenario_file import ScenarioFile, read_scenario

HELP = "find the highest rate at which a service keeps a scenario's objective"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("scenario", type=Path, metavar="SCENARIO.toml", help="see loadtest/scenarios/")
    parser.add_argument("--url", required=True, help="http://host:port; the token comes from RECO_TOKEN")
    parser.add_argument("--html", type=Path, help="page with latency against load")
    parser.add_argument(
        "--hgrm", type=Path, help="percentile distribution of the best step, as HdrHistogram has it"
    )


def run(args: argparse.Namespace) -> int:
    """Search; prints one JSON line. 1: the objective does not hold. 2: there is nothing to measure."""
    try:
        file = read_scenario(args.scenario)
        with asyncio.Runner(loop_factory=fast_loop) as runner:
            found = runner.run(run_scenario(file, args.url, os.environ.get("RECO_TOKEN", ""), _say))
    except (ValueError, OSError) as error:
        print(f"reco loadtest: {error}", file=sys.stderr)
        return 2
    if args.html is not None:
        args.html.write_text(page(file, args.url, found), encoding="utf-8")
    held = [step for step in found.steps if not step.breaches]
    if args.hgrm is not None and held:
        best = max(held, key=lambda step: step.outcome.rate)
        args.hgrm.write_text("\n".join(best.outcome.latency.lines()) + "\n", encoding="utf-8")
    print(json.dumps(_document(file, args.url, found)), flush=True)
    return 0 if kept(found) else 1


def kept(found: Found) -> bool:
    """Whether the declared rate was carried; where none is declared, whether any was."""
    return found.highest > 0 if found.declared_held is None else found.declared_held


def _document(file: ScenarioFile, url: str, found: Found) -> dict[str, Any]:
    slo = file.slo
    return {
        "loadtest": file.name, "url": url, "kept": kept(found), "highest_rate": round(found.highest, 1),
        "declared_rate": slo.rate or None, "generator_bound": found.generator_bound,
        "slo": {"p99_ms": slo.p99_ms, "fallback_share": slo.fallback_share, "errors": 0},
        "steps": [
            {**step.outcome.as_json(), "breaches": list(step.breaches), "generator_late": step.generator_late}
            for step in found.steps
        ],
    }  # fmt: skip


def _say(step: Step) -> None:
    outcome = step.outcome
    said = "; ".join(step.breaches) or "holds"
    late = f" (the generator was late: p99 {outcome.lag.quantile(0.99) * 1e3:.1f} ms)"
    print(
        f"{outcome.rate:9,.0f}/s  p50 {outcome.latency.quantile(0.5) * 1e3:7.2f} ms"
        f"  p99 {outcome.latency.quantile(0.99) * 1e3:7.2f} ms  {said}{late if step.generator_late else ''}",
        file=sys.stderr,
        flush=True,
    )
