"""botify's assignment, to the letter: its published logs name the same treatments for the same users."""

from __future__ import annotations

from service.domain import UserId
from service.policy.assignment import place_of, seed_of

CONTROL = "C"


def assign(experiment: str, user: UserId, n: int) -> str:
    """Name a user's treatment among n ≥ 1: C, T1, T2, …"""
    number = place_of(str(user), seed_of(experiment)) % n
    return f"T{number}" if number else CONTROL
