"""What the botify recommenders read of a live bundle, made once for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from service.bundle.ids import UNKNOWN
from service.bundle.reader import Bundle
from service.domain import ItemRows
from service.errors import InputError

ARTIST = "artist"
_NOBODY = -1


@dataclass(frozen=True, slots=True, repr=False)
class Tracks:
    """The catalogue by track, by artist and by popularity.

    artist_of: int32 (n,), an artist's number by item row, -1 where none is known. Rows of artist a are
    by_artist[artist_indptr[a]:artist_indptr[a + 1]], ascending. popular: int32 (n,), item rows, most popular first.
    """

    bundle: Bundle
    artists: tuple[str, ...]
    artist_of: ItemRows
    by_artist: ItemRows
    artist_indptr: np.ndarray[tuple[int], np.dtype[np.int64]]
    popular: ItemRows

    def __len__(self) -> int:
        return len(self.artist_of)

    def at(self, row: int) -> int:
        """Track of a row."""
        return int(self.ids(np.array([row]))[0])

    def ids(self, rows: ItemRows | np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[int]:
        """Tracks of rows."""
        return self.bundle.item_ids.take(rows)

    def row_of(self, track: int) -> int:
        """Row of a track, or UNKNOWN."""
        return self.bundle.item_ids.row_of(track)

    def of_artist_of(self, track: int) -> list[int]:
        """Tracks of a track's artist, the track itself among them; none where it or its artist is not known."""
        row = self.row_of(track)
        artist = _NOBODY if row == UNKNOWN else int(self.artist_of[row])
        if artist == _NOBODY:
            return []
        return self.ids(self.by_artist[self.artist_indptr[artist] : self.artist_indptr[artist + 1]])

    def artist(self, row: int) -> str:
        """Name of a row's artist; empty where none is known."""
        number = int(self.artist_of[row])
        return "" if number == _NOBODY else self.artists[number]

    def title(self, row: int) -> str:
        """Title of a row; empty where none is known."""
        return "" if self.bundle.titles is None else self.bundle.titles[row]


def read_tracks(bundle: Bundle) -> Tracks:
    """Read the catalogue. Of several artists of a track the first counts.

    Raises InputError where items are not named by whole numbers: botify's clients expect a number.
    """
    if bundle.manifest.item_id_kind != "int64":
        raise InputError(
            f"profile botify: bundle {bundle.bundle_id} names items by text, and botify's tracks are whole numbers"
        )
    n_items = len(bundle.item_ids)
    artist_of = np.full(n_items, _NOBODY, np.int32)
    artists: tuple[str, ...] = ()
    attribute = bundle.attributes.get(ARTIST)
    if attribute is not None:
        artists = attribute.values
        named = np.diff(attribute.indptr) > 0
        artist_of[named] = attribute.codes[attribute.indptr[:-1][named]]
    order = np.argsort(artist_of, kind="stable").astype(np.int32)
    indptr = np.searchsorted(artist_of[order], np.arange(len(artists) + 1)).astype(np.int64)
    arrays = bundle.models["popular"].arrays
    return Tracks(bundle, artists, artist_of, order, indptr, arrays["items"][: int(arrays["indptr"][1])])
