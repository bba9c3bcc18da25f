from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from models.analysis.sequential import always_valid_p, confidence_sequence
from models.analysis.statistics import (
    bootstrap_ratios,
    cuped,
    detectable,
    ratio_difference,
    required_users,
    sample_ratio,
    welch,
)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.integers(2, 200), st.integers(2, 200)),
    scales=st.tuples(st.floats(0.1, 50), st.floats(0.1, 50)),
    alpha=st.sampled_from([0.01, 0.05, 0.2]),
)
def test_welch_is_scipys(
    seed: int, sizes: tuple[int, int], scales: tuple[float, float], alpha: float
) -> None:
    rng = np.random.default_rng(seed)
    control, treatment = (rng.normal(5, scale, n) for n, scale in zip(sizes, scales, strict=True))
    found = welch(control, treatment, alpha=alpha)
    theirs = stats.ttest_ind(treatment, control, equal_var=False)
    low, high = theirs.confidence_interval(1 - alpha)
    assert found is not None
    assert (found.lower, found.upper) == pytest.approx((low, high), rel=1e-9, abs=1e-12)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-9)
    assert found.degrees == pytest.approx(theirs.df, rel=1e-9)
    assert found.significant == (low > 0 or high < 0)


def test_welch_by_hand() -> None:
    # Means 2 and 5, variances 1 and 4: standard error sqrt(1/3 + 4/3), degrees (5/3)**2 / ((1/3)**2/2 + (4/3)**2/2).
    found = welch(np.array([1.0, 2.0, 3.0]), np.array([3.0, 5.0, 7.0]))
    assert found is not None
    assert found.effect == 3.0
    assert found.standard_error == pytest.approx((5 / 3) ** 0.5)
    assert found.degrees == pytest.approx((25 / 9) / (1 / 18 + 16 / 18))
    assert found.percent(found.effect) == pytest.approx(150.0)
    assert not found.significant


def test_welch_says_nothing_of_one_user_or_of_constants_that_differ() -> None:
    assert welch(np.array([1.0]), np.array([1.0, 2.0])) is None
    assert welch(np.ones(5), np.full(5, 2.0)) is None
    same = welch(np.ones(5), np.ones(5))
    assert same is not None
    assert not same.significant


def test_the_delta_method_and_the_bootstrap_agree_and_cover_the_truth() -> None:
    covered = {"delta": 0, "bootstrap": 0}
    for seed in range(60):
        rng = np.random.default_rng(seed)

        def side(rate: float, rng: np.random.Generator = rng) -> tuple[np.ndarray, np.ndarray]:
            shown = rng.poisson(rng.gamma(2, 10, 300)) + 1.0
            # People differ in how often they click: a test that counts shown items as independent would be too sure.
            own = np.clip(rng.normal(rate, 0.05, 300), 0, 1)
            return rng.binomial(shown.astype(int), own).astype(float), shown

        control, treatment = side(0.20), side(0.23)
        found = ratio_difference(control, treatment)
        assert found is not None
        low, high = bootstrap_ratios([control], [treatment], resamples=200, seed=seed)[0] or (0.0, 0.0)
        assert low == pytest.approx(found.lower, abs=0.25 * (found.upper - found.lower))
        assert high == pytest.approx(found.upper, abs=0.25 * (found.upper - found.lower))
        covered["delta"] += found.lower <= 0.03 <= found.upper
        covered["bootstrap"] += low <= 0.03 <= high
    assert covered["delta"] >= 51
    assert covered["bootstrap"] >= 51


def test_a_ratio_without_a_denominator_says_nothing() -> None:
    nobody = np.zeros(4), np.zeros(4)
    assert ratio_difference(nobody, (np.ones(4), np.ones(4))) is None
    somebody = np.ones(4), np.ones(4)
    assert bootstrap_ratios([nobody, somebody], [somebody, somebody]) == [None, (0.0, 0.0)]


def test_cuped_keeps_the_effect_and_takes_out_what_the_past_explains() -> None:
    rng = np.random.default_rng(3)
    taste = rng.normal(10, 3, 4000)
    past = taste + rng.normal(0, 1, 4000)
    now = taste + rng.normal(0, 1, 4000)
    treated = np.arange(4000) % 2 == 1
    now[treated] += 0.4
    adjusted = cuped((now[~treated], past[~treated]), (now[treated], past[treated]))
    assert adjusted is not None
    plain, better = welch(now[~treated], now[treated]), welch(adjusted.control, adjusted.treatment)
    assert plain is not None
    assert better is not None
    # Correlation of past and present is 9 / 10: 1 - 0.81 of the variance remains.
    assert adjusted.reduction == pytest.approx(0.81, abs=0.02)
    assert better.standard_error == pytest.approx(plain.standard_error * 0.19**0.5, rel=0.05)
    assert better.lower < 0.4 < better.upper
    assert better.significant


def test_users_without_a_past_stay_as_they_are() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=50)
    past = np.where(np.arange(50) < 25, values, np.nan)
    adjusted = cuped((values, past), (values + 1, past))
    assert adjusted is not None
    assert adjusted.control[25:] == pytest.approx(values[25:])
    assert adjusted.covered == 0.5
    assert cuped((values, np.full(50, np.nan)), (values, np.full(50, np.nan))) is None


def test_the_sample_ratio_is_pearsons_chi_squared() -> None:
    found = sample_ratio({"C": 5100, "T1": 4900}, {"C": 1.0, "T1": 1.0})
    assert found.chi2 == pytest.approx(4.0)  # 100**2 / 5000 twice
    assert not found.mismatch
    assert sample_ratio({"C": 5300, "T1": 4700}, {"C": 1.0, "T1": 1.0}).mismatch
    assert not sample_ratio({"C": 9010, "T1": 990}, {"C": 9.0, "T1": 1.0}).mismatch


def test_the_required_users_find_the_difference_as_often_as_the_power_says() -> None:
    users = required_users((4.0, 4.0), 0.5)
    assert users == 252  # 2 * 4 * (1.95996 + 0.84162)**2 / 0.25, rounded up
    rng = np.random.default_rng(0)
    found = [welch(rng.normal(0, 2, users), rng.normal(0.5, 2, users)) for _ in range(600)]
    share = sum(one is not None and one.significant for one in found) / len(found)
    assert stats.binomtest(round(share * 600), 600, 0.8).pvalue > 0.001
    assert detectable((8.0 / users) ** 0.5) == pytest.approx(0.5, rel=0.01)


def test_looking_often_fools_the_plain_p_and_not_the_always_valid_one() -> None:
    rng = np.random.default_rng(1)
    runs, looks = 200, range(100, 1001, 100)
    plain = sequential = 0
    for _ in range(runs):
        control, treatment = rng.normal(size=1000), rng.normal(size=1000)
        seen = [(welch(control[:n], treatment[:n]), 2 * n) for n in looks]
        plain += any(one is not None and one.p < 0.05 for one, _ in seen)
        sequential += any(one is not None and always_valid_p(one, n, 1000) < 0.05 for one, n in seen)
    assert plain / runs > 0.1
    assert stats.binomtest(sequential, runs, 0.05, alternative="greater").pvalue > 0.01


@settings(max_examples=100, deadline=None)
@given(
    effect=st.floats(-3, 3),
    users=st.integers(10, 100_000),
    planned=st.integers(10, 100_000),
    seed=st.integers(0, 99),
)
def test_the_sequence_excludes_no_difference_exactly_when_its_p_is_small(
    effect: float, users: int, planned: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    one = welch(rng.normal(0, 1, 60), rng.normal(effect, 1, 60))
    assert one is not None
    low, high = confidence_sequence(one, users, planned)
    p = always_valid_p(one, users, planned)
    if abs(p - 0.05) > 1e-9:
        assert (low > 0 or high < 0) == (p < 0.05)
    assert low < one.lower < one.upper < high


def test_a_large_effect_is_found_at_some_look() -> None:
    rng = np.random.default_rng(2)
    one = welch(rng.normal(0, 1, 2000), rng.normal(0.3, 1, 2000))
    assert one is not None
    assert always_valid_p(one, 4000, 4000) < 1e-6
