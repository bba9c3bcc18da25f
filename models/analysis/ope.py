"""Off-policy evaluation: what another policy would have earned, from a log whose propensities are known.

Two assumptions of how the places of a slate earn (McInerney et al. 2020, "Counterfactual Evaluation of Slate
Recommendations with Sequential Reward Interactions", KDD, section 3):

`independent`  what a place earns depends on the user, the item and the place only (the item-position model of Li et al.
               2018, "Offline Evaluation of Ranking Policies with Click Models", KDD). A place is weighed by its own
               ratio target / logged, both given the places before as they were logged: exact where the target's choice
               at a place doesn't depend on the items before it, close where it rarely does.
`cascade`      it may also depend on the items of earlier places. A place is weighed by the product of the ratios up to
               it: exact for any target, at much more variance.

With slates of one place they are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from models.analysis.explored import Explored
from models.analysis.target import Target

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Interaction = Literal["independent", "cascade"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Value of a policy, reward a slate, with an interval of confidence 1 - alpha; users are what is independent."""

    name: str
    value: float
    lower: float
    upper: float
    standard_error: float

    def as_json(self) -> dict[str, float]:
        """Lay out with plain JSON values."""
        return {
            "value": self.value,
            "lower": self.lower,
            "upper": self.upper,
            "standard_error": self.standard_error,
        }


@dataclass(frozen=True, slots=True)
class Weights:
    """Whether the log can say anything of the target.

    `effective`: sample size, (sum w)**2 / sum w**2 (Kong 1992); `mean` must be 1 where the log has everything that the
    target shows, `mean_error` is its standard error; `none`: share of places with weight 0; `clipped`: beyond the clip.
    """

    places: int
    effective: float
    mean: float
    mean_error: float
    largest: float
    none: float
    clipped: float

    @property
    def warnings(self) -> list[str]:
        """What makes the estimates doubtful."""
        found = []
        if self.mean < 1 - 3 * self.mean_error - 1e-9:
            found.append(
                f"the mean weight is {self.mean:.3f}, not 1: the log never shows part of what the target shows, "
                "and IPS is too low by what that part earns"
            )
        elif self.mean > 1 + 3 * self.mean_error + 1e-9:
            found.append(
                f"the mean weight is {self.mean:.3f}, not 1: the propensities are not what was played"
            )
        if self.effective < 100:
            found.append(
                f"an effective sample of {self.effective:.0f} places: the intervals are not to be trusted"
            )
        elif self.effective < 0.01 * self.places:
            found.append(
                f"the effective sample is {self.effective / self.places:.2%} of the places: expect wide intervals"
            )
        return found

    def as_json(self) -> dict[str, Any]:
        """Lay out with plain JSON values."""
        return {
            "places": self.places,
            "effective_sample": self.effective,
            "mean": self.mean,
            "mean_error": self.mean_error,
            "largest": self.largest,
            "share_zero": self.none,
            "share_clipped": self.clipped,
            "warnings": self.warnings,
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`logged`: what the slates earned as they were. The rest: of the target."""

    slates: int
    users: int
    interaction: Interaction
    clip: float
    logged: Estimate
    estimates: tuple[Estimate, ...]
    weights: Weights


@dataclass(frozen=True, slots=True)
class _Places:
    """Rows of the log as arrays by slate and place; slate, user: int64 (n,), position: int64 (n,)."""

    slate: Codes
    user: Codes
    position: Codes
    reward: Floats
    slates_of_user: Floats


def evaluate(
    explored: Explored,
    target: Target,
    *,
    interaction: Interaction = "independent",
    clip: float = 10.0,
    alpha: float = 0.05,
) -> Evaluation:
    """Estimate the target's reward a slate: IPS, self-normalised IPS, doubly robust, and each with clipped weights.

    Doubly robust estimates are left out where the target is not told whole.
    """
    places = _places(explored)
    ratios = target.probability / explored.slots["propensity"].to_numpy()
    weights, before = _weights(ratios, places, interaction)
    low, low_before = np.minimum(weights, clip), np.minimum(before, clip)
    found = [
        _mean("IPS", weights * places.reward, places, alpha),
        _self_normalised("SNIPS", weights, places, alpha),
        _mean("clipped IPS", low * places.reward, places, alpha),
        _self_normalised("clipped SNIPS", low, places, alpha),
    ]
    if target.expected is not None:
        for name, w, earlier in (("DR", weights, before), ("clipped DR", low, low_before)):
            parts = earlier * target.expected + w * (places.reward - target.logged)
            found.append(_mean(name, parts, places, alpha))
    return Evaluation(
        int(places.slate[-1]) + 1,
        len(places.slates_of_user),
        interaction,
        clip,
        _mean("logged", places.reward, places, alpha),
        tuple(found),
        _diagnosed(weights, clip, places),
    )


def _places(explored: Explored) -> _Places:
    slots = explored.slots
    slate = (slots["event_id"].rle_id()).to_numpy().astype(np.int64)
    user = (slots["user_id"].rank("dense") - 1).to_numpy().astype(np.int64)
    first = np.flatnonzero(np.diff(slate, prepend=-1))
    return _Places(
        slate,
        user,
        slots["position"].to_numpy().astype(np.int64),
        slots["reward"].to_numpy(),
        np.bincount(user[first]).astype(np.float64),
    )


def _weights(ratios: Floats, places: _Places, interaction: Interaction) -> tuple[Floats, Floats]:
    """(weight of each place, weight of what stands before it)."""
    if interaction == "independent":
        return ratios, np.ones(len(ratios))
    weights, before = np.empty(len(ratios)), np.empty(len(ratios))
    product = 1.0
    for row, (ratio, position) in enumerate(zip(ratios.tolist(), places.position.tolist(), strict=True)):
        before[row] = 1.0 if position == 0 else product
        weights[row] = product = before[row] * ratio
    return weights, before


def _mean(name: str, parts: Floats, places: _Places, alpha: float) -> Estimate:
    """Mean over slates of the sum of their places' parts; users come whole, so their sums are what varies."""
    n = places.slates_of_user
    of_user = np.bincount(places.user, parts, minlength=len(n))
    value = float(of_user.sum() / n.sum())
    return _estimate(name, value, (of_user - value * n) / n.mean(), alpha)


def _self_normalised(name: str, weights: Floats, places: _Places, alpha: float) -> Estimate:
    """Self-normalised importance sampling place by place (Swaminathan & Joachims 2015, NeurIPS, section 4).

    value = sum over places j of (slates with a place j / slates) * sum(w r) / sum(w); its variance by linearisation.
    """
    n = places.slates_of_user
    total = np.bincount(places.position, weights)
    earned = np.bincount(places.position, weights * places.reward)
    means = np.divide(earned, total, out=np.zeros(len(total)), where=total > 0)
    counts = np.bincount(places.position).astype(np.float64)
    value = float((counts * means).sum() / n.sum())
    mean_weight = np.divide(total, counts, out=np.ones(len(total)), where=total > 0)
    at = places.position
    parts = weights / mean_weight[at] * (places.reward - means[at]) + means[at]
    influence = (np.bincount(places.user, parts, minlength=len(n)) - value * n) / n.mean()
    return _estimate(name, value, influence, alpha)


def _estimate(name: str, value: float, influence: Floats, alpha: float) -> Estimate:
    if len(influence) < 2:
        return Estimate(name, value, -math.inf, math.inf, math.inf)
    error = float(influence.std(ddof=1)) / math.sqrt(len(influence))
    half = float(stats.t(degrees_of(influence)).ppf(1 - alpha / 2)) * error
    return Estimate(name, value, value - half, value + half, error)


def degrees_of(influence: Floats) -> float:
    """How much the standard error is itself to be trusted, as degrees of freedom of Student's t: 2 n / (kurtosis - 1).

    The variance of a sample variance is about s^4 (kurtosis - 1) / n, and that of one with f degrees of freedom
    2 s^4 / f (Satterthwaite 1946, Biometrics 2). Where a few users carry most of the weight the kurtosis is large, and
    the interval grows; of normal influences there are n - 1, as ever.
    """
    n = len(influence)
    centred = influence - influence.mean()
    spread = float((centred**2).mean())
    if not spread > 0.0:
        return float(n - 1)
    kurtosis = float((centred**4).mean()) / spread**2
    return max(1.0, min(n - 1.0, 2.0 * n / max(kurtosis - 1.0, 1e-9)))


def _diagnosed(weights: Floats, clip: float, places: _Places) -> Weights:
    users = len(places.slates_of_user)
    sizes = np.bincount(places.user, minlength=users).astype(np.float64)
    sums = np.bincount(places.user, weights, minlength=users)
    mean = float(weights.mean())
    spread = (sums - mean * sizes) / sizes.mean()
    squares = float((weights**2).sum())
    return Weights(
        len(weights),
        float(weights.sum()) ** 2 / squares if squares else 0.0,
        mean,
        float(spread.std(ddof=1)) / math.sqrt(users) if users > 1 else math.inf,
        float(weights.max()),
        float((weights == 0).mean()),
        float((weights > clip).mean()),
    )


def best_of(estimates: Sequence[Estimate]) -> Estimate:
    """Name the estimate to quote: doubly robust where there is one, else self-normalised."""
    by_name = {one.name: one for one in estimates}
    return by_name.get("DR", by_name["SNIPS"])
