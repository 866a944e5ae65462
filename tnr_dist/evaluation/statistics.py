"""Whether one model is better than another: spread over seeds, and paired tests over the same impressions.

All tests are two-sided and compare `a` with `b` pair by pair, for example the AUC of the same impressions
(`ImpressionMetrics.auc[valid]`), or the means of the same seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tnr_dist.evaluation.metrics import Float64s
from tnr_dist.util.errors import InputError

# Random draws of one block of resamples: 32 MiB of indices or signs.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Comparison:
    """Outcome of a paired test of `a` against `b` over `pairs` pairs.

    `difference`: mean of a - b; `p_value`: two-sided; `low`, `high`: bounds of the confidence interval of the
    difference, NaN from a test that gives none.
    """

    difference: float
    p_value: float
    low: float
    high: float
    pairs: int


def mean_and_deviation(values: Sequence[float] | Float64s) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1), as Table 2 reports over seeds; the deviation of one value is None.

    Raises:
        InputError: no values.
    """
    count = len(values)
    if count == 0:
        raise InputError("no values to average: run at least one seed")
    mean = math.fsum(values) / count
    if count == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))


def paired_t_test(a: Float64s, b: Float64s, *, confidence: float = 0.95) -> Comparison:
    """Student's paired t-test: t = mean(d) / (s_d / sqrt(n)) with d = a - b and n - 1 degrees of freedom.

    Args:
        a: [n] scores of one model.
        b: [n] scores of the other on the same impressions or seeds.
        confidence: level of the interval `low` to `high`.

    Raises:
        InputError: lengths differ, fewer than two pairs, or a value is not finite.
    """
    d = _differences(a, b)
    mean, deviation = mean_and_deviation(d)
    error = (deviation or 0.0) / math.sqrt(len(d))
    if error == 0.0:
        return Comparison(mean, 1.0 if mean == 0.0 else 0.0, mean, mean, len(d))
    margin = _t_quantile(1 - confidence, len(d) - 1) * error
    return Comparison(mean, _t_two_sided(abs(mean) / error, len(d) - 1), mean - margin, mean + margin, len(d))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down procedure (1979), in the given order.

    Sorted ascending, p_(k) of n becomes the running maximum of (n - k + 1) * p_(k), at most 1.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, highest = [0.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[i]))
        corrected[i] = highest
    return corrected


def paired_bootstrap(
    a: Float64s, b: Float64s, *, resamples: int = 1000, seed: int = 0, confidence: float = 0.95
) -> Comparison:
    """Paired bootstrap: the mean difference over pairs drawn with replacement (Efron's percentile interval).

    p = twice the smaller share of resamples at or beyond zero, counted with the +1 of Davison & Hinkley (1997).

    Args:
        a: [n] scores of one model.
        b: [n] scores of the other on the same impressions.
        resamples: number of draws; p cannot be smaller than 2 / (resamples + 1).
        seed: the same seed gives the same result.
        confidence: level of the percentile interval `low` to `high`.

    Raises:
        InputError: lengths differ, fewer than two pairs, a value is not finite, or no resamples.
    """
    d = _differences(a, b)
    rng = _generator(resamples, seed)
    means = np.empty(resamples)
    for rows in _blocks(resamples, len(d)):
        means[rows] = d[rng.integers(0, len(d), (rows.stop - rows.start, len(d)))].mean(axis=1)
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Comparison(float(d.mean()), min(1.0, 2 * (tail + 1) / (resamples + 1)), float(low), float(high), len(d))


def sign_flip_test(a: Float64s, b: Float64s, *, resamples: int = 1000, seed: int = 0) -> Comparison:
    """Paired permutation test: if the models are alike, the sign of each difference is a coin's.

    p = (1 + number of sign patterns whose |mean| is at least the observed one) / (resamples + 1).

    Args:
        a: [n] scores of one model.
        b: [n] scores of the other on the same impressions or seeds.
        resamples: number of sign patterns.
        seed: the same seed gives the same result.

    Raises:
        InputError: lengths differ, fewer than two pairs, a value is not finite, or no resamples.
    """
    d = _differences(a, b)
    rng = _generator(resamples, seed)
    # Summed in one fixed order for the observed pattern too; the slack keeps its own ties with rounding's help out.
    observed = abs(float(d.sum()))
    slack = 1e-12 * float(np.abs(d).sum())
    extreme = 0
    for rows in _blocks(resamples, len(d)):
        signs = rng.integers(0, 2, (rows.stop - rows.start, len(d)), dtype=np.int8)
        # sum(+-d) = 2 * sum(d where the sign is plus) - sum(d)
        extreme += int((np.abs(2 * (signs @ d) - d.sum()) >= observed - slack).sum())
    return Comparison(float(d.mean()), (extreme + 1) / (resamples + 1), math.nan, math.nan, len(d))


def _differences(a: Float64s, b: Float64s) -> Float64s:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(f"paired scores must be two equal lists, not {list(a.shape)} and {list(b.shape)}")
    if len(a) < 2:
        raise InputError(f"a paired test needs at least 2 pairs, not {len(a)}")
    d: NDArray[np.float64] = a - b
    if not np.isfinite(d).all():
        raise InputError(
            f"pair {int(np.argmin(np.isfinite(d)))} is not finite: leave out the impressions that are not `valid`"
        )
    return d


def _generator(resamples: int, seed: int) -> np.random.Generator:
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, not {resamples}")
    return np.random.default_rng(seed)


def _blocks(resamples: int, pairs: int) -> list[slice]:
    step = max(1, _BLOCK // pairs)
    return [slice(start, min(start + step, resamples)) for start in range(0, resamples, step)]


def _t_two_sided(t: float, freedom: int) -> float:
    """P(|T| >= t) of Student's t: I_x(freedom / 2, 1 / 2) with x = freedom / (freedom + t^2)."""
    return _incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def _t_quantile(p: float, freedom: int) -> float:
    """The t with P(|T| >= t) = p, by bisection: exact enough in 200 halvings and called once a test."""
    low, high = 0.0, 1.0
    while _t_two_sided(high, freedom) > p:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_two_sided(middle, freedom) > p else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta function I_x(a, b) by its continued fraction (DLMF 8.17.22), Lentz's method."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    # The fraction converges fast below the mean of the beta distribution; above, use the mirror image.
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, 1.0 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    tiny = 1e-300
    c, d = 1.0, 1.0 / max(1.0 - (a + b) * x / (a + 1), tiny)
    fraction = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 + term * d
            d = 1.0 / (d if abs(d) > tiny else tiny)
            c = 1.0 + term / c
            c = c if abs(c) > tiny else tiny
            step = c * d
            fraction *= step
        if abs(step - 1.0) < 1e-15:
            break
    return front * fraction / a
