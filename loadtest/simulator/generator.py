"""A catalogue out of nothing, whose sound can be learnt from what people listen to.

Genres are directions in space, an artist keeps near a genre, a track near its artist.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loadtest.simulator.catalogue import Catalogue
from loadtest.simulator.errors import SimulatorError

DIM = 64
ARTISTS_PER_GENRE = 10
_A_CATALOGUE = 4
"""End of a seed: no other draw of the simulator has it."""
OF_GENRE, OF_ARTIST, OF_TRACK = 0.5, 0.2, 0.3
"""Shares of a track's direction: two tracks of a genre have an inner product near the first, two of an artist near
the sum of the first two, others near 0."""


def generate_catalogue(n_tracks: int, n_artists: int, seed: int, *, dim: int = DIM) -> Catalogue:
    """Draw a catalogue; the same arguments give the same bytes. Few artists have many tracks, each has one at least."""
    if seed < 0:
        raise SimulatorError(f"seed {seed}: must not be negative")
    if not 1 <= n_artists <= n_tracks or dim < 2 or n_tracks < 2:
        raise SimulatorError(
            f"{n_tracks} tracks of {n_artists} artists in {dim} dimensions: there must be two tracks, "
            "a track an artist, and two dimensions"
        )
    rng = np.random.default_rng([seed, n_tracks, n_artists, dim, _A_CATALOGUE])
    genres = _directions(rng, max(1, round(n_artists / ARTISTS_PER_GENRE)), dim)
    genre_of_artist = rng.permutation(np.arange(n_artists) % len(genres))
    artists = np.sqrt(OF_GENRE) * genres[genre_of_artist] + np.sqrt(OF_ARTIST) * _directions(
        rng, n_artists, dim
    )
    artist_of_track = _discographies(rng, n_tracks, n_artists)
    vectors = artists[artist_of_track] + np.sqrt(OF_TRACK) * _directions(rng, n_tracks, dim)
    vectors -= vectors.mean(axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    numbers = np.zeros(n_artists, np.int64)
    titles = []
    for artist in artist_of_track:
        numbers[artist] += 1
        titles.append(f"Song {numbers[artist]} of Artist {artist}")
    return Catalogue(vectors.astype(np.float16), [f"Artist {artist}" for artist in artist_of_track], titles)


def _directions(rng: np.random.Generator, n: int, dim: int) -> npt.NDArray[np.float64]:
    vectors = rng.standard_normal((n, dim))
    unit: npt.NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _discographies(rng: np.random.Generator, n_tracks: int, n_artists: int) -> npt.NDArray[np.int64]:
    """int64 (n_tracks,): artist of each track, in no order; sizes fall with the square root of an artist's rank."""
    weights = 1 / np.sqrt(1 + np.arange(n_artists))
    more = rng.choice(n_artists, n_tracks - n_artists, p=weights / weights.sum())
    return rng.permutation(np.concatenate([np.arange(n_artists), more]))
