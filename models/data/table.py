"""The plain dialect: `interactions.*` with optional `users.*` and `items.*`, or one table of interactions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from models.data.dataset import Dataset
from models.data.events import EventTable, choose_columns, read_events
from models.data.features import FeatureTable, join_features, read_features
from models.data.tables import column_names, has_columns, scan_table
from service.errors import DataError

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
LOOKS_FOR = (
    "interactions.{csv,csv.gz,tsv,tsv.gz,parquet} with columns user_id, item_id, optionally weight or rating "
    "and one of timestamp, last_watch_dt, pos"
)


def find(folder: Path, stem: str) -> Path | None:
    """Find `stem` with one of ENDINGS. Raises DataError if there are several."""
    there = [folder / f"{stem}{ending}" for ending in ENDINGS if (folder / f"{stem}{ending}").is_file()]
    if len(there) > 1:
        raise DataError(folder, f"both {there[0].name} and {there[1].name}: keep one")
    return there[0] if there else None


def interactions_of(path: Path) -> Path | None:
    """Find the interactions: the file itself, or the folder's."""
    return path if path.is_file() else find(path, "interactions")


def accepts(path: Path) -> bool:
    """Whether this is a folder with interactions, or a table with user_id and item_id."""
    file = interactions_of(path)
    if file is None or path.is_dir():
        return file is not None
    return has_columns(file, ("user_id", "item_id"))


def read(path: Path, columns: Mapping[str, str], progress: bool) -> Dataset:
    """Read a folder, or one file of interactions. Raises DataError."""
    file = interactions_of(path)
    if file is None:
        raise DataError(path, f"no interactions; looked for {LOOKS_FOR}")
    frame = scan_table(file)
    events = EventTable(file, frame, choose_columns(frame, file, columns))
    users = items = None
    if path.is_dir():
        users = read_side(path, "users", "user", columns.get("user_id", "user_id"))
        items = read_side(path, "items", "item", columns.get("item_id", "item_id"))
    name = path.name if path.is_dir() else path.name.split(".")[0]
    return read_events(name, events, users=users, items=items, progress=progress)


def read_side(folder: Path, plural: str, singular: str, id_column: str) -> FeatureTable | None:
    """Read `items.*` and join further tables of items if there are any (`items_text.*`, `item_tags.*`)."""
    main = find(folder, plural)
    stems = {
        file.name.split(".")[0] for file in folder.iterdir() if file.is_file() and file.name.endswith(ENDINGS)
    }
    further = [
        find(folder, stem) for stem in sorted(stems) if stem.startswith((f"{plural}_", f"{singular}_"))
    ]
    tables = []
    for file in (main, *further):
        if file is None:
            continue
        found = column_names(scan_table(file), file)
        # A file given by --column may name the id otherwise than the feature tables do.
        own = id_column if id_column in found else f"{singular}_id"
        tables.append(read_features(file, own))
    return join_features(tables) if len(tables) > 1 else (tables[0] if tables else None)
