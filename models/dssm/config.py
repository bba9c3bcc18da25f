"""Settings of the two-tower model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Config:
    """Size of the towers, what they read, and how they are trained."""

    architecture: Literal["recency", "residual", "bag"] = "recency"
    """recency: weighted means of the latest items, trained by a sampled softmax. residual, bag: what courses teach,
    trained by triplets (`models.dssm.triplet`, `models.dssm.variants`)."""
    dim: int = 64
    """Length of the vectors that are compared."""
    history_length: int = 50
    """Latest items of a history that the user tower reads."""
    heads: int = 4
    """Weighted means of the history, each with weights of its own by age."""
    hidden: int = 128
    """Width of the user tower's hidden layer."""
    space: Literal["ip", "cosine", "l2"] = "ip"
    """l2: that of triplets, and of nothing else."""
    temperature: float = 0.4
    """Scores are divided by it before the softmax; in an inner-product space vectors find a length of their own."""
    horizon: int = 1
    """The item to be told is one of the next so many, drawn at random."""
    negatives: int = 0
    """Items drawn uniformly for each batch, beside those of the batch itself."""
    hard_negatives: int = 0
    """Items for each example that score highest and are not its user's."""
    history_dropout: float = 0.1
    """Share of examples whose history is hidden, so that features alone must do."""
    item_dropout: float = 0.1
    """Share of items whose id is hidden, so that their features alone must do."""
    dropout: float = 0.2
    item_features: bool = True
    user_features: bool = True
    text_buckets: int = 4096
    """Hashed words of titles and the like; 0: none."""
    user_ids: bool = False
    """A vector for each user, too. Nobody but they can be served then: there is no tower to fold in with."""
    margin: float = 0.4
    """Of triplets."""
    learning_rate: float = 0.003
    weight_decay: float = 0.0
    plateau: bool = False
    """Rates fall by a fifth after two epochs without a better one."""
    batch: int = 1024
    steps: int | None = None
    """Of an epoch of triplets; None: as many as there are events."""
    spectral: bool = True
    """Item embeddings start from what is read after what (`models.dssm.start`); False: from noise."""
    epochs: int | None = None
    """None: as many as the items that training keeps back say (`models.dssm.holdout`)."""
    max_epochs: int = 30
    patience: int = 2
    max_seconds: float = 150.0
    """Of one training."""
