"""Train a sequence tower: windows of histories in, item vectors, user vectors and the tower as ONNX out."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from models.data.dataset import Dataset
from models.sequence.averaged import Averaged
from models.sequence.config import Config, refuse_impossible
from models.sequence.encoder import Encoder
from models.sequence.export import tower_of
from models.sequence.histories import (
    NO_TARGET,
    Batch,
    Batches,
    Histories,
    draw_batches,
    examined_users,
    histories_of,
)
from models.sequence.spectral import spectral_start
from models.towers.item_softmax import full_softmax, sampled_softmax
from models.towers.loop import Plateau, Schedule, fit, seeded
from models.towers.resumable import resumable
from models.trained import TrainedModel

_MAX_EXAMINED = 2_000
_K = 10
_WARMUP_STEPS = 100
_FLATTENED = 0.75
"""Negatives are drawn by popularity to this power, so that rare items come up too."""
_CLIP_NORM = 1.0
_PLATEAU = Plateau(factor=0.5, patience=1)
"""Rates begin high, and halve after each epoch that brought nothing better."""
_ENCODED_TOKENS = 1 << 14
"""Places encoded at once."""
_SCORED_CELLS = 1 << 23
"""Scores held at once in validation: 32 MB."""


def train(dataset: Dataset, config: Config, *, seed: int = 0, progress: bool = False) -> TrainedModel:
    """Train: kind `factors`, "ip", with `tower`: ONNX of the encoder, `history` int64 (1, n) to `vector` (1, dim).

    The last item of some users is held out: it is never a target, and their mean NDCG@10 decides when to stop. All
    events are read by the vectors that are served. Where `max_seconds` runs out first, a rerun may end elsewhere.
    Raises InputError where torch is missing, the data has no order or a setting is out of range.
    """
    refuse_impossible(dataset, config)
    histories = histories_of(dataset)
    examined = examined_users(histories, _MAX_EXAMINED, seed)
    learned = histories.without_last(examined)
    n_items = len(histories.item_rows)
    encoder = _network(learned, config, seed)
    optimizer = torch.optim.AdamW(
        _groups(encoder, config.weight_decay), config.learning_rate, betas=(0.9, 0.98), fused=True
    )
    # About an epoch's steps: long enough to be smooth, short enough to forget how it began.
    memory = max(_WARMUP_STEPS, len(learned.items) // config.tokens)
    network = Averaged(encoder, optimizer, memory=memory, warmup=_WARMUP_STEPS)
    counts = np.bincount(learned.items, minlength=n_items)
    objective = _Objective(encoder, counts, config.negatives)

    def batches(generator: np.random.Generator) -> Batches:
        return draw_batches(learned, generator, length=config.history_length, tokens=config.tokens)

    def validate() -> float:
        return _ndcg(network.average, learned, histories, examined)

    course = fit(
        network,
        optimizer,
        batches=batches,
        loss=objective.of,
        validate=validate if len(examined) else None,
        schedule=Schedule(
            config.max_epochs, config.patience, config.max_seconds, clip_norm=_CLIP_NORM, plateau=_PLATEAU
        ),
        seed=seed,
        checkpoint=resumable("sequence", dataset, config, seed),
        label="sequence",
        progress=progress,
    )
    trained = network.average.eval()
    users = _encoded(trained, [histories.of(user) + np.int64(1) for user in range(len(histories))])
    return TrainedModel(
        kind="factors",
        space="ip",
        arrays={
            "item_rows": histories.item_rows, "item_vectors": trained.item_vectors().detach().numpy().copy(),
            "user_rows": histories.user_rows, "user_vectors": users,
        },
        parameters={"tower": {"history_length": config.history_length}},
        training={
            "algorithm": "sequence", "seed": seed, **asdict(config), "epochs": course.best_epoch,
            "stopped": course.stopped, "held_out_ndcg": [round(score, 6) for score in course.scores],
        },
        tower=tower_of(trained),
    )  # fmt: skip


def _network(histories: Histories, config: Config, seed: int) -> Encoder:
    with seeded(seed):
        encoder = Encoder(
            len(histories.item_rows),
            dim=config.dim,
            blocks=config.blocks,
            heads=config.heads,
            length=config.history_length,
            dropout=config.dropout,
            block=config.block,
        )
    if config.spectral:
        with torch.no_grad():
            encoder.item_vectors().copy_(torch.from_numpy(spectral_start(histories, config.dim, seed=seed)))
    return encoder


def _groups(encoder: Encoder, weight_decay: float) -> list[dict[str, object]]:
    """Only what multiplies decays: neither norms and offsets nor what a distance adds."""
    multiplies = [p for name, p in encoder.named_parameters() if p.ndim > 1 and not name.endswith("bias")]
    rest = [p for name, p in encoder.named_parameters() if p.ndim <= 1 or name.endswith("bias")]
    return [
        {"params": multiplies, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]


class _Objective:
    """The loss of a batch; what it samples follows torch's own generator, which the loop seeds by epoch."""

    def __init__(self, encoder: Encoder, counts: npt.NDArray[np.int64], negatives: int | None) -> None:
        self._encoder, self._negatives = encoder, negatives
        flattened = torch.from_numpy((counts + 1.0) ** _FLATTENED)
        self._shares = (flattened / flattened.sum()).float()

    def of(self, batch: Batch) -> Tensor:
        """Mean over all places that have something to predict."""
        read, targets = (torch.from_numpy(part) for part in batch)
        there = targets != NO_TARGET
        vectors, wanted = self._encoder(read)[there], targets[there]
        items = self._encoder.item_vectors()
        if self._negatives is None:
            return full_softmax(vectors, items, wanted)
        drawn = torch.multinomial(self._shares, self._negatives, replacement=True)
        log_expected = torch.log(self._shares[drawn] * self._negatives)
        return sampled_softmax(vectors, items, wanted, drawn, log_expected)


def _encoded(encoder: Encoder, histories: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.float32]:
    """float32 (m, dim): what each history of tokens leads to; histories of like length together."""
    vectors = np.zeros((len(histories), encoder.dim), np.float32)
    latest = [history[-encoder.length :] if len(history) else np.zeros(1, np.int64) for history in histories]
    lengths = np.array([len(history) for history in latest])
    order = np.argsort(lengths, kind="stable")
    start = 0
    with torch.no_grad():
        while start < len(order):
            longest_of = np.maximum.accumulate(lengths[order[start:]])
            count = max(1, int((longest_of * np.arange(1, len(longest_of) + 1) <= _ENCODED_TOKENS).sum()))
            part = order[start : start + count]
            tokens = np.zeros((len(part), lengths[part].max()), np.int64)
            for row, user in enumerate(part):
                tokens[row, : lengths[user]] = latest[user]
            hidden = encoder(torch.from_numpy(tokens))
            vectors[part] = hidden[torch.arange(len(part)), torch.from_numpy(lengths[part] - 1)].numpy()
            start += count
    return vectors


def _ndcg(encoder: Encoder, learned: Histories, whole: Histories, examined: npt.NDArray[np.int64]) -> float:
    """Mean NDCG@10 of the held-out last items, seen items left out: 1 / log2(1 + rank) where it is in the top 10."""
    vectors = _encoded(encoder, [learned.of(user) + np.int64(1) for user in examined])
    items = encoder.item_vectors().detach().numpy()
    gains = np.zeros(len(examined))
    step = max(1, _SCORED_CELLS // len(items))
    for start in range(0, len(examined), step):
        scores = vectors[start : start + step] @ items.T
        for place, own in enumerate(scores, start):
            user = examined[place]
            wanted = own[whole.of(user)[-1]]
            own[learned.of(user)] = -np.inf
            rank = 1 + int((own > wanted).sum())
            gains[place] = 1.0 / np.log2(1 + rank) if rank <= _K else 0.0
    return float(gains.mean())
