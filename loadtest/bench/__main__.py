"""`/reco` beside its rungs, in one run: `python -m loadtest.bench`. Tables go to stderr, one JSON line to stdout."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import secrets
import statistics
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.bench.check import PREDICT, V1, answered, body_of, recall_of
from loadtest.bench.data import make_artifacts, precomputed_in
from loadtest.bench.errors import BenchError
from loadtest.bench.ladder import BASE, OURS, RUNGS, Rung, chosen
from loadtest.bench.open_loop import Measured, measure_open
from loadtest.bench.peers import PEERS, REPOSITORY, find_peer
from loadtest.bench.report import CONNECTIONS, REPEATING, machine, show, summary
from loadtest.bench.report_html import write_html
from loadtest.bench.servers import cores, reco_command, served, uvicorn_command
from loadtest.bench.vectors import Vectors, published, read_manifest, read_vectors, searched_model
from loadtest.bench.wrk import Round, Target, ask, find_wrk

SAMPLE = 200
FILES = 20_000
PATIENT_MS = "1000"
"""Ours sheds what is late, the others do not: a hiccup of the machine is to slow a round, not to end the run."""
_HITS = re.compile(r'^reco_response_cache_total\{result="(hit|miss)"\} (\S+)$', re.MULTILINE)


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
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report there too")
    parser.add_argument(
        "--open-loop",
        metavar="RUNGS",
        help="ask these, by comma, at fixed rates too, beside raw ASGI (latency from the instant due)",
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
    if args.html is not None:
        write_html(report, args.html)
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Start everything, check the answers, go round. Raises BenchError."""
    names = chosen(args.rungs)
    paced = [name for name in names if name in chosen(args.open_loop)] if args.open_loop else []
    artifacts = args.artifacts or make_artifacts(folder, users=args.users, items=args.items, dim=args.dim)
    bundle = published(artifacts)
    manifest = read_manifest(bundle)
    model = searched_model(manifest)
    vectors = read_vectors(bundle, model)
    token = secrets.token_hex(16)
    targets = write_targets(folder, vectors, model, ranked_model(manifest))
    pins = cores()
    server_core, generator_core = pins or (None, None)
    load_before = os.getloadavg()[0]
    rounds: dict[str, list[tuple[Round, Round]]] = {name: [] for name in names}
    skipped: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        ports: dict[str, int] = {}
        for server in dict.fromkeys(RUNGS[name].server for name in names):
            environment = {"BENCH_BUNDLE": str(bundle), "BENCH_MODEL": model, "BENCH_TOKEN": token}
            port = None
            if server in OURS:
                ours = OURS[server]
                command = reco_command(
                    precomputed_in(folder, bundle) if ours.precomputed else artifacts, ours.retriever
                )
                environment = {
                    "RECO_TOKENS": f"bench:{token}", "RECO_ACCESS_LOG": "off", "RECO_DRAIN_WAIT_S": "0",
                    "RECO_BUDGET_MS": PATIENT_MS,
                    **ours.environment,
                }  # fmt: skip
            elif server in PEERS:
                peer = find_peer(server, folder)
                if isinstance(peer, str):
                    skipped |= {name: peer for name in names if RUNGS[name].server == server}
                    continue
                command, port = peer.command, peer.port
                environment["PYTHONPATH"] = str(REPOSITORY)
            else:
                command = uvicorn_command(server)
            ports[server] = stack.enter_context(served(command, environment, folder, server_core, port))
        if ranked_model(manifest) is None:
            skipped |= {
                name: "the bundle has no model of two stages"
                for name in names
                if RUNGS[name].asked == "ranked"
            }
        names = [name for name in names if name not in skipped]
        recalls = {
            name: checked(
                RUNGS[name], ports[RUNGS[name].server], token, model, ranked_model(manifest), vectors
            )
            for name in names
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
        paces = {
            name: Measured(
                ports[RUNGS[name].server],
                targets[RUNGS[name].asked],
                statistics.median(many.rps for many, _ in rounds[name]),
            )
            for name in paced
            if name in names
        }
        open_loop = (
            measure_open(paces, token, rounds=args.rounds, seconds=args.seconds, core=generator_core)
            if paces
            else {}
        )
        hit_share = cache_hits(ports["cached"]) if "cached" in ports else None
    base = [many.rps for many, _ in rounds[BASE]]
    return {
        "bench": "reco", "machine": machine(), "pinned": pins, "load_before": round(load_before, 2),
        "seconds": args.seconds, "rounds": args.rounds, "connections": CONNECTIONS,
        "catalogue": {
            "items": len(vectors.items), "dim": vectors.items.shape[1], "users": len(vectors.users), "model": model,
            "seen_mean": round(len(vectors.seen_rows) / (len(vectors.seen_indptr) - 1), 1),
        },
        "skipped": skipped, "cache_hit_share": hit_share,
        "open_loop": open_loop,
        "rungs": {name: summary(RUNGS[name].title, rounds[name], base, recalls[name]) for name in names},
    }  # fmt: skip


def ranked_model(manifest: dict[str, Any]) -> str | None:
    """Name of a model of two stages; None where the bundle has none."""
    kinds = {name: model["kind"] for name, model in sorted(manifest["models"].items())}
    return next((name for name, kind in kinds.items() if kind == "two_stage"), None)


def cache_hits(port: int) -> float:
    """Share of the answers that could be kept that were, of all that a server was asked."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        return hit_share(response.read().decode())


def hit_share(metrics: str) -> float:
    """The share of hits among what Prometheus' text says; millions come as 1.2e+06."""
    counts = {result: float(count) for result, count in _HITS.findall(metrics)}
    return round(counts.get("hit", 0.0) / max(1.0, sum(counts.values())), 4)


def write_targets(folder: Path, vectors: Vectors, model: str, ranked: str | None) -> dict[str, Target]:
    """Write what is asked, in random order: users of vectors, some of them over and over, users nobody knows, and the
    same by other paths."""
    chance = np.random.default_rng(2)
    warm = chance.choice(vectors.user_ids, FILES).tolist()
    highest = int(vectors.user_ids.max())
    nobody = chance.integers(highest + 1, highest + 10**6, FILES).tolist()
    lines = {
        "warm": [f"/reco/{model}/{user}" for user in warm],
        "again": [f"/reco/{model}/{user}" for user in warm[:REPEATING]],
        "cold": [f"/reco/{model}/{user}" for user in nobody],
        "popular": [f"/reco/popular/{user}" for user in warm],
        "ranked": [f"/reco/{ranked or model}/{user}" for user in warm],
        "v1": [body_of(V1, user, model).decode() for user in warm],
        "predict": [body_of(PREDICT, user, model).decode() for user in warm],
    }
    for name, texts in lines.items():
        (folder / name).write_text("\n".join(texts) + "\n")
    posted = {"v1": V1, "predict": PREDICT}
    return {
        name: Target(folder / name, "POST", posted[name]) if name in posted else Target(folder / name)
        for name in lines
    }


def checked(
    rung: Rung, port: int, token: str, model: str, ranked: str | None, vectors: Vectors
) -> float | None:
    """Check a sample of a rung's answers; returns recall@10 where they are searched for. Raises BenchError."""
    rows = np.random.default_rng(3).integers(0, len(vectors.users), SAMPLE).tolist()
    if rung.checked == "form":
        asked = {"popular": "popular", "ranked": ranked or model}.get(rung.asked, model)
        beyond = int(vectors.user_ids.max()) if rung.asked == "cold" else 0
        for row in rows:
            answered(port, token, asked, int(vectors.user_ids[row]) + beyond, path=None)
    if rung.checked not in {"all", "unseen"}:
        return None
    path = {"v1": V1, "predict": PREDICT}.get(rung.asked)
    recall = recall_of(port, token, model, vectors, rows, path=path, unseen=rung.checked == "unseen")
    if rung.server in {"exact", "cached"} and recall < 0.999:
        raise BenchError(
            f"the exact retriever's recall@10 is {recall}: its answers are not those of the vectors"
        )
    return recall


if __name__ == "__main__":
    raise SystemExit(main())
