from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from tnr_dist.losses.common import click_loss
from tnr_dist.losses.tinybert import (
    attention_loss,
    joint_loss,
    last_layers,
    mean_by_text,
    prediction_loss,
    state_loss,
    uniform_mapping,
)

from .reference import assert_parts_add_up, cross_entropy, one_hot, random, softmax

LENGTHS = [3, 1, 4]
T, NARROW, WIDE, HEADS = sum(LENGTHS), 3, 5, 2
TEXTS = torch.repeat_interleave(torch.arange(3), torch.tensor(LENGTHS))
SQUARES = [length**2 for length in LENGTHS]
PAIRS = torch.repeat_interleave(torch.arange(3), torch.tensor(SQUARES))


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (4, 12, [3, 6, 9, 12]),
        (2, 12, [6, 12]),
        (1, 12, [12]),
        (4, 6, [1, 3, 4, 6]),
        (2, 3, [1, 3]),
        (3, 3, [1, 2, 3]),
    ],
)
def test_mapping_is_uniform(student: int, teacher: int, expected: list[int]) -> None:
    assert uniform_mapping(student, teacher) == expected


@pytest.mark.parametrize(
    ("student", "teacher", "expected"), [(4, 12, [9, 10, 11, 12]), (2, 12, [11, 12]), (1, 12, [12]), (3, 3, [1, 2, 3])]
)
def test_last_layers_stand_against_the_last(student: int, teacher: int, expected: list[int]) -> None:
    assert last_layers(student, teacher) == expected


@pytest.mark.parametrize("mapping", [uniform_mapping, last_layers])
def test_a_student_deeper_than_its_teacher_is_refused(mapping: Callable[[int, int], list[int]]) -> None:
    with pytest.raises(ValueError, match="4 layers of a student cannot learn from 3"):
        mapping(4, 3)


def test_mean_by_text() -> None:
    values = random(T, seed=1)
    parts = np.split(values.numpy(), np.cumsum(LENGTHS)[:-1])
    found = mean_by_text(values, TEXTS, torch.tensor(LENGTHS))
    np.testing.assert_allclose(found, [part.mean() for part in parts], rtol=1e-14)


@pytest.mark.parametrize("projected", [False, True])
def test_state_loss_equals_the_equation(projected: bool) -> None:
    width = NARROW if projected else WIDE
    student, teacher = random(T, width, seed=1), random(T, WIDE, seed=2)
    projection = random(NARROW, WIDE, seed=3) if projected else None
    matrix = projection.numpy() if projection is not None else np.eye(WIDE)
    expected, start = [], 0
    for length in LENGTHS:
        total = 0.0
        for t in range(start, start + length):
            for d in range(WIDE):
                mapped = sum(float(student[t, k]) * matrix[k, d] for k in range(width))
                total += (mapped - float(teacher[t, d])) ** 2
        expected.append(total / (length * WIDE))
        start += length
    found = state_loss(student, teacher, TEXTS, torch.tensor(LENGTHS), projection)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_attention_loss_equals_the_equation() -> None:
    student, teacher = random(sum(SQUARES), HEADS, seed=1), random(sum(SQUARES), HEADS, seed=2)
    expected, start = [], 0
    for length in LENGTHS:
        loss = 0.0
        for head in range(HEADS):
            matrices = [x[start : start + length**2, head].numpy().reshape(length, length) for x in (student, teacher)]
            loss += sum((matrices[0][i, j] - matrices[1][i, j]) ** 2 for i in range(length) for j in range(length)) / (
                length**2
            )
        expected.append(loss / HEADS)
        start += length**2
    found = attention_loss(student, teacher, PAIRS, torch.tensor(SQUARES))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_attention_scores_of_other_heads_are_refused() -> None:
    with pytest.raises(ValueError, match="attention scores"):
        attention_loss(random(26, 1, seed=1), random(26, 2, seed=2), PAIRS, torch.tensor(SQUARES))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_prediction_loss_equals_the_equation(temperature: float) -> None:
    teacher, student = random(4, 3, seed=1, scale=2), random(4, 3, seed=2, scale=2)
    weights = torch.tensor([1.0, 0.0, 1.0, 0.5], dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1]], dtype=torch.bool)
    expected = 0.0
    for b in range(4):
        keep = mask[b].numpy()
        soft = softmax(teacher[b].numpy()[keep] / temperature)
        expected += float(weights[b]) / 5 * cross_entropy(soft, student[b].numpy()[keep] / temperature)
    found = prediction_loss(teacher, student, temperature, weights, 5, mask)
    assert float(found) == pytest.approx(expected, rel=1e-12)
    assert_parts_add_up(
        lambda part: prediction_loss(teacher[part], student[part], temperature, weights[part], 5, mask[part]), 4
    )


def test_joint_loss_equals_the_equation() -> None:
    """Two samples of one title each: states, attention scores, soft labels and clicks of all by plain sums."""
    states, others = random(7, WIDE, seed=1), random(7, WIDE, seed=2)
    scores, labels = random(2, 3, seed=3, scale=2), random(2, 3, seed=4, scale=2)
    attention, theirs = random(9 + 16, HEADS, seed=5), random(9 + 16, HEADS, seed=6)
    weights, expected = torch.ones(2, dtype=torch.float64), 0.0
    for b, (rows, pairs) in enumerate(((slice(0, 3), slice(0, 9)), (slice(3, 7), slice(9, 25)))):
        parts = ((states[rows], others[rows]), (attention[pairs], theirs[pairs]))
        between = sum(np.mean([(x - y) ** 2 for x, y in zip(a.flatten(), b.flatten(), strict=True)]) for a, b in parts)
        ce = cross_entropy(softmax(labels[b].numpy()), scores[b].numpy())
        expected += (between + ce + 0.1 * cross_entropy(one_hot(3), scores[b].numpy())) / 2
    texts, lengths = torch.tensor([0] * 3 + [1] * 4), torch.tensor([3, 4])
    owners, pairs_of = torch.tensor([0] * 9 + [1] * 16), torch.tensor([9, 16])
    found = joint_loss(
        prediction_loss(labels, scores, 1.0, weights, 2),
        state_loss(states, others, texts, lengths).mean(),
        attention_loss(attention, theirs, owners, pairs_of).mean(),
        click_loss(scores, weights, 2),
        0.1,
    )
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_gradients() -> None:
    lengths, squares = torch.tensor(LENGTHS), torch.tensor(SQUARES)
    student, projection = random(T, NARROW, seed=1).requires_grad_(), random(NARROW, WIDE, seed=3).requires_grad_()
    teacher = random(T, WIDE, seed=2)
    assert gradcheck(lambda s, w: state_loss(s, teacher, TEXTS, lengths, w), (student, projection))
    scores, other = random(sum(SQUARES), HEADS, seed=4).requires_grad_(), random(sum(SQUARES), HEADS, seed=5)
    assert gradcheck(lambda s: attention_loss(s, other, PAIRS, squares), (scores,))
