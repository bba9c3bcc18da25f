"""How a ranker is trained: one configuration for both libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from service.errors import InputError

Library = Literal["lightgbm", "catboost"]
Objective = Literal["xendcg", "lambdarank", "yetirank"]


@dataclass(frozen=True, slots=True)
class Config:
    """Candidates, rows and trees of a two-stage model."""

    library: Library = "lightgbm"
    objective: Objective = "xendcg"
    """Of LightGBM xendcg (Bruch, WWW 2021) or lambdarank; CatBoost learns by yetirank whatever is said here."""
    n_candidates: int = 300
    quota: int = 80
    """Items that one source may bring."""
    popular_quota: int = 40
    """Items that popularity may bring."""
    max_users: int = 4_000
    """Users of one moment whose pools are learned from; of more a seeded sample."""
    negatives: float = 0.3
    """Share kept of what is in a pool and was not read."""
    rounds: int = 300
    """Trees at most."""
    patience: int = 60
    """Rounds without a better NDCG@10 of held-out users, after which no more trees are grown."""
    learning_rate: float = 0.06
    leaves: int = 15
    """Of a tree of LightGBM."""
    depth: int = 5
    """Of a tree of CatBoost."""
    least_rows: int = 200
    """Rows below which LightGBM makes no leaf."""
    feature_share: float = 0.3
    """Features that LightGBM considers for a tree."""
    l2: float = 20.0
    bins: int = 31
    """Thresholds that a feature may be compared with: few run fast, and few say which item it is."""

    def check(self) -> None:
        """Raise InputError for a setting out of range."""
        for name in ("n_candidates", "quota", "popular_quota", "max_users", "rounds", "patience", "depth"):
            if getattr(self, name) < 1:
                raise InputError(f"[two_stage] {name}: must be at least 1, found {getattr(self, name)}")
        for name in ("negatives", "feature_share", "learning_rate"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise InputError(f"[two_stage] {name}: must be above 0 and at most 1")
        if not (2 <= self.leaves <= 128 and self.depth <= 8 and 3 <= self.bins <= 255):
            raise InputError("[two_stage]: leaves must be in 2..128, depth in 1..8, bins in 3..255")
        if self.least_rows < 1 or not self.l2 >= 0.0:
            raise InputError("[two_stage]: least_rows must be at least 1, and l2 not below 0")
