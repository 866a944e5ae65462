import pytest
import torch
from torch.autograd import gradcheck

from tnr_dist.losses.mlm import mlm_loss

from .reference import assert_parts_add_up, cross_entropy, random

P, V = 7, 11
LABELS = torch.tensor([3, 0, 10, 5, 5, 1, 7])
WEIGHTS = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.5, 1.0, 1.0], dtype=torch.float64)


def test_equals_the_equation() -> None:
    logits = random(P, V, seed=1, scale=2)
    expected = 0.0
    for p in range(P):
        label = torch.nn.functional.one_hot(LABELS[p], V).numpy()
        expected += float(WEIGHTS[p]) * cross_entropy(label, logits[p].numpy()) / 9
    assert float(mlm_loss(logits, LABELS, WEIGHTS, 9)) == pytest.approx(expected, rel=1e-13)


def test_shares_add_up_and_gradients_are_right() -> None:
    logits = random(P, V, seed=2).requires_grad_()
    assert_parts_add_up(lambda part: mlm_loss(logits[part], LABELS[part], WEIGHTS[part], 9), P)
    assert gradcheck(lambda x: mlm_loss(x, LABELS, WEIGHTS, 9), (logits,))


def test_a_rank_or_a_batch_without_masked_tokens_has_no_loss() -> None:
    logits = torch.zeros(0, V, requires_grad=True)
    for count in (9, 0):
        loss = mlm_loss(logits, LABELS[:0], WEIGHTS[:0], count)
        loss.backward()
        assert loss.item() == 0


def test_is_computed_in_float32() -> None:
    logits = random(P, V, seed=3)
    loss = mlm_loss(logits.bfloat16(), LABELS, WEIGHTS, 9)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(mlm_loss(logits.bfloat16().double(), LABELS, WEIGHTS, 9)), rel=1e-6)
