"""Which keys the log holds already, in bounded memory."""

from __future__ import annotations

import numpy as np

from service.events.keys import Keys

GENERATION = 1 << 20


class SeenIds:
    """Remembers at least the last `generation` keys and at most twice as many, at 16 to 32 bytes a key.

    Two open-addressed tables: when one is full it becomes the older one, and what was the older one is forgotten.
    """

    __slots__ = ("_count", "_generation", "_mask", "_newer", "_newer_array", "_older")

    def __init__(self, generation: int = GENERATION) -> None:
        self._generation = generation
        self._mask = (1 << (2 * generation - 1).bit_length()) - 1
        # Read and written by its memoryview, which makes no numpy scalars.
        self._older = self._table().data
        self._newer_array = self._table()
        self._newer = self._newer_array.data
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
            self._turn()
        self._newer[self._slot(self._newer, key)] = key
        self._count += 1

    def load(self, keys: Keys) -> None:
        """Remember many at once, oldest first."""
        while len(keys):
            if self._count >= self._generation:
                self._turn()
            room = self._generation - self._count
            self._count += self._insert(np.unique(keys[:room]))
            keys = keys[room:]

    def _insert(self, pending: Keys) -> int:
        """Put different keys into the newer table; returns how many were not there.

        Round by round each key looks at its next place, as one alone would: taken, it moves on; free, the first to come
        has it.
        """
        table, mask, one = self._newer_array, np.uint64(self._mask), np.uint64(1)
        slots = pending & mask
        placed = 0
        while len(pending):
            found = table[slots]
            free = np.flatnonzero(found == 0)
            places, first = np.unique(slots[free], return_index=True)
            winners = free[first]
            table[places] = pending[winners]
            placed += len(winners)
            going_on = found != pending
            going_on[winners] = False
            pending, slots = pending[going_on], (slots[going_on] + one) & mask
        return placed

    def _turn(self) -> None:
        self._older = self._newer
        self._newer_array = self._table()
        self._newer = self._newer_array.data
        self._count = 0

    def _table(self) -> Keys:
        return np.zeros(self._mask + 1, np.uint64)

    def _slot(self, table: memoryview, key: int) -> int:
        """Where the key is, or the empty place where it belongs."""
        slot, mask = key & self._mask, self._mask
        while True:
            found = table[slot]
            if found in (key, 0):
                return slot
            slot = (slot + 1) & mask
