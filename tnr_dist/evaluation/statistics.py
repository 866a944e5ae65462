"""Whether one model is better than another: spread over seeds, and a paired test over the same impressions or seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tnr_dist.evaluation.metrics import Float64s
from tnr_dist.util.errors import InputError


@dataclass(frozen=True)
class Comparison:
    """Outcome of a paired test of `a` against `b` over `pairs` pairs.

    `difference`: mean of a - b; `p_value`: two-sided; `low`, `high`: bounds of the confidence interval of the
    difference.
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
    from scipy import stats

    d = _differences(a, b)
    if np.ptp(d) <= 1e-13 * np.abs(d).max():  # no spread but rounding's: t is 0 / 0, or says nothing
        mean = float(d[0])
        return Comparison(mean, 1.0 if mean == 0.0 else 0.0, mean, mean, len(d))
    test = stats.ttest_1samp(d, 0.0)
    low, high = test.confidence_interval(confidence)
    return Comparison(float(d.mean()), float(test.pvalue), float(low), float(high), len(d))


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
