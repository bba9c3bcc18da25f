"""Whom a load test asks for."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.users import Crowd, Zipf, parse_ids


@given(st.integers(1, 300), st.floats(0, 3))
def test_zipf_probabilities_sum_to_one_and_never_rise(n: int, exponent: float) -> None:
    zipf = Zipf(n, exponent)
    chances = [zipf.probability(rank) for rank in range(n)]
    assert sum(chances) == pytest.approx(1)
    assert all(after <= before * (1 + 1e-9) for before, after in pairwise(chances))


@given(st.integers(2, 300), st.floats(0.1, 3))
def test_zipf_follows_the_power_law(n: int, exponent: float) -> None:
    zipf = Zipf(n, exponent)
    assert zipf.probability(n - 1) / zipf.probability(0) == pytest.approx(n**-exponent)


@given(st.integers(1, 50), st.floats(0, 5), st.integers())
def test_zipf_draws_only_ranks_that_exist(n: int, exponent: float, seed: int) -> None:
    zipf, rng = Zipf(n, exponent), random.Random(seed)
    assert all(0 <= zipf.draw(rng) < n for _ in range(50))


def test_zipf_draws_as_often_as_it_says() -> None:
    zipf, rng, draws = Zipf(20, 1.1), random.Random(7), 40_000
    counts = Counter(zipf.draw(rng) for _ in range(draws))
    chi_squared = sum(
        (counts[rank] - draws * zipf.probability(rank)) ** 2 / (draws * zipf.probability(rank))
        for rank in range(20)
    )
    assert chi_squared < 43.8  # the 99.9% point of chi-squared with 19 degrees of freedom


@pytest.mark.parametrize(("n", "exponent"), [(0, 1.0), (5, -0.1)])
def test_zipf_refuses_what_makes_no_sense(n: int, exponent: float) -> None:
    with pytest.raises(ValueError, match=r"draw|exponent"):
        Zipf(n, exponent)


def crowd(**changes: float) -> Crowd:
    settings = {"exponent": 1.0, "cold_share": 0.2, "seed": 3} | changes
    return Crowd(
        range(1, 101),
        exponent=settings["exponent"],
        cold_share=settings["cold_share"],
        seed=int(settings["seed"]),
    )


def test_a_crowd_is_a_function_of_its_seed() -> None:
    one, same, other = (crowd(seed=seed) for seed in (3, 3, 4))
    draws = [[each.draw() for _ in range(100)] for each in (one, same, other)]
    assert draws[0] == draws[1] != draws[2]


def test_the_cold_share_is_kept_and_cold_users_are_unknown() -> None:
    draws = [drawn for each in [crowd()] for drawn in (each.draw() for _ in range(5000))]
    cold = [user for user, is_cold in draws if is_cold]
    assert len(cold) / len(draws) == pytest.approx(0.2, abs=0.02)
    assert not set(cold) & set(range(1, 101))
    assert all(user in range(1, 101) for user, is_cold in draws if not is_cold)


@pytest.mark.parametrize(("share", "expected"), [(0.0, {False}), (1.0, {True})])
def test_the_cold_share_reaches_both_ends(share: float, expected: set[bool]) -> None:
    each = crowd(cold_share=share)
    assert {each.draw()[1] for _ in range(200)} == expected


def test_popularity_does_not_follow_the_id() -> None:
    favourites = set()
    for seed in range(10):
        each = crowd(seed=seed, cold_share=0, exponent=2)
        favourites.add(Counter(each.draw()[0] for _ in range(300)).most_common(1)[0][0])
    assert len(favourites) > 5


def test_users_with_text_ids_meet_strangers_with_text_ids() -> None:
    each = Crowd(["ann", "bob"], exponent=1, cold_share=1, seed=1)
    assert all(isinstance(each.draw()[0], str) for _ in range(10))


def test_a_range_holds_both_ends() -> None:
    assert list(parse_ids("5..7")) == [5, 6, 7]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("users.txt", "3\n1\n2\n", [3, 1, 2]),
        ("users.csv", "age,user_id\n30,7\n40,8\n", [7, 8]),
        ("users.tsv", "user_id\tage\n7\t30\n", [7]),
        ("users.csv", "ann\n7\n", ["ann", "7"]),
        ("users.csv", 'user_id\n"a,b"\n', ["a,b"]),
    ],
)
def test_ids_are_read_from_a_file(tmp_path: Path, name: str, text: str, expected: list[int | str]) -> None:
    (tmp_path / name).write_text(text)
    assert list(parse_ids(str(tmp_path / name))) == expected


@pytest.mark.parametrize("text", ["9..1", "1..2000000000", "no-such-file.csv", "-3..5"])
def test_ids_that_make_no_sense_are_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=text.replace(".", r"\.")):
        parse_ids(text)


def test_a_file_that_lists_nobody_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("user_id\n")
    with pytest.raises(ValueError, match="lists nobody"):
        parse_ids(str(tmp_path / "empty.csv"))
