import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from tnr_dist.bench.per_slot import news_embedding_loss_per_slot, project, user_embedding_loss_of_projected
from tnr_dist.losses.common import Omega
from tnr_dist.losses.stage2 import (
    Imitation,
    distillation_loss,
    news_coefficients,
    news_embedding_loss,
    stage2_loss,
    user_embedding_loss,
)

from .reference import assert_parts_add_up, cross_entropy, gradients, one_hot, random, softmax

B, M, C, S, U, D = 5, 3, 4, 7, 6, 3
DT = 2  # size of the teachers' vectors, other than the student's so that a swap shows
COUNT = 6.5
# The last sample is an empty slot: weight 0, no candidate, no news.
WEIGHTS = torch.tensor([1.0, 1.0, 0.5, 1.0, 0.0], dtype=torch.float64)
CANDIDATES = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
SLOTS = torch.tensor(
    [
        [0, 1, 2, 3, 4, 0, 0],  # a news twice more in its own sample
        [5, 5, 1, -1, -1, 2, -1],
        [-1, -1, -1, -1, -1, -1, 3],
        [4, 3, 2, 1, 0, 1, 2],
        [-1] * 7,
    ]
)
SLOT_MASK = SLOTS >= 0


def inputs() -> dict[str, torch.Tensor]:
    """Everything a stage-2 step has, as float64 leaves."""
    return {
        "teacher_logits": random(B, M, C, seed=1, scale=2),
        "raw_omega": torch.tensor([0.9], dtype=torch.float64),
        "student_scores": random(B, C, seed=2, scale=2),
        "teacher_news": random(U, M, DT, seed=3),
        "news_weight": random(M, DT, D, seed=4),
        "news_bias": random(M, D, seed=5),
        "student_news": random(U, D, seed=6),
        "teacher_users": random(B, M, DT, seed=7),
        "user_weight": random(M, DT, D, seed=8),
        "user_bias": random(M, D, seed=9),
        "student_users": random(B, D, seed=10),
    }


def imitated_news(x: dict[str, torch.Tensor]) -> Imitation:
    return Imitation(x["teacher_news"], x["news_weight"], x["news_bias"], x["student_news"])


def imitated_users(x: dict[str, torch.Tensor], part: slice = slice(None)) -> Imitation:
    return Imitation(x["teacher_users"][part], x["user_weight"], x["user_bias"], x["student_users"][part])


def whole_loss(x: dict[str, torch.Tensor], part: slice = slice(None), **options):
    given = {
        "news": imitated_news(x),
        "slots": SLOTS[part],
        "slot_mask": SLOT_MASK[part],
        "users": imitated_users(x, part),
    }
    return stage2_loss(
        teacher_logits=x["teacher_logits"][part],
        omega=torch.nn.functional.softplus(x["raw_omega"]),
        student_scores=x["student_scores"][part],
        weights=WEIGHTS[part],
        count=COUNT,
        candidate_mask=CANDIDATES[part],
        **(given | options),
    )


def expected_parts(x: dict[str, torch.Tensor], temperature: float) -> dict[str, float]:
    """The paper's equations, sample by sample, teacher by teacher, slot by slot."""
    a = {name: tensor.detach().numpy() for name, tensor in x.items()}
    omega = np.log1p(np.exp(a["raw_omega"][0]))
    parts = dict.fromkeys(("distill", "emb_news", "emb_user", "target", "teacher_entropy"), 0.0)
    mean_weights = np.zeros(M)
    for b in range(B):
        share = float(WEIGHTS[b]) / COUNT
        if share == 0:
            continue
        kept = CANDIDATES[b].numpy()
        label = one_hot(int(kept.sum()))
        ce = [cross_entropy(label, a["teacher_logits"][b, i][kept]) for i in range(M)]
        exponentials = [np.exp(-c * omega) for c in ce]
        w = np.array([e / sum(exponentials) for e in exponentials])
        blend = sum(w[i] * a["teacher_logits"][b, i][kept] for i in range(M))
        student = a["student_scores"][b][kept]
        soft = softmax(blend / temperature)
        parts["distill"] += share * temperature**2 * cross_entropy(soft, student / temperature)
        parts["target"] += share * cross_entropy(label, student)
        for i in range(M):
            user = a["teacher_users"][b, i] @ a["user_weight"][i] + a["user_bias"][i]
            parts["emb_user"] += share * w[i] * np.mean((user - a["student_users"][b]) ** 2)
            errors = []
            for n in SLOTS[b].tolist():
                if n < 0:
                    continue
                news = a["teacher_news"][n, i] @ a["news_weight"][i] + a["news_bias"][i]
                errors.append(np.mean((news - a["student_news"][n]) ** 2))
            parts["emb_news"] += share * w[i] * np.mean(errors)
        parts["teacher_entropy"] += share * -sum(p * np.log(p) for p in w)
        mean_weights += share * w
    return {**parts, "teacher_weights": mean_weights}


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_parts_and_total_equal_the_equations(temperature: float) -> None:
    x = inputs()
    expected = expected_parts(x, temperature)
    loss = whole_loss(x, beta2=0.3, temperature=temperature)
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(loss, name).numpy(), value, rtol=1e-12, err_msg=name)
    total = expected["distill"] + expected["emb_news"] + expected["emb_user"] + 0.3 * expected["target"]
    assert float(loss.total) == pytest.approx(total, rel=1e-12)


def test_defaults_are_the_papers() -> None:
    expected = expected_parts(inputs(), 1.0)
    total = expected["distill"] + expected["emb_news"] + expected["emb_user"] + 0.1 * expected["target"]
    assert float(whole_loss(inputs()).total) == pytest.approx(total, rel=1e-12)


def test_gradients_of_everything_that_learns() -> None:
    x = inputs()
    names = [n for n in x if n not in ("teacher_logits", "teacher_news", "teacher_users")]
    leaves = tuple(x[name].requires_grad_() for name in names)

    def total(*values: torch.Tensor) -> torch.Tensor:
        return whole_loss({**x, **dict(zip(names, values, strict=True))}, beta2=0.3, temperature=1.5).total

    assert gradcheck(total, leaves)
    by_name = dict(zip(names, gradients(total(*leaves), list(leaves)), strict=True))
    for name, gradient in by_name.items():
        assert gradient.abs().max() > 0, f"nothing flows to {name}"
    assert by_name["student_scores"][~CANDIDATES].abs().max() == 0
    assert by_name["student_users"][4].abs().max() == 0, "a slot of weight 0 must not train anything"


@pytest.mark.parametrize("part", ["distill", "emb_news", "emb_user"])
def test_omega_learns_from_each_part(part: str) -> None:
    x = inputs()
    x["raw_omega"].requires_grad_()
    (gradient,) = gradients(getattr(whole_loss(x), part), [x["raw_omega"]])
    assert gradient.abs().item() > 1e-6


def test_both_forms_of_the_news_loss_are_equal_with_all_gradients() -> None:
    x = inputs()
    w = torch.softmax(random(B, M, seed=11), dim=1)
    leaves = [t.requires_grad_() for t in (w, x["news_weight"], x["news_bias"], x["student_news"])]
    projected = project(x["news_weight"], x["news_bias"], x["teacher_news"])
    rows = SLOTS.clamp(min=0)
    per_news = news_embedding_loss(imitated_news(x), w, SLOTS, SLOT_MASK, WEIGHTS, COUNT)
    per_slot = news_embedding_loss_per_slot(projected[rows], x["student_news"][rows], w, SLOT_MASK, WEIGHTS, COUNT)
    torch.testing.assert_close(per_news, per_slot, rtol=1e-12, atol=1e-12)
    for one, other in zip(gradients(per_news, leaves), gradients(per_slot, leaves), strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_per_slot_news_loss_gradcheck() -> None:
    x = inputs()
    rows = SLOTS.clamp(min=0)
    w = torch.softmax(random(B, M, seed=11), dim=1)
    leaves = tuple(t.requires_grad_() for t in (x["news_weight"], x["news_bias"], x["student_news"], w))

    def loss(weight: torch.Tensor, bias: torch.Tensor, student: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        projected = project(weight, bias, x["teacher_news"])[rows]
        return news_embedding_loss_per_slot(projected, student[rows], w, SLOT_MASK, WEIGHTS, COUNT)

    assert gradcheck(loss, leaves)


def test_coefficients_by_hand() -> None:
    w = torch.tensor([[0.75, 0.25], [0.5, 0.5]], dtype=torch.float64)
    slots = torch.tensor([[0, 2, 0], [2, 9, 9]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    c = news_coefficients(w, slots, mask, torch.tensor([1.0, 0.5]), count=2, distinct=3, dimension=4)
    first, second = 1 / (3 * 4 * 2), 0.5 / (1 * 4 * 2)
    expected = [
        [2 * 0.75 * first, 2 * 0.25 * first],
        [0, 0],
        [0.75 * first + 0.5 * second, 0.25 * first + 0.5 * second],
    ]
    np.testing.assert_allclose(c.numpy(), expected, rtol=1e-14)


def test_project_is_one_dense_layer_per_teacher() -> None:
    x = inputs()
    projected = project(x["news_weight"], x["news_bias"], x["teacher_news"])
    assert projected.shape == (U, M, D)
    for i in range(M):
        layer = torch.nn.Linear(DT, D).double()
        layer.weight.data, layer.bias.data = x["news_weight"][i].T, x["news_bias"][i]
        torch.testing.assert_close(projected[:, i], layer(x["teacher_news"][:, i]).detach(), rtol=1e-13, atol=1e-14)
    table = x["teacher_news"].transpose(0, 1).contiguous()
    torch.testing.assert_close(project(x["news_weight"], x["news_bias"], table.transpose(0, 1)), projected)


def test_parts_of_a_batch_add_up() -> None:
    x = inputs()
    for name in ("total", "distill", "emb_news", "emb_user", "target", "teacher_weights", "teacher_entropy"):
        assert_parts_add_up(lambda part, name=name: getattr(whole_loss(x, part), name), B)


@pytest.mark.parametrize("off", ["distill", "news", "users", "target"])
def test_a_part_that_is_off_is_zero_and_the_rest_is_unchanged(off: str) -> None:
    x = inputs()
    switch = {off: None} if off in ("news", "users") else {f"use_{off}": False}
    full, less = whole_loss(x), whole_loss(x, **switch)
    name = {"news": "emb_news", "users": "emb_user"}.get(off, off)
    assert float(getattr(less, name)) == 0
    removed = float(getattr(full, name)) * (0.1 if off == "target" else 1.0)
    assert removed > 0
    assert float(less.total) == pytest.approx(float(full.total) - removed, rel=1e-12)


def test_a_part_that_is_off_needs_no_arguments_and_one_that_is_on_says_what_it_lacks() -> None:
    x = inputs()
    basic = {
        "teacher_logits": x["teacher_logits"],
        "omega": 1.0,
        "student_scores": x["student_scores"],
        "weights": WEIGHTS,
        "count": COUNT,
    }
    assert torch.isfinite(stage2_loss(**basic).total)
    with pytest.raises(TypeError, match="slot_mask"):
        stage2_loss(**basic, news=imitated_news(x))


def test_infinite_logits_in_empty_slots_do_not_matter() -> None:
    x = inputs()
    wanted = whole_loss(x)
    x["teacher_logits"] = x["teacher_logits"].masked_fill(~CANDIDATES.unsqueeze(1), -torch.inf)
    x["raw_omega"].requires_grad_()
    loss = whole_loss(x)
    torch.testing.assert_close(loss.total.detach(), wanted.total, rtol=0, atol=0)
    assert torch.isfinite(gradients(loss.total, [x["raw_omega"]])[0]).all()


def test_one_teacher_with_its_own_student_scores_has_no_distillation_gradient() -> None:
    logits = random(B, 1, C, seed=12)
    student = logits[:, 0].clone().requires_grad_()
    loss = distillation_loss(logits, torch.ones(B, 1, dtype=torch.float64), student, 2.0, WEIGHTS, COUNT)
    assert gradients(loss, [student])[0].abs().max() < 1e-15


def test_both_forms_of_the_user_loss_are_equal_with_all_gradients() -> None:
    x = inputs()
    w = torch.softmax(random(B, M, seed=11), dim=1)
    leaves = [t.requires_grad_() for t in (w, x["user_weight"], x["user_bias"], x["student_users"])]
    projected = project(x["user_weight"], x["user_bias"], x["teacher_users"])
    ours = user_embedding_loss(imitated_users(x), w, WEIGHTS, COUNT)
    wanted = user_embedding_loss_of_projected(projected, x["student_users"], w, WEIGHTS, COUNT)
    torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=1e-12)
    for one, other in zip(gradients(ours, leaves), gradients(wanted, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_user_loss_of_bfloat16_vectors_is_summed_in_float32() -> None:
    x = {name: value.float() for name, value in inputs().items()}
    users = imitated_users(x)
    rounded = Imitation(users.teachers.bfloat16(), users.weight.bfloat16(), users.bias, users.student.bfloat16())
    w = torch.full((B, M), 1 / M)
    loss = user_embedding_loss(rounded, w, WEIGHTS.float(), COUNT)
    exact = user_embedding_loss(Imitation(*(part.double() for part in rounded)), w.double(), WEIGHTS, COUNT)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(exact), rel=2**-7)


def test_extreme_logits_stay_finite() -> None:
    x = {name: tensor.float() for name, tensor in inputs().items()}
    sign = torch.where(torch.arange(B * M * C).reshape(B, M, C) % 3 == 0, 1e4, -1e4)
    x["teacher_logits"] = sign
    x["student_scores"] = sign.flip(0)[:, 0].clone().requires_grad_()
    x["raw_omega"].requires_grad_()
    loss = whole_loss(x)
    assert all(torch.isfinite(part).all() for part in loss)
    for gradient in gradients(loss.total, [x["student_scores"], x["raw_omega"]]):
        assert torch.isfinite(gradient).all()


def test_omega_module_goes_in_as_it_is() -> None:
    x = inputs()
    omega = Omega()
    arguments = {"student_scores": x["student_scores"], "weights": WEIGHTS, "count": COUNT}
    loss = stage2_loss(teacher_logits=x["teacher_logits"], omega=omega(), **arguments)
    plain = stage2_loss(teacher_logits=x["teacher_logits"], omega=1.0, **arguments)
    assert float(loss.total.detach()) == pytest.approx(float(plain.total), rel=1e-6)
    loss.total.backward()
    assert omega.raw.grad is not None and omega.raw.grad.abs().item() > 0
