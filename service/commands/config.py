"""`reco config`: the settings as `reco serve` would see them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from difflib import get_close_matches

import orjson

from service.settings import PREFIX, Settings, describe, load_settings

HELP = "Print the effective settings, secrets masked."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's flags: none, settings come from the environment and .env."""
    parser.epilog = f"Every setting is a variable: {PREFIX}<NAME>."


def run(args: argparse.Namespace) -> int:  # noqa: ARG001 - the protocol of commands
    """Print a table for people to stderr and one JSON object to stdout. Raises InputError for a bad value."""
    shown = describe(load_settings())
    width = max(len(name) for name in shown)
    for name, value in shown.items():
        field = Settings.model_fields[name]
        text = ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)
        print(f"{PREFIX}{name.upper():<{width}}  {text:<24}  {field.description}", file=sys.stderr)
    for warning in unknown_variables(os.environ):
        print(f"reco: {warning}", file=sys.stderr)
    print(orjson.dumps(shown).decode())
    return 0


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Say which RECO_ variables are no settings, with the nearest setting's name: one a line."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    strangers = sorted(name for name in environ if name.startswith(PREFIX) and name not in known)
    nearest = ((name, get_close_matches(name, known, n=1, cutoff=0.8)) for name in strangers)
    return [f"{name} is not a setting; did you mean {near[0]}?" for name, near in nearest if near]
