"""The test of significance against its closed form."""

import math

import numpy as np
import pytest

from tnr_dist.evaluation.statistics import mean_and_deviation, paired_t_test
from tnr_dist.util.errors import InputError


def test_mean_and_deviation():
    assert mean_and_deviation([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]) == (5.0, pytest.approx(math.sqrt(32 / 7)))
    assert mean_and_deviation([0.7]) == (0.7, None)
    with pytest.raises(InputError, match="no values"):
        mean_and_deviation([])


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


def test_refuses_what_cannot_be_paired():
    with pytest.raises(InputError, match="two equal lists"):
        paired_t_test(np.ones(3), np.ones(2))
    with pytest.raises(InputError, match="at least 2 pairs"):
        paired_t_test(np.ones(1), np.ones(1))
    with pytest.raises(InputError, match="pair 1 is not finite"):
        paired_t_test(np.array([1.0, np.nan]), np.ones(2))
