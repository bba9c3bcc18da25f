"""`reco evaluate`: measure the published bundle, through the serving line, on held-out interactions."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from models.evaluation.costs import Costs, measure_costs
from models.evaluation.files import at_least_one, read_pairs, write_whole
from models.evaluation.held_out import ItemCodes, training_of_rows
from models.evaluation.opening import model_of, open_published
from models.evaluation.report import Report, render
from models.evaluation.run import Evaluation, Examiner
from models.evaluation.tables import model_tables, overview_table
from models.progress import console_of_people
from service.recommender.live import LiveBundle

HELP = "Evaluate the published bundle through the serving line: table, JSON line, HTML report"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "--artifacts", type=Path, required=True, metavar="DIR", help="folder with a published bundle"
    )
    parser.add_argument(
        "--test",
        type=Path,
        required=True,
        metavar="FILE",
        help="held-out user_id,item_id: CSV, TSV, .gz or Parquet",
    )
    parser.add_argument(
        "--model", metavar="M", help="one model, measured in full; default: every model of the bundle"
    )
    parser.add_argument(
        "--k",
        type=_cut_offs,
        default=[10],
        metavar="N[,N]",
        help="list lengths; the first one heads; default: 10",
    )
    parser.add_argument(
        "--train",
        type=Path,
        metavar="FILE",
        help="training user_id,item_id: popularity and catalogue by its rows, repeats included; "
        "default: by the bundle's history, where a pair counts once",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="write a report with plots, one self-contained page"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate; tables to stderr, one JSON object to stdout."""
    began = time.perf_counter()
    live = open_published(args.artifacts)
    names = [model_of(live, args.model).name] if args.model else sorted(live.bundle.models)
    examiner = _examiner(args, live)
    measured: list[tuple[Evaluation, Costs]] = []
    for name in names:
        evaluation = examiner.examine(live, name, args.k, progress=True)
        measured.append((evaluation, measure_costs(examiner, live, evaluation, k=args.k[0], progress=True)))
    measured.sort(key=lambda pair: -pair[0].metrics[f"NDCG@{args.k[0]}"])
    console = console_of_people()
    console.print(overview_table(measured, args.k[0]))
    if args.model:
        for table in model_tables(*measured[0]):
            console.print(table)
    if args.html:
        report = Report(live.bundle.manifest, args.test.name, tuple(measured), examiner.training)
        write_whole(args.html, render(report).encode())
        console.print(f"report: {args.html}")
    seconds = round(time.perf_counter() - began, 2)
    print(orjson.dumps(_summary(live, measured, seconds, single=bool(args.model))).decode())
    return 0


def _examiner(args: argparse.Namespace, live: LiveBundle) -> Examiner:
    manifest = live.bundle.manifest
    kinds = manifest.user_id_kind, manifest.item_id_kind
    codes, training = ItemCodes(live.bundle.item_ids), None
    users, items = read_pairs(args.test, *kinds)
    if args.train is not None:
        training = training_of_rows(*read_pairs(args.train, *kinds), codes)
    return Examiner.of(live.bundle, users, items, codes=codes, training=training)


def _summary(
    live: LiveBundle, measured: Sequence[tuple[Evaluation, Costs]], seconds: float, *, single: bool
) -> dict[str, Any]:
    rows = [{**evaluation.as_json(), "costs": costs.as_json()} for evaluation, costs in measured]
    if single:
        return {**rows[0], "seconds": seconds}
    return {
        "bundle": live.bundle_id,
        "default": live.bundle.manifest.default_model,
        "models": {row.pop("model"): row for row in rows},
        "seconds": seconds,
    }


def _cut_offs(text: str) -> list[int]:
    """Parse `10` or `10,20`."""
    return list(dict.fromkeys(at_least_one(part) for part in text.split(",")))
