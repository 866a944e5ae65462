from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tnr_dist.kernels import dispatch
from tnr_dist.losses.stage2 import distillation
from tnr_dist.util.errors import InputError


def sample(
    device: torch.device, batch: int, teachers: int, candidates: int, scale: float = 2.0, masked: bool = True
) -> dict[str, Any]:
    g = torch.Generator().manual_seed(batch + candidates)
    mask = torch.rand(batch, candidates, generator=g) < 0.7
    mask[:, 0] = True
    if batch > 3:
        mask[1] = False  # a slot without a sample
        mask[2, 0] = False
    weights = torch.rand(batch, generator=g) + 0.5
    if batch > 1:
        weights[1] = 0.0
    inputs: dict[str, Any] = {
        "teacher_logits": scale * torch.randn(batch, teachers, candidates, generator=g),
        "omega": torch.tensor([1.7]),
        "student_scores": scale * torch.randn(batch, candidates, generator=g),
        "weights": weights,
        "candidate_mask": mask if masked else None,
    }
    inputs = {key: value if value is None else value.to(device) for key, value in inputs.items()}
    return {**inputs, "count": batch + 1.5, "temperature": 1.3}


def everything(form: Any, given: dict[str, Any], dtype: torch.dtype, **options: Any) -> list[Tensor]:
    """Outputs, then the gradients to the student's scores and to omega, of a sum with unequal factors."""
    inputs = {k: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v for k, v in given.items()}
    omega = inputs["omega"] = given["omega"].detach().to(torch.promote_types(dtype, torch.float32)).requires_grad_()
    student = inputs["student_scores"] = inputs["student_scores"].detach().requires_grad_()
    got = form(**inputs, **options)
    factors = torch.randn(got.teacher_weights.shape, generator=torch.Generator().manual_seed(1)).to(omega)
    (2.5 * got.distill - 0.7 * got.target + (factors * got.teacher_weights).sum()).backward()
    return [*got, student.grad, omega.grad]


def close(got: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    for name, a, b in zip(("distill", "target", "weights", "student", "omega"), got, wanted, strict=True):
        torch.testing.assert_close(
            a.double(), b.double(), rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(
    ("batch", "teachers", "candidates"), [(1, 1, 2), (37, 4, 5), (70, 3, 5), (9, 8, 33), (5, 4, 64)]
)
@pytest.mark.parametrize("masked", [True, False])
def test_equals_the_losses_in_float64(
    device: torch.device, batch: int, teachers: int, candidates: int, masked: bool
) -> None:
    inputs = sample(device, batch, teachers, candidates, masked=masked)
    got = everything(distillation, inputs, torch.float32, kernels="triton")
    close(got, everything(distillation, inputs, torch.float64, kernels="torch"), 3e-6)


def test_a_free_omega_may_be_negative(device: torch.device) -> None:
    """`stage2.omega_form=free`: the worst teacher then counts most."""
    inputs = sample(device, 37, 4, 5, scale=8.0)
    inputs["omega"] = inputs["omega"] - 3.1
    got = everything(distillation, inputs, torch.float32, kernels="triton")
    close(got, everything(distillation, inputs, torch.float64, kernels="torch"), 5e-6)


def test_bfloat16(device: torch.device) -> None:
    inputs = sample(device, 37, 4, 5)
    inputs = {
        k: v.bfloat16() if isinstance(v, Tensor) and v.is_floating_point() and k != "omega" else v
        for k, v in inputs.items()
    }
    got = everything(distillation, inputs, torch.bfloat16, kernels="triton")
    wanted = everything(distillation, inputs, torch.float64, kernels="torch")
    assert got[3].dtype == torch.bfloat16
    for a, b, tolerance in zip(got, wanted, (1e-5, 1e-5, 1e-5, 2**-7, 1e-5), strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=tolerance, atol=tolerance)


def test_extreme_logits_and_infinities_in_empty_slots(device: torch.device) -> None:
    inputs = sample(device, 12, 4, 5, scale=1e4)
    inputs["teacher_logits"].masked_fill_(~inputs["candidate_mask"].unsqueeze(1), torch.inf)
    inputs["student_scores"].masked_fill_(~inputs["candidate_mask"], -torch.inf)
    got = everything(distillation, inputs, torch.float32, kernels="triton")
    wanted = everything(distillation, inputs, torch.float32, kernels="torch")
    assert all(x.isfinite().all() for x in got)
    close(got, wanted, 1e-5)


def test_strided_logits_and_a_fixed_omega(device: torch.device) -> None:
    inputs = sample(device, 7, 4, 5)
    inputs["teacher_logits"] = inputs["teacher_logits"].transpose(1, 2).contiguous().transpose(1, 2)  # as cached
    got = distillation(**inputs | {"omega": 0.8}, kernels="triton")
    wanted = distillation(**inputs | {"omega": 0.8}, kernels="torch")
    torch.testing.assert_close(got, wanted)


def test_no_sample(device: torch.device) -> None:
    got = everything(distillation, sample(device, 0, 4, 5), torch.float32, kernels="triton")
    assert [float(x.detach().sum()) for x in got] == [0.0] * 5


def test_registered_as_an_operator(device: torch.device) -> None:
    inputs = sample(device, 6, 4, 5)
    arguments = (
        inputs["teacher_logits"], inputs["omega"].requires_grad_(), inputs["student_scores"].requires_grad_(),
        inputs["weights"], inputs["candidate_mask"], 0.25, 1.0,
    )  # fmt: skip
    torch.library.opcheck(torch.ops.tnr_dist.distillation.default, arguments)


def test_choice_of_the_form(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(2, device=device)
    assert not dispatch.use_triton("torch", x, "distillation")
    assert dispatch.use_triton("triton", x, "distillation")
    monkeypatch.setitem(dispatch.AUTO, "distillation", True)
    assert dispatch.use_triton("auto", x, "distillation") == x.is_cuda
    assert not dispatch.use_triton("auto", x, "unheard of")
    with pytest.raises(InputError, match="kernels='cuda'"):
        dispatch.use_triton("cuda", x, "distillation")
    with pytest.raises(InputError, match="float64"):
        dispatch.use_triton("triton", x.double(), "distillation")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(InputError, match="CUDA device"):
        dispatch.use_triton("triton", x.cpu(), "distillation")
    monkeypatch.setattr(dispatch, "_has_triton", lambda: False)
    with pytest.raises(InputError, match="not installed"):
        dispatch.use_triton("triton", x, "distillation")
