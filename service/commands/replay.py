"""`reco replay`: make served answers again from the event log, and prove that they are what was served."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from service.bundle.reader import load_bundle
from service.bundle.store import ArtifactStore
from service.commands.artifacts import add_artifacts_flag, opened
from service.errors import InputError, RequestError
from service.events.reading import Broken, read_records
from service.events.schema import is_slate
from service.recommender.live import LiveBundle, RetrieverChoice, go_live
from service.replay.known import Known
from service.replay.proof import Proof, prove
from service.replay.record import Asked, asked_of

HELP = "Make a served answer again from the event log, and prove it equal"
_DIFFERENT, _REFUSED = 1, 2


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "requests", nargs="*", metavar="REQUEST_ID", help="X-Request-Id of an answer (a batch's: all of it)"
    )
    parser.add_argument("--last", type=_count, metavar="N", help="instead: the newest N answers of the log")
    parser.add_argument("--events", type=Path, required=True, metavar="DIR", help="what RECO_EVENTS_DIR was")
    add_artifacts_flag(parser)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of answers")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Replay; what became of each to stderr, one JSON line to stdout.

    0 if every slate is proved, 1 if one comes out differently, 2 if one cannot be made again.
    """
    if bool(args.requests) == bool(args.last):
        raise InputError("name the answers, or say how many with --last N")
    records = list(_slates(args.events, args.requests, args.last))
    missing = [name for name in args.requests if not any(_is_of(record, name) for record in records)]
    if missing:
        raise InputError(
            f"{args.events}: no answer {missing[0]!r}: it was never logged, or its segment is gone"
        )
    proofs, refused = _replayed(args.events, opened(args), records)
    for proof in proofs:
        _tell(proof)
    for reason in refused:
        print(f"cannot be replayed: {reason}", file=sys.stderr)
    equal = sum(proof.equal for proof in proofs)
    summary = {
        "answers": len(records),
        "equal": equal,
        "different": len(proofs) - equal,
        "refused": refused,
        "proofs": [proof.document() for proof in proofs if args.requests or not proof.equal],
    }
    print(orjson.dumps(summary).decode())
    return _DIFFERENT if equal < len(proofs) else _REFUSED if refused else 0


def _slates(events: Path, names: list[str], last: int | None) -> Iterator[Mapping[str, Any]]:
    slates = (record for record in read_records(events, _complain) if is_slate(record))
    if last is not None:
        return iter(deque(slates, last))
    return (record for record in slates if any(_is_of(record, name) for name in names))


def _is_of(record: Mapping[str, Any], name: str) -> bool:
    return name in {record["event_id"], record["request_id"]}


def _replayed(
    events: Path, store: ArtifactStore, records: list[Mapping[str, Any]]
) -> tuple[list[Proof], list[str]]:
    """What could be made again, and why the rest could not."""
    refused: list[str] = []
    asked: list[Asked] = []
    for record in records:
        try:
            asked.append(asked_of(record))
        except InputError as error:
            refused.append(str(error))
    known = Known(
        read_records(events) if any(one.recent for one in asked) else (), (one.user for one in asked)
    )
    lives: dict[tuple[str, RetrieverChoice], LiveBundle] = {}
    proofs: list[Proof] = []
    for one in asked:
        try:
            key = one.bundle, one.retriever
            if key not in lives:
                lives[key] = go_live(load_bundle(store.path_of(one.bundle)), retriever=one.retriever)
            proofs.append(prove(one, known.recent_of(one), lives[key]))
        except (InputError, RequestError) as error:
            reason = str(error)
            refused.append(reason if reason.startswith(one.event_id) else f"{one.event_id}: {reason}")
    return proofs, refused


def _tell(proof: Proof) -> None:
    verdict = "equal" if proof.equal else "DIFFERENT"
    print(
        f"{proof.event_id}: {verdict}: {len(proof.items)} items by {proof.model} of bundle {proof.bundle}",
        file=sys.stderr,
    )
    for difference in proof.differences:
        print(f"  {difference}", file=sys.stderr)


def _complain(one: Broken) -> None:
    print(f"reco: {one.file}: {one.bytes} bytes at {one.offset} are no record: {one.reason}", file=sys.stderr)
