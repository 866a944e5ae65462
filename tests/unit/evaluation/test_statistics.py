"""Tests of significance against closed forms."""

import math
from itertools import product

import numpy as np
import pytest

from tnr_dist.evaluation import statistics
from tnr_dist.evaluation.statistics import mean_and_deviation, paired_bootstrap, paired_t_test, sign_flip_test
from tnr_dist.util.errors import InputError


def test_mean_and_deviation():
    assert mean_and_deviation([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]) == (5.0, pytest.approx(math.sqrt(32 / 7)))
    assert mean_and_deviation([0.7]) == (0.7, None)
    with pytest.raises(InputError, match="no values"):
        mean_and_deviation([])


@pytest.mark.parametrize("t", [0.0, 0.1, 1.0, 2.5, 10.0, 60.0])
def test_t_distribution_equals_its_closed_forms(t):
    """P(|T| >= t) for 1, 2 and 4 degrees of freedom, and the normal limit."""
    assert statistics._t_two_sided(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), rel=1e-9, abs=1e-15)
    assert statistics._t_two_sided(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-9, abs=1e-12)
    x = t / math.sqrt(4 + t * t)
    assert statistics._t_two_sided(t, 4) == pytest.approx(1 - x * (3 - x * x) / 2, rel=1e-9, abs=1e-12)
    assert statistics._t_two_sided(t, 10**7) == pytest.approx(math.erfc(t / math.sqrt(2)), rel=1e-4, abs=1e-15)


def test_t_quantiles_of_the_usual_table():
    for freedom, want in ((1, 12.7062), (4, 2.7764), (10, 2.2281), (30, 2.0423), (100, 1.9840)):
        assert statistics._t_quantile(0.05, freedom) == pytest.approx(want, abs=5e-5)


def test_paired_t_test():
    """d = 1, 2, 3: t = 2 sqrt(3), 2 degrees of freedom, p = 1 - t / sqrt(2 + t^2)."""
    result = paired_t_test(np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0]))
    t = 2 * math.sqrt(3)
    assert result.difference == 2 and result.pairs == 3
    assert result.p_value == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-9)
    margin = 4.302653 / math.sqrt(3)
    assert (result.low, result.high) == (pytest.approx(2 - margin, abs=1e-5), pytest.approx(2 + margin, abs=1e-5))
    same = np.array([0.5, 0.6, 0.7])
    assert paired_t_test(same, same).p_value == 1.0
    assert paired_t_test(same + 1, same + 0.5).p_value < 1e-10


def test_sign_flip_test_equals_the_exact_test():
    d = np.array([0.9, 0.4, -0.3, 0.8, 0.2, 0.7, -0.1, 0.6])
    exact = np.mean([abs(np.dot(signs, d)) >= d.sum() - 1e-12 for signs in product((-1, 1), repeat=len(d))])
    result = sign_flip_test(d, np.zeros(8), resamples=40_000, seed=1)
    assert result.p_value == pytest.approx(exact, abs=4 * math.sqrt(exact / 40_000))
    assert result.difference == pytest.approx(d.mean())
    # No pattern exceeds all pluses: of 2^8 patterns 2 reach it.
    assert sign_flip_test(np.ones(8), np.zeros(8), resamples=40_000).p_value == pytest.approx(2 / 256, rel=0.25)
    assert sign_flip_test(np.ones(8), np.ones(8)).p_value == 1.0


def test_bootstrap_interval_approaches_the_normal_one():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.02, 1, 4000), np.zeros(4000)
    result = paired_bootstrap(a, b, resamples=2000)
    error = a.std() / math.sqrt(4000)
    assert result.low == pytest.approx(a.mean() - 1.96 * error, abs=0.2 * error)
    assert result.high == pytest.approx(a.mean() + 1.96 * error, abs=0.2 * error)
    assert result.p_value == pytest.approx(paired_t_test(a, b).p_value, abs=0.05)
    assert paired_bootstrap(a + 1, b, resamples=2000).p_value == pytest.approx(2 / 2001)


@pytest.mark.parametrize("test", [paired_bootstrap, sign_flip_test])
def test_the_seed_decides_and_blocks_do_not_shift_the_answer(test, monkeypatch):
    rng = np.random.default_rng(1)
    a, b = rng.random(300), rng.random(300)
    assert test(a, b, seed=3) == test(a, b, seed=3)
    assert test(a, b, seed=3).p_value != test(a, b, seed=4).p_value
    want = test(a, b, seed=3).p_value
    monkeypatch.setattr(statistics, "_BLOCK", 1)
    assert test(a, b, seed=3).p_value == pytest.approx(want, abs=0.1)


@pytest.mark.parametrize("test", [paired_t_test, paired_bootstrap, sign_flip_test])
def test_refuses_what_cannot_be_paired(test):
    with pytest.raises(InputError, match="two equal lists"):
        test(np.ones(3), np.ones(2))
    with pytest.raises(InputError, match="at least 2 pairs"):
        test(np.ones(1), np.ones(1))
    with pytest.raises(InputError, match="pair 1 is not finite"):
        test(np.array([1.0, np.nan]), np.ones(2))
    if test is not paired_t_test:
        with pytest.raises(InputError, match="resamples"):
            test(np.ones(3), np.ones(3), resamples=0)
