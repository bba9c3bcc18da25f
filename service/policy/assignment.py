"""How users are divided: by a hash of their id and a salt, so that nothing is stored and nobody ever moves.

The hash is MurmurHash3 (x86, 32 bits), seeded by the salt's own hash; botify divides its users by the same one.
"""

from __future__ import annotations

import mmh3

SPAN = 1 << 32
"""How many places a hash can take."""


def seed_of(salt: str) -> int:
    """Seed of a salt: its hash, as an unsigned number, which is the only kind of seed that every mmh3 takes."""
    return mmh3.hash(salt) & 0xFFFFFFFF


def chance_of(event_id: str, user_id: object) -> int:
    """Seed of what one answer leaves to chance: 128 bits, made of ids that are logged with it: it can be replayed.

    The user is part of it: a client that names all its requests alike must not draw all its users the same slate.
    """
    return mmh3.hash128(f"{event_id}\0{user_id}", signed=False)


def place_of(user: str, seed: int) -> int:
    """Place of a user in [0, SPAN) under a salt's seed. The ids 7 and "7" are one user."""
    return mmh3.hash(user, seed, signed=False)
