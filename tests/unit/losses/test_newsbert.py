from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tnr_dist.losses.newsbert import (
    blocks,
    damp_gradient,
    distillation_loss,
    link_gradient,
    mean_over_slots,
    pooled_loss,
    vector_loss,
)

from .reference import assert_parts_add_up, cross_entropy, random, softmax

WEIGHTS = torch.tensor([1.0, 0.0, 1.0, 0.5], dtype=torch.float64)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (4, 12, [range(0, 3), range(3, 6), range(6, 9), range(9, 12)]),
        (1, 2, [range(0, 2)]),
        (2, 2, [range(0, 1), range(1, 2)]),
        (2, 3, [range(0, 1), range(1, 3)]),
    ],
)
def test_blocks_cover_the_teacher(student: int, teacher: int, expected: list[range]) -> None:
    assert blocks(student, teacher) == expected


def test_a_student_deeper_than_its_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="3 layers of a student cannot learn from 2"):
        blocks(3, 2)


@pytest.mark.parametrize("loss", [pooled_loss, vector_loss])
def test_the_mse_of_vectors_equals_the_equation(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    student, teacher = random(3, 4, seed=1), random(3, 4, seed=2)
    expected = [sum(float(student[u, d] - teacher[u, d]) ** 2 for d in range(4)) / 4 for u in range(3)]
    np.testing.assert_allclose(loss(student, teacher), expected, rtol=1e-13)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distillation_loss_equals_the_equation(temperature: float) -> None:
    teacher, student = random(4, 3, seed=1, scale=2), random(4, 3, seed=2, scale=2)
    expected = 0.0
    for b in range(4):
        soft = softmax(teacher[b].numpy() / temperature)
        expected += float(WEIGHTS[b]) / 5 * cross_entropy(soft, student[b].numpy() / temperature)
    found = distillation_loss(teacher, student, temperature, WEIGHTS, 5)
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_mean_over_slots_equals_the_plain_sum() -> None:
    per_text = random(6, seed=1)
    slots = torch.tensor([[0, 1, 2, 0], [3, 3, 3, 4], [5, 0, 1, 1], [2, 2, 2, 2]])
    mask = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]], dtype=torch.bool)
    expected = 0.0
    for b in range(4):
        kept = [float(per_text[slots[b, s]]) for s in range(4) if mask[b, s]]
        expected += float(WEIGHTS[b]) * sum(kept) / len(kept) / 5
    found = mean_over_slots(per_text, slots, mask, WEIGHTS, 5)
    assert float(found) == pytest.approx(expected, rel=1e-12)
    assert_parts_add_up(lambda part: mean_over_slots(per_text, slots[part], mask[part], WEIGHTS[part], 5), 4)


def test_the_students_gradient_carries_the_mean_of_its_block() -> None:
    """g_s <- beta * mean_j g_t,j + (1 - beta) * g_s, by hand; values and the teachers' own gradients are untouched."""
    beta, x = 0.3, random(2, 4, seed=0)
    own = nn.Parameter(random(4, 4, seed=1))
    teachers = [nn.Parameter(random(4, 4, seed=2 + j)) for j in range(3)]

    def loss(student: torch.Tensor, layers: list[torch.Tensor]) -> torch.Tensor:
        y = x
        for layer in layers:
            y = torch.tanh(y @ layer)
        return y.square().sum() + torch.tanh(x @ student).pow(3).sum()

    plain = torch.autograd.grad(loss(own, list(teachers)), [own, *teachers])
    mixed_own, mixed = damp_gradient(own, beta), [link_gradient(t, own, beta / 3) for t in teachers]
    assert torch.equal(mixed_own, own) and all(torch.equal(a, b) for a, b in zip(mixed, teachers, strict=True))
    total = loss(mixed_own, mixed)
    assert torch.equal(total, loss(own, list(teachers)))
    found = torch.autograd.grad(total, [own, *teachers])
    torch.testing.assert_close(found[0], beta * sum(plain[1:]) / 3 + (1 - beta) * plain[0], rtol=1e-12, atol=1e-14)
    for a, b in zip(found[1:], plain[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-14, atol=0)
