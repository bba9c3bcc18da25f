from __future__ import annotations

import numpy as np
import pytest
from factories import tiny_dataset

from models.als import als
from models.build.recipes import RECIPES, ROUGH_ITERATIONS
from models.build.scoring import exam_of, ndcg
from models.build.tune import tune
from models.data.splits import validation_split
from models.knn import user_knn


def test_als_is_examined_after_fewer_iterations_and_kept_with_all_of_them() -> None:
    split = validation_split(tiny_dataset(n_users=120))
    start = als.Config(factors=4)
    found = tune("als", split, "quick", start=start)
    assert found.config.iterations == start.iterations > ROUGH_ITERATIONS
    exam = exam_of(split.train, split.test, max_users=10_000, seed=0)
    rough = als.train(split.train, als.Config(factors=4, iterations=ROUGH_ITERATIONS), seed=0)
    assert found.trials[0].config == start
    assert found.trials[0].score == pytest.approx(ndcg(rough, exam).mean(), abs=1e-6)


def test_models_made_for_the_users_examined_alone_score_as_models_made_for_all() -> None:
    split = validation_split(tiny_dataset(n_users=120))
    exam = exam_of(split.train, split.test, max_users=20, seed=3)
    for name, config in (("als", als.Config(factors=4)), ("userknn", user_knn.Config())):
        for_users = RECIPES[name].for_users
        assert for_users is not None
        theirs = ndcg(for_users(split.train, config, seed=0, users=exam.user_rows), exam)
        np.testing.assert_allclose(theirs, ndcg(RECIPES[name].train(split.train, config, seed=0), exam))
        assert theirs.any()
