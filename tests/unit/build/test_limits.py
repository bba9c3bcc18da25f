"""A build's minutes, shared out among its searches and trainings."""

from __future__ import annotations

import math
import time

import pytest

from models.build.limits import UNLIMITED, Limits
from models.build.recipes import RECIPES

TOWERS = ("dssm", "lightgcn", "neumf")


def test_trainings_that_keep_to_a_time_share_a_fifth_of_the_build() -> None:
    limits = Limits.within(10, ("popular", "als", *TOWERS), trainings=3)
    given = {name: limits.kept_by(name, RECIPES[name].config_type()).max_seconds for name in TOWERS}
    assert 3 * sum(given.values()) == pytest.approx(0.2 * 600)
    assert max(given.values()) == pytest.approx(min(given.values()))


def test_what_one_does_not_need_the_others_get() -> None:
    limits = Limits.within(70, TOWERS, trainings=1)
    given = {name: limits.kept_by(name, RECIPES[name].config_type()).max_seconds for name in TOWERS}
    assert given["dssm"] == RECIPES["dssm"].config_type().max_seconds == 150
    assert given["lightgcn"] == 300
    assert given["neumf"] == pytest.approx(0.2 * 4200 - 450)


def test_nobody_gets_more_than_they_would_take() -> None:
    limits = Limits.within(1e6, TOWERS, trainings=2)
    for name in TOWERS:
        config = RECIPES[name].config_type()
        assert limits.kept_by(name, config) == config


def test_a_configuration_that_keeps_no_time_is_left_as_it_is() -> None:
    config = RECIPES["als"].config_type()
    assert Limits.within(1, ("popular", "als"), trainings=2).kept_by("als", config) is config
    assert UNLIMITED.kept_by("dssm", RECIPES["dssm"].config_type()).max_seconds == 150


def test_searches_share_what_is_left_of_their_time() -> None:
    limits = Limits.within(1000 / 60, ("popular", "als"), trainings=2)
    assert limits.of_search(4, at_once=2) == pytest.approx(75, abs=5)
    assert limits.of_search(1, at_once=2) == pytest.approx(150, abs=5)
    assert Limits(searches_end=time.monotonic() - 1).of_search(3, at_once=1) == 0
    assert UNLIMITED.of_search(3, at_once=2) == math.inf
