"""`reco submit`: the competition's file out of the serving line, checked, stamped, and compared with a service."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from models.evaluation.files import at_least_one, read_users
from models.evaluation.opening import model_of, open_published
from models.evaluation.replay import replay
from models.submission import MOST_ITEMS, Submission, validate_submission, write_submission
from service.errors import InputError
from service.recommender.plan import plan_for

HELP = "Write the competition's file (user_id and a list of items) through the serving line, and prove parity"
VERIFIERS = "reco.verifiers"
"""Entry point group of what asks a running service: rooms that train models don't speak HTTP themselves."""
REFUSED = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument(
        "--artifacts", type=Path, required=True, metavar="DIR", help="folder with a published bundle"
    )
    parser.add_argument(
        "--model", default="default", metavar="M", help="a model of the bundle; default: its default"
    )
    parser.add_argument(
        "--users",
        type=Path,
        required=True,
        metavar="FILE",
        help="one id a line, or a table with a user_id column",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="CSV", help="its stamp goes to <CSV>.json")
    parser.add_argument(
        "--k",
        type=at_least_one,
        default=MOST_ITEMS,
        metavar="N",
        help=f"items a user, at most and default {MOST_ITEMS}",
    )
    parser.add_argument(
        "--verify", metavar="URL", help="compare with the service at URL for a sample of the users"
    )
    parser.add_argument(
        "--token-env",
        default="RECO_TOKEN",
        metavar="NAME",
        help="environment variable of the token; default: RECO_TOKEN",
    )
    parser.add_argument(
        "--sample", type=at_least_one, default=50, metavar="N", help="users to compare; default: 50"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the sample; default: 0")


def run(args: argparse.Namespace) -> int:
    """Write, check, stamp, compare; print one JSON line. Exit code 3 where the service answers otherwise."""
    if args.k > MOST_ITEMS:
        raise InputError(f"--k: a submission holds at most {MOST_ITEMS} items a user, not {args.k}")
    live = open_published(args.artifacts)
    model = model_of(live, args.model)
    manifest = live.bundle.manifest
    users = read_users(args.users, manifest.user_id_kind)
    answers = replay(live, plan_for(model.name, live), users, k=args.k, progress=True)
    stamp = {"bundle": live.bundle_id, "model": model.name, "k": args.k}
    stamped = write_submission(args.out, users, answers.item_ids, stamp)
    submission = validate_submission(
        args.out,
        user_kind=manifest.user_id_kind,
        item_kind=manifest.item_id_kind,
        k=args.k,
        catalogue=live.bundle.item_ids,
        users=users,
    )
    summary: dict[str, Any] = {"out": str(args.out), "stamp": str(stamped), **stamp}
    summary |= {"users": len(submission.items), "sha256": submission.sha256}
    if args.verify is not None:
        parity = _ask_service(args, model.name, live.bundle_id, submission)
        if parity.differences:
            print(f"reco: {_complaint(args.verify, parity)}", file=sys.stderr)
            return REFUSED
        summary["verified"] = {"url": args.verify, "users": parity.asked, "bundles": list(parity.bundles)}
    print(orjson.dumps(summary).decode())
    return 0


def _ask_service(args: argparse.Namespace, model: str, bundle_id: str, submission: Submission) -> Any:
    found = metadata.entry_points(group=VERIFIERS, name="http")
    if not found:
        raise InputError("--verify: no verifier is installed: pip install 'reco-service[build]'")
    verify = next(iter(found)).load()
    users = list(submission.items)
    size = min(args.sample, len(users))
    places = np.sort(np.random.default_rng(args.seed).choice(len(users), size, replace=False))
    expected = {users[place]: submission.items[users[place]] for place in places.tolist()}
    try:
        return verify(
            args.verify, model, expected, k=args.k, token=os.environ.get(args.token_env), bundle_id=bundle_id
        )
    except PermissionError as error:
        raise InputError(f"--verify: {error} (set {args.token_env})") from error
    except ConnectionError as error:
        raise InputError(f"--verify: {error}") from error


def _complaint(url: str, parity: Any) -> str:
    first = parity.differences[0]
    answered = "nothing" if first.answered is None else list(first.answered)
    return (
        f"{url} does not serve this submission: {len(parity.differences)} of {parity.asked} users differ, the first is "
        f"user {first.user_id}: {first.reason}; submitted {list(first.expected)}, answered {answered}"
    )
