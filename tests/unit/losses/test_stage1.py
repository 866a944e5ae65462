import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from tnr_dist.losses.matching import matching_loss
from tnr_dist.losses.stage1 import distillation_loss, embedding_loss, multi_teacher_stage1_loss, stage1_loss

from .reference import assert_parts_add_up, cross_entropy, one_hot, random, softmax

B, N1, D = 5, 4, 3
DT = 2  # size of the teachers' vectors, other than the student's so that a swap shows
WEIGHTS = torch.tensor([1.0, 1.0, 0.5, 0.0, 1.0], dtype=torch.float64)


def inputs() -> dict[str, torch.Tensor]:
    return {
        "teacher_scores": random(B, N1, seed=1, scale=2),
        "student_scores": random(B, N1, seed=2, scale=2),
        "teacher_titles": random(B, N1, D, seed=3),
        "student_titles": random(B, N1, D, seed=4),
        "teacher_bodies": random(B, D, seed=5),
        "student_bodies": random(B, D, seed=6),
    }


def expected_parts(x: dict[str, torch.Tensor], temperature: float, count: float) -> tuple[float, float, float]:
    a = {name: tensor.numpy() for name, tensor in x.items()}
    distill = embedding = target = 0.0
    for b in range(B):
        w = float(WEIGHTS[b]) / count
        soft = softmax(a["teacher_scores"][b] / temperature)
        distill += w * temperature**2 * cross_entropy(soft, a["student_scores"][b] / temperature)
        titles = sum(
            (a["teacher_titles"][b, n, d] - a["student_titles"][b, n, d]) ** 2 for n in range(N1) for d in range(D)
        )
        bodies = sum((a["teacher_bodies"][b, d] - a["student_bodies"][b, d]) ** 2 for d in range(D))
        embedding += w * (titles / (N1 * D) + bodies / D)
        target += w * cross_entropy(one_hot(N1), a["student_scores"][b])
    return distill, embedding, target


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_parts_and_total_equal_the_equations(temperature: float) -> None:
    x = inputs()
    distill, embedding, target = expected_parts(x, temperature, 6)
    loss = stage1_loss(**x, weights=WEIGHTS, count=6, beta1=0.7, temperature=temperature)
    assert float(loss.distill) == pytest.approx(distill, rel=1e-13)
    assert float(loss.embedding) == pytest.approx(embedding, rel=1e-13)
    assert float(loss.target) == pytest.approx(target, rel=1e-13)
    assert float(loss.total) == pytest.approx(distill + embedding + 0.7 * target, rel=1e-13)


def test_defaults_are_the_papers() -> None:
    loss = stage1_loss(**inputs(), weights=WEIGHTS, count=6)
    distill, embedding, target = expected_parts(inputs(), 1.0, 6)
    assert float(loss.total) == pytest.approx(distill + embedding + target, rel=1e-13)


def test_gradients_of_students_and_of_a_learning_teacher() -> None:
    x = inputs()
    names = list(x)
    tensors = tuple(tensor.requires_grad_() for tensor in x.values())

    def total(*values: torch.Tensor) -> torch.Tensor:
        arguments = dict(zip(names, values, strict=True))
        return stage1_loss(**arguments, weights=WEIGHTS, count=6, beta1=0.7, temperature=1.5).total

    assert gradcheck(total, tensors)
    for gradient in torch.autograd.grad(total(*tensors), tensors):
        assert gradient[3].abs().max() == 0, "a slot of weight 0 must not train anything"
        assert gradient[2].abs().max() > 0


def test_a_student_equal_to_its_teacher_has_no_distillation_gradient() -> None:
    x = inputs()
    student = x["teacher_scores"].clone().requires_grad_()
    loss = distillation_loss(x["teacher_scores"], student, 2.0, WEIGHTS, 5)
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.abs().max() < 1e-15
    same = embedding_loss(
        x["teacher_titles"], x["teacher_titles"], x["teacher_bodies"], x["teacher_bodies"], WEIGHTS, 5
    )
    assert float(same) == 0


def test_parts_of_a_batch_add_up() -> None:
    x = inputs()
    assert_parts_add_up(
        lambda part: stage1_loss(**{n: t[part] for n, t in x.items()}, weights=WEIGHTS[part], count=5).total, B
    )


def test_bfloat16_inputs_are_computed_in_float32() -> None:
    x = {name: tensor.bfloat16() for name, tensor in inputs().items()}
    loss = stage1_loss(**x, weights=WEIGHTS, count=5)
    exact = stage1_loss(**{name: tensor.double() for name, tensor in x.items()}, weights=WEIGHTS, count=5)
    for part, wanted in zip(loss, exact, strict=True):
        assert part.dtype == torch.float32
        assert float(part) == pytest.approx(float(wanted), rel=1e-6)


def test_extreme_scores_stay_finite() -> None:
    teacher = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]])
    student = torch.tensor([[-1e4, 1e4, 0.0], [1e4, -1e4, 0.0]], requires_grad=True)
    loss = distillation_loss(teacher, student, 1.0, torch.ones(2), 2)
    (gradient,) = torch.autograd.grad(loss, student)
    assert float(loss.detach()) == pytest.approx(np.mean([2e4, 1.5e4]))
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(matching_loss(student.detach(), torch.ones(2), 2))


M = 3


def several() -> dict[str, torch.Tensor]:
    x = inputs()
    return {
        "teacher_scores": random(B, M, N1, seed=11, scale=2),
        "student_scores": x["student_scores"],
        "teacher_titles": random(B, N1, M, DT, seed=12),
        "student_titles": x["student_titles"],
        "teacher_bodies": random(B, M, DT, seed=13),
        "student_bodies": x["student_bodies"],
        "weight": random(M, DT, D, seed=14),
        "bias": random(M, D, seed=15),
    }


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_several_teachers_are_weighted_on_each_sample(temperature: float) -> None:
    x = several()
    a = {name: tensor.numpy() for name, tensor in x.items()}
    distill = embedding = target = 0.0
    for b in range(B):
        share = float(WEIGHTS[b]) / 6
        teacher = softmax(np.array([-cross_entropy(one_hot(N1), a["teacher_scores"][b, m]) for m in range(M)]))
        blend = sum(teacher[m] * a["teacher_scores"][b, m] for m in range(M))
        soft = softmax(blend / temperature)
        distill += share * temperature**2 * cross_entropy(soft, a["student_scores"][b] / temperature)
        for m in range(M):
            projected = [a[f"teacher_{what}"] @ a["weight"][m] + a["bias"][m] for what in ("titles", "bodies")]
            titles = np.mean((projected[0][b, :, m] - a["student_titles"][b]) ** 2)
            bodies = np.mean((projected[1][b, m] - a["student_bodies"][b]) ** 2)
            embedding += share * teacher[m] * (titles + bodies)
        target += share * cross_entropy(one_hot(N1), a["student_scores"][b])
    loss = multi_teacher_stage1_loss(**x, weights=WEIGHTS, count=6, beta1=0.7, temperature=temperature)
    assert float(loss.distill) == pytest.approx(distill, rel=1e-13)
    assert float(loss.embedding) == pytest.approx(embedding, rel=1e-13)
    assert float(loss.target) == pytest.approx(target, rel=1e-13)
    assert float(loss.total) == pytest.approx(distill + embedding + 0.7 * target, rel=1e-13)


def test_one_of_several_teachers_is_the_papers_loss() -> None:
    """With one teacher, and the identity as its projection."""
    x = several()
    titles, bodies = random(B, N1, 1, D, seed=12), random(B, 1, D, seed=13)
    alone = {
        "teacher_scores": x["teacher_scores"][:, :1], "teacher_titles": titles, "teacher_bodies": bodies,
        "weight": torch.eye(D, dtype=torch.float64).unsqueeze(0), "bias": torch.zeros(1, D, dtype=torch.float64),
    }  # fmt: skip
    loss = multi_teacher_stage1_loss(**(x | alone), weights=WEIGHTS, count=6)
    paper = stage1_loss(
        teacher_scores=x["teacher_scores"][:, 0], student_scores=x["student_scores"], teacher_titles=titles[:, :, 0],
        student_titles=x["student_titles"], teacher_bodies=bodies[:, 0],
        student_bodies=x["student_bodies"], weights=WEIGHTS, count=6,
    )  # fmt: skip
    for one, other in zip(loss, paper, strict=True):
        assert float(one) == pytest.approx(float(other), rel=1e-13)


def test_several_teachers_in_parts_of_a_batch() -> None:
    x = several()

    def loss(part: slice) -> torch.Tensor:
        cut = {name: value if name in ("weight", "bias") else value[part] for name, value in x.items()}
        return multi_teacher_stage1_loss(**cut, weights=WEIGHTS[part], count=6).total

    assert_parts_add_up(loss, B)
