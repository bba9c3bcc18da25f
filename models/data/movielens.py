"""MovieLens as GroupLens ships it: 100k (`u.data`), 1M, 10M (`ratings.dat`), latest, 20M+ (`ratings.csv`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from models.data.dataset import Dataset
from models.data.events import EventTable, read_events
from models.data.features import FeatureTable, features
from models.data.tables import column_names, has_columns, naming, read_latin, scan_lines, scan_table
from service.errors import DataError, InputError

LOOKS_FOR = "u.data (100k), ratings.dat (1M, 10M) or ratings.csv with userId, movieId (latest)"
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""The 19 flags at the end of a line of u.item, in their order (u.genre)."""

_EVENT = ("user_id", "item_id", "rating", "timestamp")
_LATEST = {"user_id": "userId", "item_id": "movieId", "rating": "rating", "timestamp": "timestamp"}
_FILES = ("u.data", "ratings.dat", "ratings.csv", "ratings.csv.gz")


def _ratings_of(path: Path) -> Path | None:
    if path.is_file():
        return path
    return next((path / name for name in _FILES if (path / name).is_file()), None)


def accepts(path: Path) -> bool:
    """Whether there are ratings in one of the three layouts."""
    file = _ratings_of(path)
    if file is None:
        return False
    if file.name in {"u.data", "ratings.dat"}:
        return True
    return has_columns(file, ("userId", "movieId"))


def read(path: Path, columns: Mapping[str, str], progress: bool) -> Dataset:
    """Read ratings with times, and the users and movies files beside them. Raises DataError."""
    if columns:
        raise InputError(
            "--column does not go with --reader movielens, whose columns are known; use --reader table"
        )
    file = _ratings_of(path)
    if file is None:
        raise DataError(path, f"no MovieLens ratings; looked for {LOOKS_FOR}")
    as_is = {name: name for name in _EVENT}
    if file.name == "u.data":
        events = EventTable(file, scan_table(file, header=_EVENT), as_is)
        sides = _users_100k(file.parent / "u.user"), _movies_100k(file.parent / "u.item")
    elif file.suffix == ".dat":
        events = EventTable(file, scan_lines(file, "::", _EVENT), as_is)
        sides = _users_1m(file.parent / "users.dat"), _movies_1m(file.parent / "movies.dat")
    else:
        frame = scan_table(file)
        found = column_names(frame, file)
        if missing := [column for column in _LATEST.values() if column not in found]:
            raise DataError(file, f"no column {missing[0]!r}; the columns are {', '.join(found)}")
        events = EventTable(file, frame, _LATEST)
        beside = (file.parent / name for name in ("movies.csv", "movies.csv.gz"))
        movies = next((movies for movies in beside if movies.is_file()), None)
        sides = None, _movies_latest(movies) if movies else None
    users, items = sides if path.is_dir() else (None, None)
    return read_events(path.name.split(".")[0], events, users=users, items=items, progress=progress)


def _users_100k(path: Path) -> FeatureTable | None:
    if not path.is_file():
        return None
    frame = read_latin(path, "|", ("user_id", "age", "gender", "occupation", "zip"))
    return features(path, frame, "user_id")


def _movies_100k(path: Path) -> FeatureTable | None:
    if not path.is_file():
        return None
    flags = [f"flag_{genre}" for genre in GENRES_100K]
    frame = read_latin(
        path, "|", ("item_id", "title", "release_date", "video_release_date", "imdb_url", *flags)
    )
    genres = pl.concat_list(
        [pl.when(pl.col(f"flag_{genre}") == "1").then(pl.lit(genre)) for genre in GENRES_100K]
    ).list.drop_nulls()
    frame = frame.select("item_id", "title", "release_date", genres.alias("genres"))
    return features(path, frame, "item_id")


def _users_1m(path: Path) -> FeatureTable | None:
    if not path.is_file():
        return None
    frame = read_latin(path, "::", ("user_id", "gender", "age", "occupation", "zip"))
    return features(path, frame, "user_id")


def _movies_1m(path: Path) -> FeatureTable | None:
    if not path.is_file():
        return None
    return features(path, _listed(read_latin(path, "::", ("item_id", "title", "genres"))), "item_id")


def _movies_latest(path: Path) -> FeatureTable:
    lazy = scan_table(path)
    found = column_names(lazy, path)
    if missing := [column for column in ("movieId", "title", "genres") if column not in found]:
        raise DataError(path, f"no column {missing[0]!r}; the columns are {', '.join(found)}")
    with naming(path):
        frame = lazy.select(pl.col("movieId").alias("item_id"), "title", "genres").collect()
    return features(path, _listed(frame), "item_id")


def _listed(frame: pl.DataFrame) -> pl.DataFrame:
    """Split genres; `(no genres listed)` is none."""
    genres = pl.col("genres").replace("(no genres listed)", None).str.split("|")
    return frame.with_columns(genres)
