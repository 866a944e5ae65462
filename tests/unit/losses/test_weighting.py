import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from tnr_dist.losses.common import Omega, teacher_cross_entropy, teacher_weights
from tnr_dist.util.errors import InputError

from .reference import cross_entropy, one_hot, random

B, M, C = 4, 3, 5


def mask() -> torch.Tensor:
    kept = random(B, C, seed=9) > -0.3
    kept[:, 0] = True
    assert not kept.all()
    return kept


@pytest.mark.parametrize("masked", [False, True])
def test_cross_entropy_of_each_teacher(masked: bool) -> None:
    logits, kept = random(B, M, C, seed=1, scale=2), mask() if masked else torch.ones(B, C, dtype=torch.bool)
    ce = teacher_cross_entropy(logits, kept if masked else None)
    assert ce.shape == (B, M)
    for b in range(B):
        for i in range(M):
            scores = logits[b, i][kept[b]].numpy()
            assert float(ce[b, i]) == pytest.approx(cross_entropy(one_hot(len(scores)), scores), rel=1e-13)


@pytest.mark.parametrize("omega", [1.0, 0.3, 4.0])
def test_weights_equal_the_equation(omega: float) -> None:
    ce = random(B, M, seed=2).abs()
    weights = teacher_weights(ce, torch.tensor([omega], dtype=torch.float64))
    for b in range(B):
        exponentials = [np.exp(-float(ce[b, i]) * omega) for i in range(M)]
        np.testing.assert_allclose(weights[b].numpy(), np.array(exponentials) / sum(exponentials), rtol=1e-13)
    assert torch.equal(weights.argmax(dim=1), ce.argmin(dim=1)), "the best teacher counts most"


def test_gradients() -> None:
    logits = random(B, M, C, seed=3).requires_grad_()
    omega = torch.tensor([1.3], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, o: teacher_weights(teacher_cross_entropy(x, mask()), o), (logits, omega))


def test_one_teacher_has_weight_one() -> None:
    assert teacher_weights(random(B, 1, seed=4), 2.0).tolist() == [[1.0]] * B


def test_extreme_logits_stay_finite() -> None:
    logits = torch.tensor([[[1e4, -1e4], [-1e4, 1e4]], [[-1e4, 1e4], [-1e4, 1e4]]], requires_grad=True)
    omega = torch.tensor([5.0], requires_grad=True)
    weights = teacher_weights(teacher_cross_entropy(logits), omega)
    assert weights.tolist() == [[1.0, 0.0], [0.5, 0.5]]
    for gradient in torch.autograd.grad(weights.square().sum(), (logits, omega)):
        assert torch.isfinite(gradient).all()


def test_an_empty_row_stays_finite() -> None:
    weights = teacher_weights(teacher_cross_entropy(torch.zeros(1, M, C), torch.zeros(1, C, dtype=torch.bool)), 1.0)
    torch.testing.assert_close(weights, torch.full((1, M), 1 / M))


def test_bfloat16_logits_give_float32_weights() -> None:
    assert teacher_weights(teacher_cross_entropy(random(B, M, C, seed=5).bfloat16()), 1.0).dtype == torch.float32


@pytest.mark.parametrize("initial", [1e-4, 0.5, 1.0, 3.0, 200.0])
def test_omega_starts_at_its_initial_value(initial: float) -> None:
    omega = Omega(initial)()
    assert omega.shape == (1,)
    assert float(omega.detach()) == pytest.approx(initial, rel=1e-6)


def test_omega_defaults_to_one_and_learns() -> None:
    omega = Omega()
    assert float(omega().detach()) == pytest.approx(1.0, abs=1e-6)
    assert [p.shape for p in omega.parameters() if p.requires_grad] == [(1,)]
    omega().sum().backward()
    assert omega.raw.grad is not None and float(omega.raw.grad) > 0


def test_omega_stays_positive_under_any_step() -> None:
    omega = Omega()
    optimizer = torch.optim.SGD(omega.parameters(), lr=5.0)
    for _ in range(10):
        optimizer.zero_grad()
        omega().sum().backward()
        optimizer.step()
    assert 0 < float(omega().detach()) < 0.1
    assert float(omega.raw.detach()) < 0, "the raw parameter crossed 0 while omega did not"


def test_a_free_omega_is_its_parameter_and_may_become_negative() -> None:
    omega = Omega(1.5, form="free")
    assert float(omega().detach()) == float(omega.raw.detach()) == 1.5
    optimizer = torch.optim.SGD(omega.parameters(), lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        omega().sum().backward()
        assert float(omega.raw.grad) == 1.0
        optimizer.step()
    assert float(omega().detach()) == -0.5
    weights = teacher_weights(torch.tensor([[0.1, 2.0]]), omega()).detach()
    assert weights[0, 1] > weights[0, 0], "the worse teacher counts more"


def test_a_fixed_omega_does_not_learn_and_is_saved_alike() -> None:
    fixed = Omega(fixed=True)
    assert not any(p.requires_grad for p in fixed.parameters())
    assert not fixed().requires_grad
    assert fixed.state_dict().keys() == Omega().state_dict().keys() == Omega(form="free").state_dict().keys()


@pytest.mark.parametrize("initial", [0.0, -1.0, float("nan"), float("inf")])
def test_omega_refuses_what_is_not_positive(initial: float) -> None:
    with pytest.raises(InputError, match="positive"):
        Omega(initial)
