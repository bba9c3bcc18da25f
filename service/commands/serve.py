"""`reco serve`: the published bundle on a port, by several workers."""

from __future__ import annotations

import argparse
import gc
import os
from pathlib import Path

from service.settings import PROFILES, Settings, load_settings

HELP = "Serve the published bundle over HTTP."

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags; each overrides the RECO_ variable of its name."""
    parser.add_argument("--artifacts", type=Path, help="folder of bundles, as 'reco build --out' wrote it")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, help="port; 0 takes a free one (default 8080, with --profile botify 5001)"
    )
    parser.add_argument(
        "--profile", dest="profiles", action="append", choices=PROFILES, metavar="NAME",
        help=f"add the routes of another system ({', '.join(PROFILES)}); may be given several times",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, help="processes; 0 is one a core (default)")
    parser.add_argument("--budget-ms", type=float, help="time a request may take before the fallback answers")
    parser.add_argument(
        "--retriever", choices=("auto", "exact", "hnsw", "ivf"), help="override the build's choice"
    )
    parser.add_argument(
        "--admin-port", type=int, help="move /metrics to this loopback port; 0 takes a free one"
    )
    parser.add_argument(
        "--no-supervisor", action="store_true", help="one process that nobody replaces (for a debugger)"
    )
    parser.epilog = (
        "SIGTERM or Ctrl-C drains and stops; SIGHUP looks for a new bundle now. See docs/operations.md."
    )


def run(args: argparse.Namespace) -> int:
    """Serve until a signal. Raises InputError (settings, port, nothing published) and BundleRefused."""
    given = vars(args)
    settings = load_settings({name: given[name] for name in given if name in Settings.model_fields})
    # A request's matrices are small: threads would only wait for each other, and must not be there at a fork. The
    # libraries read these when they are loaded, which the imports below do.
    for name in _ONE_THREAD:
        os.environ[name] = "1"
    # Nothing made during the start is garbage; once all is loaded it is collected once, and frozen for the forks.
    gc.disable()
    from service.serving.start import serve  # noqa: PLC0415 - as said above

    return serve(settings, supervised=not args.no_supervisor)
