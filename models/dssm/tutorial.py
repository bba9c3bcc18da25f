"""The two-tower model of a well-known retrieval tutorial: embeddings of 32, one dense layer of 32 on each side.

A user is an id, a moment (1,000 buckets) and an age; an item its title, the mean of its genres and the mean of the
words of its title. Each event of a batch is told from the batch's other items by a softmax without correction. It is
there for comparison: a moment is no feature that one serves by, so its users' vectors are those of their last event.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from models.data.dataset import Dataset
from models.towers.loop import Course, Schedule, fit, seeded
from models.towers.threads import torch_threads_for
from models.trained import TrainedModel
from service.errors import InputError

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Config:
    """Sizes and steps, as the tutorial has them."""

    width: int = 32
    buckets: int = 1_000
    words: int = 10_000
    learning_rate: float = 0.1
    batch: int = 2_048
    epochs: int = 20


class UserSide(nn.Module):
    """Id, bucket of time and standardised age to a vector."""

    def __init__(self, n_users: int, config: Config) -> None:
        super().__init__()
        self.ids = _embedding(n_users, config.width)
        self.moments = _embedding(config.buckets + 1, config.width)
        self.out = _dense(2 * config.width + 1, config.width)

    def forward(self, users: torch.Tensor, moments: torch.Tensor, ages: torch.Tensor) -> torch.Tensor:
        """Vectors float32 (n, width) of users and buckets int64 (n,), ages float32 (n,)."""
        found: torch.Tensor = self.out(
            torch.cat([self.ids(users), self.moments(moments), ages[:, None]], dim=1)
        )
        return found


class ItemSide(nn.Module):
    """Title, genres and words to a vector; `genres` and `words` are int64 (n_items, most), 0 where there is none."""

    def __init__(self, titles: int, genres: torch.Tensor, words: torch.Tensor, config: Config) -> None:
        super().__init__()
        self.titles = _embedding(titles, config.width)
        self.genres = _embedding(int(genres.max()) + 1, config.width)
        self.words = _embedding(int(words.max()) + 1, config.width)
        self.out = _dense(3 * config.width, config.width)
        self.lists = (genres, words)

    def forward(self, titles: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Vectors float32 (n, width) of titles and item rows, int64 (n,)."""
        genres, words = (
            _mean(table, lists[rows])
            for table, lists in zip((self.genres, self.words), self.lists, strict=True)
        )
        found: torch.Tensor = self.out(torch.cat([self.titles(titles), genres, words], dim=1))
        return found


class Tutorial:
    """The model of one data set: fits it to events, and says how often it tells their items."""

    def __init__(self, dataset: Dataset, config: Config, *, seed: int) -> None:
        """Raises InputError where the data has no comparable times or no titles."""
        if dataset.times is None or dataset.time_kind != "timestamp":
            raise InputError("the tutorial's towers read the time of an event: the data has none")
        if dataset.items is None or "title" not in dataset.items.columns:
            raise InputError("the tutorial's towers read titles: the items have none")
        self._config, self._seed = config, seed
        titles = [str(title) for title in dataset.items["title"].to_list()]
        self._titles = torch.from_numpy(np.unique(titles, return_inverse=True)[1].astype(np.int64))
        has_genres = "genres" in dataset.items.columns
        genres = dataset.items["genres"].to_list() if has_genres else [[] for _ in titles]
        self._edges = np.linspace(int(dataset.times.min()), int(dataset.times.max()), config.buckets)
        self._ages = _standardised(dataset)
        with seeded(seed):
            self.users = UserSide(dataset.n_users, config)
            self.items = ItemSide(
                int(self._titles.max()) + 1,
                _coded([list(one or []) for one in genres], config.words),
                _coded([_WORD.findall(title.lower()) for title in titles], config.words),
                config,
            )

    def fit(self, dataset: Dataset, *, progress: bool = False) -> Course:
        """Train on the events, in batches drawn anew each epoch."""
        both = nn.ModuleList([self.users, self.items])
        optimizer = torch.optim.Adagrad(
            both.parameters(), self._config.learning_rate, initial_accumulator_value=0.1, eps=1e-7
        )

        def batches(generator: np.random.Generator) -> list[Dataset]:
            order = generator.permutation(len(dataset))
            starts = range(0, len(order), self._config.batch)
            return [dataset.select(order[start : start + self._config.batch]) for start in starts]

        def loss(batch: Dataset) -> torch.Tensor:
            scores = self.user_vectors(batch) @ self.item_vectors(batch.item_rows).T
            return nn.functional.cross_entropy(scores, torch.arange(len(batch)), reduction="sum")

        schedule = Schedule(max_epochs=self._config.epochs)
        return fit(
            both, optimizer, batches=batches, loss=loss, schedule=schedule, seed=self._seed,
            label="tutorial", progress=progress,
        )  # fmt: skip

    def user_vectors(self, events: Dataset) -> torch.Tensor:
        """Vectors float32 (n, width) of the events' users at the events' times."""
        assert events.times is not None  # checked when this was made
        users = torch.from_numpy(events.user_rows.astype(np.int64))
        moments = torch.from_numpy(np.searchsorted(self._edges, events.times, side="right"))
        found: torch.Tensor = self.users(users, moments, self._ages[users])
        return found

    def item_vectors(self, item_rows: npt.NDArray[np.int32]) -> torch.Tensor:
        """Vectors float32 (n, width) of items by row."""
        rows = torch.from_numpy(item_rows.astype(np.int64))
        found: torch.Tensor = self.items(self._titles[rows], rows)
        return found

    @torch.no_grad()
    def accuracy(self, events: Dataset, k: int) -> float:
        """Share of events whose item is among the best k of all items; what users have seen is not left out."""
        scores = self.user_vectors(events) @ self.item_vectors(np.arange(events.n_items, dtype=np.int32)).T
        own = scores.gather(1, torch.from_numpy(events.item_rows.astype(np.int64))[:, None])
        return float(((scores > own).sum(dim=1) < k).float().mean())


def train(dataset: Dataset, config: Config, *, seed: int = 0, progress: bool = False) -> TrainedModel:
    """Fit all events: kind `factors`, "ip"; a user stands where their last event was. See `Tutorial` for errors."""
    model = Tutorial(dataset, config, seed=seed)
    with torch_threads_for(len(dataset)):
        course = model.fit(dataset, progress=progress)
    ordered = dataset.in_time_order()
    last = ordered.select(np.flatnonzero(np.diff(ordered.user_rows, append=-1)))
    item_rows = np.unique(dataset.item_rows).astype(np.int32)
    with torch.no_grad():
        arrays = {
            "item_rows": item_rows,
            "item_vectors": model.item_vectors(item_rows).numpy(),
            "user_rows": last.user_rows,
            "user_vectors": model.user_vectors(last).numpy(),
        }
    training = {"algorithm": "tutorial", "seed": seed, **asdict(config), "losses": list(course.losses)}
    return TrainedModel(kind="factors", space="ip", arrays=arrays, training=training)


def _embedding(rows: int, width: int) -> nn.Embedding:
    table = nn.Embedding(rows, width)
    nn.init.uniform_(table.weight, -0.05, 0.05)
    return table


def _dense(inputs: int, width: int) -> nn.Linear:
    layer = nn.Linear(inputs, width)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _mean(table: nn.Embedding, lists: torch.Tensor) -> torch.Tensor:
    there = (lists != 0)[:, :, None]
    return (table(lists) * there).sum(dim=1) / there.sum(dim=1).clamp(min=1)


def _coded(lists: list[list[str]], most: int) -> torch.Tensor:
    """int64 (n, longest list): codes from 1, of the `most` most frequent values; 0 fills up."""
    counts = Counter(value for values in lists for value in values)
    frequent = sorted((-count, value) for value, count in counts.items())[:most]
    code = {value: number for number, (_, value) in enumerate(frequent, start=1)}
    coded = [[code[value] for value in values if value in code] for values in lists]
    table = np.zeros((len(lists), max(1, max(map(len, coded), default=1))), np.int64)
    for row, codes in enumerate(coded):
        table[row, : len(codes)] = codes
    return torch.from_numpy(table)


def _standardised(dataset: Dataset) -> torch.Tensor:
    """Ages float32 (n_users,) with mean 0 and deviation 1 over the events' users; 0 where unknown."""
    if dataset.users is None or "age" not in dataset.users.columns:
        return torch.zeros(dataset.n_users)
    ages = dataset.users["age"].cast(float, strict=False).to_numpy().astype(np.float64)
    told = ages[dataset.user_rows]
    told = told[np.isfinite(told)]
    scaled = (ages - told.mean()) / max(float(told.std()), 1e-9) if len(told) else np.zeros_like(ages)
    return torch.from_numpy(np.nan_to_num(scaled).astype(np.float32))
