"""Random damage to bundles, seeded: what is refused, what still answers, and that nothing crashes.

    python tests/bundle_mutants.py --mutants 10000 --index-mutants 2000

Mutants of bytes (truncate, flip, zero, swap two files) must all be refused: the hashes tell. Mutants of the index are
signed again, so only the checks behind the hash stand before native code: each must be refused or answer. They run in a
child process whose death is counted as a crash.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import orjson
from factories import tiny_dataset, trained_models, write_tiny_bundle
from forgery import forge, manifest_of

from service.bundle.manifest import MANIFEST
from service.bundle.reader import load_bundle
from service.errors import BundleRefused
from service.recommender.filters import EVERYTHING
from service.recommender.live import go_live
from service.recommender.user_state import UserState

INDEX = "als/index.hnsw"
SLOWEST_ALLOWED_S = 2.0
KINDS = ("truncate", "flip", "zero", "swap")


@contextmanager
def mutant(bundle: Path, draw: random.Random) -> Iterator[str]:
    """Damage one file (or swap two) at random for the time of the block; gives a description."""
    names = [*manifest_of(bundle)["files"], MANIFEST]
    before: dict[str, bytes] = {}
    kind = draw.choice(KINDS)
    while True:
        chosen = draw.sample(names, 2 if kind == "swap" else 1)
        before = {name: (bundle / name).read_bytes() for name in chosen}
        after = _damaged(kind, before, draw)
        if after != before:  # zeroing zeros, or swapping equal files, damages nothing
            break
    for name, raw in after.items():
        (bundle / name).write_bytes(raw)
    try:
        yield f"{kind} {' '.join(chosen)}"
    finally:
        for name, raw in before.items():
            (bundle / name).write_bytes(raw)


def _damaged(kind: str, before: dict[str, bytes], draw: random.Random) -> dict[str, bytes]:
    if kind == "swap":
        (first, one), (second, other) = before.items()
        return {first: other, second: one}
    ((name, raw),) = before.items()
    start = draw.randrange(len(raw))
    if kind == "truncate":
        return {name: raw[:start]}
    damaged = bytearray(raw)
    if kind == "flip":
        for _ in range(draw.choice((1, 1, 1, 8))):
            damaged[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    else:
        end = min(len(raw), start + draw.choice((1, 16, 512, 4096)))
        damaged[start:end] = bytes(end - start)
    return {name: bytes(damaged)}


def run_byte_mutants(folder: Path, count: int, seed: int) -> dict[str, object]:
    """Refuse `count` mutants; returns how many were refused, by file, and the slowest refusal in seconds.

    An error other than BundleRefused passes through: it would be a crash.
    """
    bundle = write_tiny_bundle(folder, index="hnsw")
    draw = random.Random(seed)
    refused: Counter[str] = Counter()
    accepted: list[str] = []
    slowest = 0.0
    for _ in range(count):
        with mutant(bundle, draw) as description:
            began = time.perf_counter()
            try:
                load_bundle(bundle)
                accepted.append(description)
            except BundleRefused as error:
                if not (error.file and error.reason):
                    raise
                refused[error.file] += 1
            slowest = max(slowest, time.perf_counter() - began)
    load_bundle(bundle)  # all of it was put back
    return {
        "mutants": count,
        "refused": refused.total(),
        "accepted": accepted,
        "slowest_s": round(slowest, 4),
    }


def run_index_mutants(count: int, seed: int) -> dict[str, int]:
    """Run signed mutants of the index in child processes; returns how many were refused, answered, and crashed."""
    found: Counter[str] = Counter()
    done = 0
    while done < count:
        command = [sys.executable, __file__, "--child", str(done), str(count), str(seed)]
        child = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        outcomes = child.stdout.split()
        found.update(outcomes)
        done += len(outcomes)
        if child.returncode != 0:
            found["crashed"] += 1
            last = child.stderr.strip().rpartition("\n")[2]
            sys.stderr.write(f"index mutant {done}: exit {child.returncode} {last}\n")
            done += 1
    return {"mutants": count, **{outcome: found[outcome] for outcome in ("refused", "answered", "crashed")}}


def _child(first: int, end: int, seed: int) -> None:
    """Print `refused` or `answered` for each mutant from `first` on, as soon as it is known."""
    with tempfile.TemporaryDirectory() as folder:
        data = tiny_dataset(60, 400, events_per_user=20)
        bundle = write_tiny_bundle(Path(folder), dataset=data, models=trained_models(data), index="hnsw")
        sound = (bundle / INDEX).read_bytes()
        for number in range(first, end):
            raw = _index_mutant(sound, random.Random(f"{seed}/{number}"))
            bundle = forge(bundle, {INDEX: raw})
            sys.stdout.write(f"{_outcome(bundle)}\n")
            sys.stdout.flush()


def _index_mutant(sound: bytes, draw: random.Random) -> bytes:
    raw = bytearray(sound)
    kind = draw.choice(("bytes", "bytes", "word", "header", "resize"))
    if kind == "resize":
        at = draw.randrange(len(raw))
        return bytes(raw[:at]) if draw.random() < 0.5 else bytes(raw) + draw.randbytes(draw.randrange(1, 64))
    for _ in range(draw.choice((1, 1, 2, 8))):
        if kind == "word":  # a small number where links, counts and labels stand
            at = draw.randrange(len(raw) // 4) * 4
            raw[at : at + 4] = draw.choice((0, 1, 7, 31, 399, 400, 2**16, 2**32 - 1)).to_bytes(4, "little")
        else:
            raw[draw.randrange(96 if kind == "header" else len(raw))] = draw.randrange(256)
    return bytes(raw)


def _outcome(bundle: Path) -> str:
    try:
        live = go_live(load_bundle(bundle), retriever="hnsw")
    except BundleRefused:
        return "refused"
    model = live.resolve("als")
    for row in range(len(live.bundle.user_ids)):
        answer = model.retriever.retrieve(
            UserState(row, live.bundle.history_of(row), live=False), 10, EVERYTHING
        )
        if answer is not None:
            assert len(np.unique(answer.item_rows)) == len(answer.item_rows) == 10
    return "answered"


def main() -> int:
    """Run both and print one JSON line. Exit 1 where a mutant was accepted, crashed, or took too long."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--index-mutants", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=int, nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        _child(*args.child)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        of_bytes = run_byte_mutants(Path(folder), args.mutants, args.seed)
    of_index = run_index_mutants(args.index_mutants, args.seed)
    sys.stdout.write(orjson.dumps({"bytes": of_bytes, "index": of_index}).decode() + "\n")
    slow = float(str(of_bytes["slowest_s"])) > SLOWEST_ALLOWED_S
    return int(bool(of_bytes["accepted"]) or of_index["crashed"] > 0 or slow)


if __name__ == "__main__":
    sys.exit(main())
