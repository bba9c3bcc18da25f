"""`reco simulate catalogue`: tracks, their embeddings and an audience, drawn by seed."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from loadtest.simulator.audience import USERS, draw_audience, write_audience
from loadtest.simulator.catalogue import write_catalogue
from loadtest.simulator.errors import SimulatorError
from loadtest.simulator.generator import DIM, generate_catalogue

HELP = "Draw a catalogue and an audience for 'reco simulate --catalogue'"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add = parser.add_argument
    add("--tracks", type=int, required=True, metavar="N")
    add("--artists", type=int, required=True, metavar="N")
    add("--users", type=int, default=1000, metavar="N", help="default: 1000")
    add("--dim", type=int, default=DIM, metavar="N", help=f"of the embeddings; default: {DIM}")
    add("--seed", type=int, default=0, metavar="S", help="default: 0")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write into")


def run(args: argparse.Namespace) -> int:
    """Write tracks.json, embeddings.npy and users.json; one JSON line to stdout."""
    try:
        catalogue = generate_catalogue(args.tracks, args.artists, args.seed, dim=args.dim)
        audience = draw_audience(args.users, args.tracks, args.seed)
    except SimulatorError as error:
        sys.stderr.write(f"reco: {error}\n")
        return 2
    write_catalogue(catalogue, args.out)
    write_audience(audience, args.out / USERS)
    print(
        json.dumps(
            {"tracks": args.tracks, "artists": args.artists, "users": args.users, "out": str(args.out)}
        )
    )
    return 0
