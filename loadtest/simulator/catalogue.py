"""Tracks as the audience hears them: an embedding and an artist each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from loadtest.simulator.errors import SimulatorError

TRACKS, EMBEDDINGS = "tracks.json", "embeddings.npy"

Embeddings = npt.NDArray[np.float16]
_UNIT_TOLERANCE = 0.01
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Track ids are 0 .. n - 1, row numbers of both.

    embeddings: float16 (n, dim), centred and of unit norm. artists, titles: (n,).
    """

    embeddings: Embeddings
    artists: Sequence[str]
    titles: Sequence[str]
    _nearest: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.embeddings)

    def affinity(self, track: int, other: int) -> float:
        """Inner product of two tracks as the embeddings' own type gives it: rounded to float16."""
        return float(np.dot(self.embeddings[track], self.embeddings[other]))

    def nearest(self, track: int, n: int) -> tuple[int, ...]:
        """The n tracks of largest inner product (in float32) with a track's embedding, nearest first; it is one."""
        key = (track, n)
        found = self._nearest.get(key)
        if found is None:
            query = self.embeddings[track].astype(np.float32)
            products = np.concatenate(
                [
                    self.embeddings[start : start + _ROWS_AT_ONCE].astype(np.float32) @ query
                    for start in range(0, len(self), _ROWS_AT_ONCE)
                ]
            )
            found = self._nearest[key] = tuple(np.argsort(-products, kind="stable")[:n].tolist())
        return found


def read_catalogue(tracks: Path, embeddings: Path) -> Catalogue:
    """Read a catalogue: one JSON object a line with `track`, `artist`, `title`; a matrix with a row a track.

    Raises SimulatorError naming file, row and value where the two don't fit together.
    """
    matrix = _read_matrix(embeddings)
    n = len(matrix)
    artists: list[str | None] = [None] * n
    titles = [""] * n
    for row, line in json_lines(tracks):
        track = line.get("track")
        if type(track) is not int or not 0 <= track < n:
            raise SimulatorError(
                f"{tracks}: row {row}: 'track' is {track!r}; {embeddings} has rows 0 to {n - 1}"
            )
        if artists[track] is not None:
            raise SimulatorError(f"{tracks}: row {row}: track {track} is there twice")
        artists[track] = str(line.get("artist", ""))
        titles[track] = str(line.get("title", ""))
    known = [artist for artist in artists if artist is not None]
    if len(known) != n:
        raise SimulatorError(
            f"{tracks}: {len(known)} tracks, but {embeddings} has {n} rows; missing: {artists.index(None)}"
        )
    return Catalogue(matrix, known, titles)


def write_catalogue(catalogue: Catalogue, folder: Path) -> None:
    """Write tracks.json and embeddings.npy into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / TRACKS).open("w", encoding="utf-8") as file:
        for track, (artist, title) in enumerate(zip(catalogue.artists, catalogue.titles, strict=True)):
            file.write(json.dumps({"track": track, "artist": artist, "title": title}) + "\n")
    np.save(folder / EMBEDDINGS, catalogue.embeddings, allow_pickle=False)


def json_lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Read (row from 1, object) of a file with one JSON object a line. Raises SimulatorError."""
    rows = []
    for row, text in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError as error:
            raise SimulatorError(f"{path}: row {row}: not JSON: {error}") from None
        if not isinstance(line, dict):
            raise SimulatorError(f"{path}: row {row}: not a JSON object")
        rows.append((row, line))
    return rows


def _read_matrix(path: Path) -> Embeddings:
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise SimulatorError(f"{path}: not a matrix that numpy can read: {error}") from None
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind != "f" or not matrix.size:
        raise SimulatorError(f"{path}: must be a matrix of floats with a row a track")
    for start in range(0, len(matrix), _ROWS_AT_ONCE):
        norms = np.linalg.norm(matrix[start : start + _ROWS_AT_ONCE].astype(np.float32), axis=1)
        wrong = np.flatnonzero(~(np.abs(norms - 1) < _UNIT_TOLERANCE))
        if len(wrong):
            raise SimulatorError(f"{path}: row {start + wrong[0]}: norm {norms[wrong[0]]:.4g} instead of 1")
    return matrix.astype(np.float16, copy=False)
