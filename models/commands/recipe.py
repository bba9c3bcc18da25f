"""`reco recipe`: a whole build as a file declares it, from raw files to a published bundle."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import models
from models.build.build import Order
from models.build.recipes import Effort
from models.build.settings import BuildSettings, Recipe, read_settings
from models.commands.build import carried_out
from models.commands.data_flags import add_data_flags, columns_of
from models.progress import CONSOLE
from service.errors import InputError

HELP = "Carry out a whole build as a TOML file declares it: movielens-1m, kion, botify, or your own"
_SHIPPED = Path(models.__file__).with_name("recipes")
_NEEDS = {
    "dssm": ("torch", "train"),
    "sequence": ("torch", "train"),
    "lightgcn": ("torch", "train"),
    "neumf": ("torch", "train"),
    "lightfm": ("lightfm", "lightfm"),
    "two_stage": ("lightgbm", "build"),
}
"""Models -> the package they need, and the extra that brings it."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    parser.add_argument("recipe", metavar="RECIPE", help=f"{', '.join(shipped())}, or a TOML file")
    add_data_flags(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="ARTIFACTS", help="folder of bundles to add to"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--checkpoints", type=Path, metavar="FOLDER", help="where towers keep what they have learned"
    )
    parser.add_argument("--no-publish", action="store_true", help="leave the pointer as it is")


def run(args: argparse.Namespace) -> int:
    """Build; tables to stderr, one JSON line to stdout. Raises InputError for no such recipe."""
    path = _path(args.recipe)
    settings = read_settings(path)
    if settings.recipe is None:
        raise InputError(
            f"{path}: has no [recipe]: it says how to train models, not which ('reco build --config')"
        )
    order = Order(
        data=args.data,
        out=args.out,
        models=_possible(settings.recipe),
        configs=settings.configs,
        seed=args.seed,
        effort=cast("Effort", settings.recipe.tune),
        reader=args.reader or settings.reader or "auto",
        columns={**settings.columns, **columns_of(args)},
        avatars=settings.avatars,
        publish=not args.no_publish,
    )
    _tell(path, settings)
    return carried_out(order, args.checkpoints)


def shipped() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def _path(name: str) -> Path:
    if name in shipped():
        return _SHIPPED / f"{name}.toml"
    path = Path(name)
    if not path.is_file():
        raise InputError(f"{name}: no such recipe ({', '.join(shipped())}), and no such file")
    return path


def _possible(recipe: Recipe) -> tuple[str, ...]:
    """Leave out, and say so, what needs a package that isn't installed."""
    kept = []
    for name in recipe.models:
        package, extra = _NEEDS.get(name, ("", ""))
        if package and find_spec(package) is None:
            CONSOLE.print(f"left out: {name} needs {package}, which the extra '{extra}' brings", markup=False)
        else:
            kept.append(name)
    return tuple(kept)


def _tell(path: Path, settings: BuildSettings) -> None:
    assert settings.recipe is not None  # the caller looked
    CONSOLE.print(f"recipe {path.stem}: {settings.recipe.about}", markup=False)
