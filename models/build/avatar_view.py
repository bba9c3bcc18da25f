"""What avatars are recommended: for eyes, and as shares of genres."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from models.evaluation.run import GENRE_ATTRIBUTES
from service.domain import Deadline, ItemId, Plan, Query, UserId
from service.recommender.live import LiveBundle
from service.recommender.pipeline import recommend


@dataclass(frozen=True, slots=True)
class AvatarView:
    """One avatar's top items, best first, their titles (ids where there are none), and the share that is of each
    genre, the largest first (empty where items have no genres)."""

    user_id: UserId
    items: tuple[ItemId, ...]
    titles: tuple[str, ...]
    genres: Mapping[str, float]


def look(live: LiveBundle, user_ids: Mapping[str, UserId], *, k: int = 10) -> dict[str, AvatarView]:
    """Ask the serving line, by the default model, for k items for each avatar."""
    return {name: _view(live, user_id, k) for name, user_id in user_ids.items()}


def _view(live: LiveBundle, user_id: UserId, k: int) -> AvatarView:
    bundle = live.bundle
    items = recommend(Query(user_id, k), Plan("default"), live, Deadline.none()).item_ids
    rows = bundle.item_ids.rows_of(items).tolist()
    titles = [
        str(item) if bundle.titles is None else bundle.titles[row]
        for item, row in zip(items, rows, strict=True)
    ]
    attribute = next(
        (bundle.attributes[name] for name in GENRE_ATTRIBUTES if name in bundle.attributes), None
    )
    counts: Counter[str] = Counter()
    if attribute is not None:
        for row in rows:
            codes = attribute.codes[attribute.indptr[row] : attribute.indptr[row + 1]]
            counts.update(attribute.values[code] for code in codes.tolist())
    shares = {genre: round(count / len(rows), 4) for genre, count in counts.most_common()}
    return AvatarView(user_id, tuple(items), tuple(titles), shares)
