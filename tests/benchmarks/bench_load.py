"""How long `reco serve` takes to be ready, and what memory it holds, for a generated bundle of a given size.

    .venv/bin/python tests/benchmarks/bench_load.py --users 1000000 --items 100000 --dim 64

Vectors are random with item norms that fall off as trained ones do; no graph index. Prints a table to stderr and one
JSON line to stdout. Memory is from /proc/PID/smaps_rollup: RSS counts every page a process maps, PSS shares a page's
size among those that map it, so the PSS of all processes add up to what the machine holds.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from models.build.assemble import assemble
from models.data.dataset import Dataset
from models.trained import TrainedModel
from service.bundle.ids import IntIds
from service.bundle.store import ArtifactStore

MEBI = 1 << 20


def generated(
    users: int, items: int, dim: int, events_per_user: int
) -> tuple[Dataset, dict[str, TrainedModel]]:
    """Random data of a given size: a dataset and its two models, popular and als."""
    generator = np.random.default_rng(1)
    count = users * events_per_user
    user_rows = np.repeat(np.arange(users, dtype=np.int32), events_per_user)
    item_rows = (items * generator.random(count) ** 3).astype(np.int32)
    dataset = Dataset(
        name=f"generated-{users}x{items}",
        user_ids=IntIds(1 + 2 * np.arange(users)),
        item_ids=IntIds(1 + 3 * np.arange(items)),
        user_rows=user_rows,
        item_rows=item_rows,
        weights=np.ones(count, np.float32),
        times=np.arange(count, dtype=np.int64),
        time_kind="position",
    )
    popularity = np.bincount(item_rows, minlength=items)
    order = np.argsort(-popularity, kind="stable").astype(np.int32)
    item_vectors = generator.standard_normal((items, dim), np.float32)
    item_vectors *= (1 / np.sqrt(1 + np.arange(items) / 1000)).astype(np.float32)[:, None]
    models = {
        "popular": TrainedModel(
            "popular",
            {
                "indptr": np.array([0, items], np.int64),
                "items": order,
                "scores": popularity[order].astype(np.float32),
                "user_segment": np.zeros(users, np.int32),
            },
            parameters={"segments": ["everybody"]},
        ),
        "als": TrainedModel(
            "factors",
            {
                "item_rows": np.arange(items, dtype=np.int32),
                "item_vectors": item_vectors,
                "user_rows": np.arange(users, dtype=np.int32),
                "user_vectors": generator.standard_normal((users, dim), np.float32),
            },
            space="ip",
            parameters={"fold_in": {"regularization": 0.1, "alpha": 2.0}},
        ),
    }
    return dataset, models


def memory(pid: int) -> dict[str, float]:
    """RSS, PSS, and RSS that belongs to no file, MiB."""
    rows = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    kilobytes = {row[0]: int(row[1]) for row in rows}
    return {name: round(kilobytes[f"{name}:"] / 1024, 1) for name in ("Rss", "Pss", "Anonymous")}


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used: what `ready_s` would be on a machine with nothing else to do."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(root: Path, workers: int) -> dict[str, Any]:
    """Start `reco serve` on a bundle, wait until it is ready, ask once, and weigh its processes."""
    token = secrets.token_hex(24)
    reco = Path(sys.executable).with_name("reco")
    command = [str(reco), "serve", "--artifacts", str(root), "--port", "0", "--workers", str(workers)]
    environment = {
        **os.environ,
        "RECO_TOKENS": f"bench:{token}",
        "RECO_ACCESS_LOG": "false",
        "RECO_DRAIN_WAIT_S": "0",
    }
    started = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        if "ready on " not in line:
            raise SystemExit(line + process.stderr.read())
        url = line.split("ready on ")[1].split(": ")[0]
        while not _ready(url):
            time.sleep(0.002)
        seconds = time.perf_counter() - started
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        loaders = [int(pid) for pid in children if "loader" in Path(f"/proc/{pid}/comm").read_text()]
        cpu = sum(cpu_seconds(pid) for pid in (process.pid, *loaders))
        request = urllib.request.Request(
            f"{url}/reco/default/1", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request) as answer:
            items = json.load(answer)["items"]
        return {
            "ready_s": round(seconds, 3),
            "load_cpu_s": round(cpu, 2),
            "answered": len(items),
            "parent": memory(process.pid),
            "loader": [memory(pid) for pid in loaders],
            "workers": [memory(int(pid)) for pid in children if int(pid) not in loaders],
        }
    finally:
        process.terminate()
        process.wait(30)


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url + "/health/ready") as answer:
            return bool(answer.status == 200)
    except urllib.error.URLError:
        return False


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=6040)
    parser.add_argument("--items", type=int, default=3706)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--events-per-user", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--artifacts", type=Path, help="measure what is published there instead of a generated bundle"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = args.artifacts or Path(folder)
        if args.artifacts is None:
            dataset, models = generated(args.users, args.items, args.dim, args.events_per_user)
            path = assemble(root, dataset, models, default_model="als", index="none").path
            ArtifactStore(root).publish(path.name)
            del dataset, models
        arrays = sum(file.stat().st_size for file in ArtifactStore(root).current().rglob("*.npy")) / MEBI
        found = measure(root, args.workers)
    held = found["parent"]["Pss"] + sum(one["Pss"] for one in (*found["loader"], *found["workers"]))
    result = {
        "bench": "load", "users": args.users, "items": args.items, "dim": args.dim,
        "events_per_user": args.events_per_user, "arrays_mib": round(arrays, 1),
        **found, "pss_sum_mib": round(held, 1), "pss_sum_over_arrays": round(held / arrays, 3),
    }  # fmt: skip
    print(
        f"ready in {found['ready_s']:.2f} s ({found['load_cpu_s']:.2f} s of processor); arrays {arrays:.0f} MiB",
        file=sys.stderr,
    )
    print(f"{'MiB':>10}  {'RSS':>8}  {'PSS':>8}  {'anonymous':>9}", file=sys.stderr)
    named = [("parent", found["parent"]), *(("loader", row) for row in found["loader"])]
    for name, row in named + [(f"worker {n}", w) for n, w in enumerate(found["workers"])]:
        print(f"{name:>10}  {row['Rss']:8.1f}  {row['Pss']:8.1f}  {row['Anonymous']:9.1f}", file=sys.stderr)
    print(f"{'together':>10}  {'':8}  {held:8.1f}  = {held / arrays:.2f} of the arrays", file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
