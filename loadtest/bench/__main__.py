"""`/reco` beside its rungs, in one run: `python -m loadtest.bench`. Tables go to stderr, one JSON line to stdout."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import secrets
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from loadtest.bench.check import answered, recall_of
from loadtest.bench.data import make_artifacts
from loadtest.bench.errors import BenchError
from loadtest.bench.servers import cores, reco_command, served, uvicorn_command
from loadtest.bench.vectors import Vectors, published, read_manifest, read_vectors, searched_model
from loadtest.bench.wrk import Round, Target, ask, find_wrk

CONNECTIONS = 32
SAMPLE = 200
FILES = 20_000
BASE = "raw-asgi"


@dataclass(frozen=True, slots=True)
class Rung:
    """`server`: which process; `asked`: which file of requests; `checked`: how its answers are known to be right."""

    title: str
    server: str
    asked: str
    checked: str = "constant"


RUNGS = {
    BASE: Rung("raw ASGI on uvicorn, constant", "raw_asgi", "warm"),
    "starlette": Rung("plain Starlette route, constant", "starlette_route", "warm"),
    "fastapi": Rung("lean FastAPI route, constant", "fastapi_constant", "warm"),
    "idiomatic": Rung("FastAPI + HTTPBearer + pydantic + hnswlib", "idiomatic", "warm", "all"),
    "warm-exact": Rung("/reco, warm user, exact", "exact", "warm", "unseen"),
    "warm-hnsw": Rung("/reco, warm user, hnsw", "hnsw", "warm", "unseen"),
    "warm-hnsw-log": Rung("/reco, warm user, hnsw, access log on", "hnsw-log", "warm", "unseen"),
    "cold": Rung("/reco, user nobody knows", "hnsw", "cold", "form"),
    "popular": Rung("/reco, popular", "hnsw", "popular", "form"),
    "v1": Rung("/v1/recommend, warm user, hnsw", "hnsw", "v1", "unseen"),
}
OURS = {"exact": ("exact", "off"), "hnsw": ("hnsw", "off"), "hnsw-log": ("hnsw", "on")}


def parse() -> argparse.Namespace:
    """Read the flags."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="of a round at 32 connections; one takes half"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rungs", default=",".join(RUNGS), help="which, by comma (default: all)")
    parser.add_argument(
        "--artifacts", type=Path, help="measure what is published there, not a generated bundle"
    )
    for name, size in (("users", 100_000), ("items", 16_000), ("dim", 64)):
        parser.add_argument(f"--{name}", type=int, default=size, help="of the generated bundle")
    return parser.parse_args()


def main() -> int:
    """Measure and print; 2 where it can't be."""
    args = parse()
    try:
        find_wrk()
        with tempfile.TemporaryDirectory() as folder:
            report = measure(args, Path(folder))
    except BenchError as error:
        sys.stderr.write(f"make bench: {error}\n")
        return 2
    show(report)
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Start everything, check the answers, go round. Raises BenchError."""
    names = chosen(args.rungs)
    artifacts = args.artifacts or make_artifacts(folder, users=args.users, items=args.items, dim=args.dim)
    bundle = published(artifacts)
    manifest = read_manifest(bundle)
    model = searched_model(manifest)
    vectors = read_vectors(bundle, model)
    token = secrets.token_hex(16)
    targets = write_targets(folder, vectors, model)
    pins = cores()
    server_core, generator_core = pins or (None, None)
    load_before = os.getloadavg()[0]
    rounds: dict[str, list[tuple[Round, Round]]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        ports: dict[str, int] = {}
        for server in dict.fromkeys(RUNGS[name].server for name in names):
            if server in OURS:
                retriever, log = OURS[server]
                command = reco_command(artifacts, retriever)
                environment = {
                    "RECO_TOKENS": f"bench:{token}",
                    "RECO_ACCESS_LOG": log,
                    "RECO_DRAIN_WAIT_S": "0",
                }
            else:
                command = uvicorn_command(server)
                environment = {"BENCH_BUNDLE": str(bundle), "BENCH_MODEL": model, "BENCH_TOKEN": token}
            ports[server] = stack.enter_context(served(command, environment, folder, server_core))
        recalls = {
            name: checked(RUNGS[name], ports[RUNGS[name].server], token, model, vectors) for name in names
        }
        for turn in range(args.rounds):
            for name in names:
                rung = RUNGS[name]
                many, one = (
                    ask(
                        ports[rung.server], targets[rung.asked], token, connections=connections,
                        seconds=seconds, seed=turn, core=generator_core,
                    )
                    for connections, seconds in ((CONNECTIONS, args.seconds), (1, args.seconds / 2))
                )  # fmt: skip
                rounds[name].append((many, one))
    base = [many.rps for many, _ in rounds[BASE]]
    return {
        "bench": "reco", "machine": machine(), "pinned": pins, "load_before": round(load_before, 2),
        "seconds": args.seconds, "rounds": args.rounds, "connections": CONNECTIONS,
        "catalogue": {
            "items": len(vectors.items), "dim": vectors.items.shape[1], "users": len(vectors.users), "model": model,
            "seen_mean": round(len(vectors.seen_rows) / (len(vectors.seen_indptr) - 1), 1),
        },
        "rungs": {name: summary(RUNGS[name].title, rounds[name], base, recalls[name]) for name in names},
    }  # fmt: skip


def chosen(words: str) -> list[str]:
    """Names of the rungs to measure, raw ASGI always first. Raises BenchError."""
    asked = [word.strip() for word in words.split(",") if word.strip()]
    for name in asked:
        if name not in RUNGS:
            raise BenchError(f"there is no rung {name!r}; there are: {', '.join(RUNGS)}")
    return [BASE, *(name for name in RUNGS if name in asked and name != BASE)]


def write_targets(folder: Path, vectors: Vectors, model: str) -> dict[str, Target]:
    """Write what is asked, in random order: users of vectors, users nobody knows, and the same by /v1/recommend."""
    chance = np.random.default_rng(2)
    warm = chance.choice(vectors.user_ids, FILES).tolist()
    highest = int(vectors.user_ids.max())
    lines = {
        "warm": [f"/reco/{model}/{user}" for user in warm],
        "cold": [
            f"/reco/{model}/{user}" for user in chance.integers(highest + 1, highest + 10**6, FILES).tolist()
        ],
        "popular": [f"/reco/popular/{user}" for user in warm],
        "v1": [json.dumps({"user_id": user, "model": model}) for user in warm],
    }
    for name, texts in lines.items():
        (folder / name).write_text("\n".join(texts) + "\n")
    posted = Target(folder / "v1", "POST", "/v1/recommend")
    return {name: posted if name == "v1" else Target(folder / name) for name in lines}


def checked(rung: Rung, port: int, token: str, model: str, vectors: Vectors) -> float | None:
    """Check a sample of a rung's answers; returns recall@10 where they are searched for. Raises BenchError."""
    rows = np.random.default_rng(3).integers(0, len(vectors.users), SAMPLE).tolist()
    if rung.checked == "form":
        for row in rows:
            user = int(vectors.user_ids[row]) + (
                0 if rung.asked == "popular" else int(vectors.user_ids.max())
            )
            answered(port, token, "popular" if rung.asked == "popular" else model, user, post=False)
    if rung.checked not in {"all", "unseen"}:
        return None
    recall = recall_of(
        port, token, model, vectors, rows, post=rung.asked == "v1", unseen=rung.checked == "unseen"
    )
    if rung.server == "exact" and recall < 0.999:
        raise BenchError(
            f"the exact retriever's recall@10 is {recall}: its answers are not those of the vectors"
        )
    return recall


def summary(
    title: str, rounds: list[tuple[Round, Round]], base: list[float], recall: float | None
) -> dict[str, Any]:
    """Medians over the rounds with least and most; the ratio is within each round."""
    rps = [many.rps for many, _ in rounds]
    ratios = [own / raw for own, raw in zip(rps, base, strict=True)]
    latencies = {
        f"{name}_us_c{connections}": round(statistics.median(getattr(pair[n], name) for pair in rounds))
        for n, connections in enumerate((CONNECTIONS, 1))
        for name in ("p50", "p90", "p99", "p999")
    }
    return {
        "title": title, "rps": round(statistics.median(rps)), "rps_least": round(min(rps)), "rps_most": round(max(rps)),
        "ratio": round(statistics.median(ratios), 3), "ratio_least": round(min(ratios), 3),
        "ratio_most": round(max(ratios), 3), "recall_at_10": recall, **latencies,
    }  # fmt: skip


def machine() -> str:
    """Processor, cores, system, Python."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def show(report: dict[str, Any]) -> None:
    """Print the table."""
    console, size = Console(stderr=True, width=120), report["catalogue"]
    pins = (
        "not pinned"
        if report["pinned"] is None
        else "server on core {}, generator on core {}".format(*report["pinned"])
    )
    console.print(f"{report['machine']}; {pins}; load average before: {report['load_before']}")
    console.print(
        f"{size['items']} items x {size['dim']}, {size['users']} users, {size['seen_mean']} seen each; "
        f"{report['rounds']} interleaved rounds of {report['seconds']} s, "
        f"{CONNECTIONS} connections, medians (least-most)"
    )
    table = Table()
    for column in ("", "requests/s", "of raw ASGI", "p50 / p99 µs, c=1", "p50 / p99 µs, c=32", "recall@10"):
        table.add_column(column, justify="left" if not column else "right")
    for rung in report["rungs"].values():
        recall = rung["recall_at_10"]
        table.add_row(
            rung["title"],
            f"{rung['rps']:,} ({rung['rps_least']:,}-{rung['rps_most']:,})",
            f"{rung['ratio']:.3f} ({rung['ratio_least']:.3f}-{rung['ratio_most']:.3f})",
            f"{rung['p50_us_c1']} / {rung['p99_us_c1']}",
            f"{rung['p50_us_c32']} / {rung['p99_us_c32']}",
            "-" if recall is None else f"{recall:.3f}",
        )
    console.print(table)


if __name__ == "__main__":
    raise SystemExit(main())
