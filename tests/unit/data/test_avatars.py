from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from factories import tiny_dataset

from models.als.als import Config, train
from models.data.avatars import add_avatars
from models.history import unique_history
from service.bundle.ids import StrIds
from service.errors import InputError


def test_an_avatar_is_one_more_user_who_has_just_read_its_items() -> None:
    data = tiny_dataset()
    made = add_avatars(data, {"comedy": [10, "Title 4", 18], "odd": ["Title 1", 12]})
    extended = made.dataset
    largest = int(data.user_ids.take(np.array([data.n_users - 1]))[0])
    assert made.user_ids == {"comedy": largest + 1, "odd": largest + 2}
    assert extended.n_users == data.n_users + 2
    indptr, items = unique_history(extended)
    row = extended.user_ids.row_of(made.user_ids["comedy"])
    assert items[indptr[row] : indptr[row + 1]].tolist() == [0, 4]  # Title 4 is item 18: once


def test_real_users_keep_their_events_and_features_under_text_ids() -> None:
    data = tiny_dataset(n_users=20, ids="str")
    renamed = StrIds.of([("z" if row % 2 else "a") + f"{row:02d}" for row in range(20)])
    data = replace(data, user_ids=renamed, users=pl.DataFrame({"age": list(range(20))}))
    made = add_avatars(data, {"b": ["item/003"]})
    assert made.user_ids == {"b": "avatar:b"}
    for row, user in enumerate(data.user_ids.take(np.arange(20))):
        new = made.dataset.user_ids.row_of(user)
        assert made.dataset.users is not None
        assert made.dataset.users["age"][new] == row
        mine = data.item_rows[data.user_rows == row].tolist()
        assert made.dataset.item_rows[made.dataset.user_rows == new].tolist() == mine
    assert made.dataset.users is not None
    assert made.dataset.users["age"][made.dataset.user_ids.row_of("avatar:b")] is None


def test_avatars_are_offered_what_they_are_made_of() -> None:
    """Of two tastes in the data, an avatar of one gets that one's items."""
    made = add_avatars(tiny_dataset(n_users=200), {"even": [10, 14, 18, 22, 26], "odd": [12, 16, 20, 24, 28]})
    model = train(made.dataset, Config(factors=2, regularization=0.5), seed=0)
    for name, parity in (("even", 0), ("odd", 1)):
        row = made.dataset.user_ids.row_of(made.user_ids[name])
        vector = model.arrays["user_vectors"][model.arrays["user_rows"].tolist().index(row)]
        best = model.arrays["item_rows"][np.argsort(-(model.arrays["item_vectors"] @ vector))[:10]]
        assert (best % 2 == parity).mean() >= 0.9


@pytest.mark.parametrize(
    ("listed", "complaint"),
    [
        ([], "lists no items"),
        (["Title 99"], "'Title 99': no item has that id or title"),
        ([11], "11: no item has that id or title"),
        (["Twice"], "2 items have that title"),
    ],
)
def test_an_item_that_nobody_knows_is_named(listed: list[int | str], complaint: str) -> None:
    data = tiny_dataset()
    assert data.items is not None
    titles = ["Twice", "Twice", *data.items["title"].to_list()[2:]]
    data = replace(data, items=data.items.with_columns(pl.Series("title", titles)))
    with pytest.raises(InputError, match=complaint):
        add_avatars(data, {"me": listed})
