import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from tnr_dist.losses.matching import matching_loss

from .reference import assert_parts_add_up, random

WEIGHTS = torch.tensor([1.0, 0.0, 0.5, 1.0], dtype=torch.float64)


def test_loss_is_the_weighted_mean_of_minus_log_probability() -> None:
    scores = random(4, 10, seed=1, scale=2)
    y = scores.numpy()
    expected = 0.0
    for i in range(4):
        p = np.exp(y[i, 0]) / sum(np.exp(y[i, j]) for j in range(10))
        expected += float(WEIGHTS[i]) * -np.log(p) / 7
    assert float(matching_loss(scores, WEIGHTS, 7)) == pytest.approx(expected, rel=1e-13)


def test_gradient() -> None:
    scores = random(4, 5, seed=2).requires_grad_()
    assert gradcheck(lambda s: matching_loss(s, WEIGHTS, 3.0), (scores,))
    (gradient,) = torch.autograd.grad(matching_loss(scores, WEIGHTS, 3.0), scores)
    assert gradient[1].abs().max() == 0, "a slot of weight 0 must not train anything"
    assert gradient[0].abs().max() > 0


def test_parts_of_a_batch_add_up() -> None:
    scores, weights = random(7, 5, seed=3), torch.ones(7)
    assert_parts_add_up(lambda part: matching_loss(scores[part], weights[part], 7), 7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_scores_are_computed_in_float32(dtype: torch.dtype) -> None:
    scores = random(4, 10, seed=4).to(dtype)
    loss = matching_loss(scores, torch.ones(4), 4)
    assert loss.dtype == torch.float32
    exact = matching_loss(scores.double(), torch.ones(4), 4)
    assert float(loss) == pytest.approx(float(exact), rel=1e-6)


def test_extreme_scores_stay_finite() -> None:
    scores = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    loss = matching_loss(scores, torch.ones(2), 2)
    assert float(loss.detach()) == pytest.approx(1e4)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert torch.isfinite(gradient).all()
