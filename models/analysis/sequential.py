"""Inference that stays valid however often one looks, and whenever one stops."""

from __future__ import annotations

import math

from models.analysis.statistics import Difference


def always_valid_p(difference: Difference, users: int, planned: int, *, alpha: float = 0.05) -> float:
    """p-value by the mixture sequential probability ratio test with a normal mixture.

    Johari, Koomen, Pekelis, Walsh 2022, "Always Valid Inference: Continuous Monitoring of A/B Tests", Operations
    Research 70(3), section 5 (Robbins 1970 for the mixture). Written in z = effect / standard error and
    g = users * rho**2, the mixture's variance over the effect's: p = min(1, sqrt(1 + g) exp(-z**2 g / (2 (1 + g)))).
    """
    if difference.standard_error == 0.0:
        return 1.0
    g = users * _rho_squared(planned, alpha)
    z = difference.effect / difference.standard_error
    exponent = 0.5 * math.log1p(g) - z * z * g / (2 * (1 + g))
    return math.exp(min(exponent, 0.0))


def confidence_sequence(
    difference: Difference, users: int, planned: int, *, alpha: float = 0.05
) -> tuple[float, float]:
    """(lower, upper) that cover the true effect at all looks together with probability 1 - alpha, asymptotically.

    Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2024, "Time-uniform central limit theory and asymptotic confidence
    sequences", Annals of Statistics 52(6), theorem 2.2, of the same mixture as `always_valid_p`: the one excludes 0
    exactly when the other is below alpha. `users`: in both groups so far. `planned`: where the interval is narrowest;
    it must not be chosen by what the data show.
    """
    g = users * _rho_squared(planned, alpha)
    half = difference.standard_error * math.sqrt((1 + g) / g * (math.log1p(g) - 2 * math.log(alpha)))
    return difference.effect - half, difference.effect + half


def _rho_squared(planned: int, alpha: float) -> float:
    """Mixture that makes the sequence tightest about `planned` users (the same paper, appendix B.2)."""
    return (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / planned
