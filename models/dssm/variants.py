"""The two-tower models that courses teach, as settings of ours: `[dssm]` in a build's TOML takes the same words."""

from __future__ import annotations

from models.dssm.config import Config

LECTURE = Config(
    architecture="residual",
    space="l2",
    dim=128,
    history_length=1_000,
    margin=0.4,
    negatives=1,
    history_dropout=0.0,
    learning_rate=1e-3,
    batch=64,
    steps=30,
    max_epochs=100,
    patience=100,
    plateau=True,
)
"""One-hot features and shares of the history in residual ELU layers of 128; squared distances; 100 epochs of 30
steps of 64 triples; the rate times 0.8 after two epochs without a better one."""

MUSIC = Config(
    architecture="bag",
    space="l2",
    dim=64,
    history_length=30,
    margin=0.4,
    negatives=10,
    history_dropout=0.0,
    learning_rate=1e-3,
    batch=256,
    text_buckets=0,
)
"""The mean of up to 30 tracks, the one to be told left out, against genres and popularity; ten random tracks to a
triple."""
