"""Which event ids the log holds already, in bounded memory."""

from __future__ import annotations

import hashlib

import numpy as np

GENERATION = 1 << 20


def key_of(event_id: str) -> int:
    """64-bit hash of an event id, never 0. Two ids in a million share one with probability below 1e-7."""
    return int.from_bytes(hashlib.blake2b(event_id.encode(), digest_size=8).digest(), "little") or 1


class SeenIds:
    """Remembers at least the last `generation` ids and at most twice as many; 32 bytes an id, taken as it fills.

    Two open-addressed tables: when one is full it becomes the older one, and what was the older one is forgotten.
    """

    __slots__ = ("_count", "_generation", "_mask", "_newer", "_older")

    def __init__(self, generation: int = GENERATION) -> None:
        self._generation = generation
        self._mask = (1 << (2 * generation - 1).bit_length()) - 1
        self._newer, self._older = self._table(), self._table()
        self._count = 0

    def __contains__(self, key: int) -> bool:
        return (
            self._newer[self._slot(self._newer, key)] == key
            or self._older[self._slot(self._older, key)] == key
        )

    def add(self, key: int) -> None:
        """Remember a key; one that is remembered already becomes no younger."""
        if key in self:
            return
        if self._count >= self._generation:
            self._older, self._newer, self._count = self._newer, self._table(), 0
        self._newer[self._slot(self._newer, key)] = key
        self._count += 1

    def _table(self) -> memoryview:
        return np.zeros(self._mask + 1, np.uint64).data

    def _slot(self, table: memoryview, key: int) -> int:
        """Where the key is, or the empty place where it belongs."""
        slot, mask = key & self._mask, self._mask
        while True:
            found = table[slot]
            if found in (key, 0):
                return slot
            slot = (slot + 1) & mask
