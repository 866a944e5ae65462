import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from tnr_dist.losses.common import click_loss

from .reference import assert_parts_add_up, cross_entropy, one_hot, random

MASK = torch.tensor([[True] * 5, [True, True, False, True, False], [True] + [False] * 4])
WEIGHTS = torch.tensor([1.0, 0.25, 1.0], dtype=torch.float64)


def expected_loss(scores: torch.Tensor, mask: torch.Tensor | None, count: float) -> float:
    total = 0.0
    for b in range(len(scores)):
        kept = [float(s) for c, s in enumerate(scores[b]) if mask is None or mask[b, c]]
        total += float(WEIGHTS[b]) * cross_entropy(one_hot(len(kept)), np.array(kept))
    return total / count


@pytest.mark.parametrize("mask", [None, MASK])
def test_loss_equals_the_equation(mask: torch.Tensor | None) -> None:
    scores = random(3, 5, seed=1, scale=3)
    assert float(click_loss(scores, WEIGHTS, 4, mask)) == pytest.approx(expected_loss(scores, mask, 4), rel=1e-13)


def test_masked_candidates_do_not_matter_and_get_no_gradient() -> None:
    scores = random(3, 5, seed=2)
    changed = scores.masked_fill(~MASK, 1e4).requires_grad_()
    loss = click_loss(changed, WEIGHTS, 3, MASK)
    assert float(loss.detach()) == float(click_loss(scores, WEIGHTS, 3, MASK))
    (gradient,) = torch.autograd.grad(loss, changed)
    assert gradient[~MASK].abs().max() == 0
    assert gradient[1][MASK[1]].abs().min() > 0


@pytest.mark.parametrize("mask", [None, MASK])
def test_gradient(mask: torch.Tensor | None) -> None:
    scores = random(3, 5, seed=3).requires_grad_()
    assert gradcheck(lambda s: click_loss(s, WEIGHTS, 3, mask), (scores,))


def test_an_empty_slot_adds_nothing_and_stays_finite() -> None:
    scores = torch.zeros(2, 3, requires_grad=True)
    mask = torch.tensor([[True, True, True], [False, False, False]])
    loss = click_loss(scores, torch.tensor([1.0, 0.0]), 1, mask)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert float(loss.detach()) == pytest.approx(np.log(3))
    assert torch.isfinite(gradient).all()
    assert gradient[1].abs().max() == 0


def test_parts_of_a_batch_add_up() -> None:
    scores, weights = random(8, 5, seed=4), torch.ones(8)
    mask = random(8, 5, seed=5) > -0.5
    mask[:, 0] = True
    assert_parts_add_up(lambda part: click_loss(scores[part], weights[part], 8, mask[part]), 8)


@pytest.mark.parametrize("mask", [None, torch.tensor([[True, True, False]])])
@pytest.mark.parametrize("low", [torch.float32, torch.bfloat16])
def test_extreme_scores_stay_finite(mask: torch.Tensor | None, low: torch.dtype) -> None:
    scores = torch.tensor([[-1e4, 1e4, -1e4]], dtype=low, requires_grad=True)
    loss = click_loss(scores, torch.ones(1), 1, mask)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert float(loss.detach()) == pytest.approx(2e4, rel=1e-2)
    assert torch.isfinite(gradient).all()
