"""Random damage to bundles, seeded: what is refused, what still answers, and that nothing crashes.

    python tests/bundle_mutants.py --mutants 10000 --index-mutants 2000 --content-mutants 2000 --tower-mutants 500

Mutants of bytes (truncate, flip, zero, swap two files) must all be refused: the hashes tell. Signed mutants have the
hashes made right again, so only the checks behind them stand before the service and its native code: each must be
refused or answer every user by every model. They run in a child process whose death is counted as a crash.
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
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
from factories import tiny_dataset, trained_models, two_stage_model, write_tiny_bundle
from forgery import array_of, forge, manifest_of, sign
from tower_bundles import write_tower_bundle

from models.build.index import IndexChoice
from service.bundle.manifest import MANIFEST
from service.bundle.reader import load_bundle
from service.domain import Deadline, Plan, Query
from service.errors import BundleRefused
from service.recommender.live import go_live
from service.recommender.pipeline import recommend

INDEX = "als/index.hnsw"
TOWER = ("tower/tower.onnx", "tower/tower_tokens.npy", "tower/user_features.npy")
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


def run_signed_mutants(target: str, count: int, seed: int) -> dict[str, int]:
    """Run signed mutants in child processes; returns how many were refused, answered, and crashed.

    target: `index`, `tower`, or `content` for the arrays, the JSON files and the manifest's values.
    """
    found: Counter[str] = Counter()
    done = 0
    while done < count:
        command = [sys.executable, __file__, "--child", target, str(done), str(count), str(seed)]
        child = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        outcomes = child.stdout.split()
        found.update(outcomes)
        done += len(outcomes)
        if child.returncode != 0:
            found["crashed"] += 1
            last = child.stderr.strip().rpartition("\n")[2]
            sys.stderr.write(f"{target} mutant {done}: exit {child.returncode} {last}\n")
            done += 1
    return {"mutants": count, **{outcome: found[outcome] for outcome in ("refused", "answered", "crashed")}}


def _child(target: str, first: int, end: int, seed: int) -> None:
    """Print `refused` or `answered` for each mutant from `first` on, as soon as it is known."""
    with tempfile.TemporaryDirectory() as folder:
        data = tiny_dataset(60, 400, events_per_user=20) if target == "index" else tiny_dataset(20, 40)
        if target == "tower":
            bundle = write_tower_bundle(Path(folder))
        else:
            models = trained_models(data)
            if target == "content":
                models["ranked"] = two_stage_model(data)
            index: IndexChoice = "ivf" if target == "content" else "hnsw"
            bundle = write_tiny_bundle(Path(folder), dataset=data, models=models, index=index)
        document = manifest_of(bundle)
        contents = {name: (bundle / name).read_bytes() for name in document["files"]}
        for number in range(first, end):
            draw = random.Random(f"{seed}/{number}")
            if target == "index":
                bundle = forge(bundle, {INDEX: _index_mutant(contents[INDEX], draw)})
            elif target == "tower":
                bundle = _tower_mutant(bundle, document, contents, draw)
            else:
                bundle = _content_mutant(bundle, document, contents, draw)
            sys.stdout.write(f"{_outcome(bundle)}\n")
            sys.stdout.flush()


def _tower_mutant(
    bundle: Path, document: dict[str, Any], contents: dict[str, bytes], draw: random.Random
) -> Path:
    """Put the tower back, then change some of its bytes, or of what goes with it, and sign."""
    for name in TOWER:
        (bundle / name).write_bytes(contents[name])
    bundle = sign(bundle, document)
    name = draw.choice((TOWER[0], TOWER[0], TOWER[0], *TOWER[1:]))
    if name != TOWER[0]:
        return forge(bundle, {name: _array_mutant(array_of(bundle, name), draw)})
    raw = bytearray(contents[name])
    for _ in range(draw.choice((1, 1, 2, 8))):
        raw[draw.randrange(len(raw))] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
    return forge(bundle, {name: bytes(raw)})


def _content_mutant(
    bundle: Path, document: dict[str, Any], contents: dict[str, bytes], draw: random.Random
) -> Path:
    """Put everything back, then change one array, one JSON file or one value of the manifest, and sign."""
    for name, raw in contents.items():
        (bundle / name).write_bytes(raw)
    bundle = sign(bundle, document)
    if draw.random() < 0.3:
        changed = orjson.loads(orjson.dumps(document))
        _change_value({"manifest": changed}, draw)
        return sign(bundle, changed)
    name = draw.choice(list(contents))
    if name.endswith(".json"):
        wrapped = {"document": orjson.loads(contents[name])}
        _change_value(wrapped, draw)
        return forge(bundle, {name: orjson.dumps(wrapped["document"])})
    array = array_of(bundle, name)
    if draw.random() < 0.2:
        cut = draw.randrange(len(array) + 1)
        return forge(bundle, {name: array[:cut] if draw.random() < 0.5 else array[cut:].copy()})
    return forge(bundle, {name: _array_mutant(array, draw)})


def _array_mutant(array: npt.NDArray[Any], draw: random.Random) -> npt.NDArray[Any]:
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = draw.randrange(array.size)
        if array.dtype.kind == "f":
            array.flat[place] = draw.choice((0.0, -1.0, 1e-40, 1e-20, 1e10, 1e30, draw.gauss(0, 1)))
        else:
            most = np.iinfo(array.dtype)
            array.flat[place] = draw.choice((0, 1, 2, 19, 20, 39, 40, most.min, most.max, draw.randrange(64)))
    return array


def _change_value(document: Any, draw: random.Random) -> None:
    """Replace, remove or repeat one value somewhere below a JSON object."""
    here, key = document, next(iter(document))
    while isinstance(here[key], (dict, list)) and here[key] and draw.random() < 0.85:
        here = here[key]
        key = draw.choice(list(here) if isinstance(here, dict) else range(len(here)))
    if here is document:
        return
    if draw.random() < 0.2:
        del here[key]
    elif isinstance(here, list) and draw.random() < 0.3:
        here.append(here[key])
    else:
        here[key] = draw.choice(
            (None, 0, 1, -1, 7, 10**12, 0.5, 1e308, "", "x", "als", [], [0], {}, {"a": 1}, True)
        )


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
        live = go_live(load_bundle(bundle))
    except BundleRefused:
        return "refused"
    for name in live.models:
        for user_id in [None, *live.bundle.user_ids.take(np.arange(len(live.bundle.user_ids)))]:
            for history in (None, tuple(live.bundle.item_ids.take(np.arange(0, 30, 7)))):
                slate = recommend(Query(user_id, 10, history), Plan(name), live, Deadline.none())
                assert len(set(slate.item_ids)) == len(slate.item_ids) == 10
                assert np.isfinite(slate.scores).all()
    return "answered"


def main() -> int:
    """Run both and print one JSON line. Exit 1 where a mutant was accepted, crashed, or took too long."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--index-mutants", type=int, default=2_000)
    parser.add_argument("--content-mutants", type=int, default=2_000)
    parser.add_argument("--tower-mutants", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        target, first, end, seed = args.child
        _child(target, int(first), int(end), int(seed))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        of_bytes = run_byte_mutants(Path(folder), args.mutants, args.seed)
    of_index = run_signed_mutants("index", args.index_mutants, args.seed)
    of_content = run_signed_mutants("content", args.content_mutants, args.seed)
    of_tower = run_signed_mutants("tower", args.tower_mutants, args.seed)
    found = {"bytes": of_bytes, "index": of_index, "content": of_content, "tower": of_tower}
    sys.stdout.write(orjson.dumps(found).decode() + "\n")
    slow = float(str(of_bytes["slowest_s"])) > SLOWEST_ALLOWED_S
    crashed = sum(signed["crashed"] for signed in (of_index, of_content, of_tower))
    return int(bool(of_bytes["accepted"]) or crashed > 0 or slow)


if __name__ == "__main__":
    sys.exit(main())
