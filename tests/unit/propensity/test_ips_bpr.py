"""The recipe of BPR by inverse log-propensity: served as it scores, and less popular than without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from factories import tiny_dataset, trained_models, write_tiny_bundle

from models.build.recipes import RECIPES
from models.propensity import ips_bpr
from service.bundle.reader import load_bundle
from service.domain import Deadline, Plan, Query
from service.errors import InputError
from service.recommender.live import go_live
from service.recommender.pipeline import recommend

CONFIG = ips_bpr.Config(dim=8, epochs=30)


def test_scores_are_bias_and_inner_product_and_are_served(tmp_path: Path) -> None:
    dataset = tiny_dataset(n_users=60)
    model = RECIPES["ips_bpr"].train(dataset, CONFIG, seed=1)
    assert model.arrays["user_vectors"].shape == (55, 9)
    assert (model.arrays["user_vectors"][:, -1] == 1).all()
    models = {**trained_models(dataset), "ips_bpr": model}
    live = go_live(load_bundle(write_tiny_bundle(tmp_path, dataset=dataset, models=models)))
    slate = recommend(Query(100, 5), Plan("ips_bpr"), live, Deadline.none())
    scores = model.arrays["item_vectors"] @ model.arrays["user_vectors"][0]
    seen = set(live.bundle.history_of(0).tolist())
    expected = [
        row for row in np.argsort(-scores).tolist() if int(model.arrays["item_rows"][row]) not in seen
    ]
    rows = live.bundle.item_ids.rows_of(slate.item_ids).tolist()
    assert rows == model.arrays["item_rows"][expected[:5]].tolist()
    assert slate.source == "personal"


def test_the_same_seed_is_the_same_model_and_another_is_not() -> None:
    dataset = tiny_dataset(n_users=40)
    first, again, other = (ips_bpr.train(dataset, CONFIG, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.arrays["item_vectors"], again.arrays["item_vectors"])
    assert not np.array_equal(first.arrays["item_vectors"], other.arrays["item_vectors"])


def test_popular_items_are_likelier_to_be_seen_and_are_pushed_less() -> None:
    dataset = tiny_dataset(n_users=120)
    counts = np.bincount(dataset.item_rows, minlength=dataset.n_items)
    matrix = dataset.matrix(binary=True)
    propensities = ips_bpr.item_propensities(matrix[np.flatnonzero(np.diff(matrix.indptr))], 0)
    assert np.corrcoef(propensities, counts)[0, 1] > 0.8

    def popularity_bias(power: float) -> float:
        model = ips_bpr.train(dataset, ips_bpr.Config(dim=8, epochs=30, power=power), seed=1)
        biases = model.arrays["item_vectors"][:, -1]
        return float(np.corrcoef(biases, counts[model.arrays["item_rows"]])[0, 1] * biases.std())

    assert popularity_bias(2.0) < popularity_bias(0.0)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="power of 0 to 4"):
        ips_bpr.train(tiny_dataset(), ips_bpr.Config(power=5.0))
