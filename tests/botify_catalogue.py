"""A small bundle of music for tests of the botify profile: artists, titles, and a model of each kind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import polars as pl
from factories import tiny_dataset, trained_models, write_tiny_bundle

N_TRACKS = 40
TRACKS = [10 + 2 * row for row in range(N_TRACKS)]


def artist_of(track: int) -> str | None:
    """Four tracks an artist; the first track is its artist's only one, and the last track has no artist."""
    row = (track - 10) // 2
    if row in (0, N_TRACKS - 1):
        return "Soliste é" if row == 0 else None
    return f"Artist {row % 9}"


def write_botify_bundle(root: Path, *, ids: str = "int64", artists: bool = True, seed: int = 7) -> Path:
    """Write and publish it. Users are 100, 103, …; tracks are `TRACKS`; 'contextual' is the sparse item-item model."""
    dataset = tiny_dataset(ids=ids, seed=seed)
    assert dataset.items is not None
    if artists:
        column = pl.Series("artist", [artist_of(track) for track in TRACKS])
        dataset = dataclasses.replace(dataset, items=dataset.items.with_columns(column))
    models = trained_models(dataset)
    return write_tiny_bundle(root, dataset=dataset, models={**models, "contextual": models["knn"]})
