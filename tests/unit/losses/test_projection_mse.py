from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from tnr_dist.bench.per_slot import news_embedding_loss_per_slot, project, user_embedding_loss_of_projected
from tnr_dist.losses.stage2 import news_coefficients, projection_mse

NAMES = ("loss", "weight", "bias", "student", "coefficients")


def sample(rows: int, teachers: int, size: int, out: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(rows)
    inputs = {
        "teachers": torch.randn(rows, teachers, size, generator=g),
        "weight": torch.randn(teachers, size, out, generator=g) / size**0.5,
        "bias": torch.randn(teachers, out, generator=g),
        "student": torch.randn(rows, out, generator=g),
        "coefficients": torch.rand(rows, teachers, generator=g) / max(rows, 1),
    }
    return inputs


def everything(form: Any, inputs: dict[str, Tensor], dtypes: dict[str, torch.dtype], **options: Any) -> list[Tensor]:
    """The loss and the gradients of -3 times it."""
    leaves = {key: value.detach().to(dtypes.get(key, dtypes["all"])) for key, value in inputs.items()}
    for key in NAMES[1:]:
        leaves[key].requires_grad_()
    loss = form(**leaves, **options)
    (-3.0 * loss).backward()
    return [loss, *(leaves[key].grad for key in NAMES[1:])]


def reference(teachers: Tensor, weight: Tensor, bias: Tensor, student: Tensor, coefficients: Tensor) -> Tensor:
    """As the equation stands: every projected vector, every difference."""
    squares = (project(weight, bias, teachers) - student.unsqueeze(1)).square().sum(-1)
    return (coefficients * squares).sum()


def close(got: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    """Equal up to `tolerance` of each tensor's largest element: sums over many terms have no smaller error."""
    for name, a, b in zip(NAMES, got, wanted, strict=True):
        error = float((a.detach().double() - b.detach().double()).abs().max())
        assert error <= tolerance * float(b.detach().abs().max()), f"{name}: {error}"


@pytest.mark.parametrize(
    ("rows", "teachers", "size", "out"), [(1, 1, 16, 16), (150, 4, 48, 80), (67, 3, 20, 33), (33, 2, 256, 256)]
)
def test_equals_the_plain_form_in_float64(rows: int, teachers: int, size: int, out: int) -> None:
    inputs = sample(rows, teachers, size, out)
    got = everything(projection_mse, inputs, {"all": torch.float32})
    close(got, everything(reference, inputs, {"all": torch.float64}), 2e-6)


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_bfloat16_tables(weights: torch.dtype) -> None:
    """Against float64 arithmetic on what bfloat16 holds: only the products' operands are rounded."""
    inputs = sample(130, 4, 256, 256)
    for key in ("teachers", "weight", "student"):
        inputs[key] = inputs[key].bfloat16().float()
    dtypes = {"all": torch.float32, "teachers": torch.bfloat16, "weight": weights, "student": torch.bfloat16}
    got = everything(projection_mse, inputs, dtypes)
    assert [x.dtype for x in got] == [torch.float32, weights, torch.float32, torch.bfloat16, torch.float32]
    close(got, everything(reference, inputs, {"all": torch.float64}), 2**-7)


def test_a_transposed_table() -> None:
    inputs = sample(70, 3, 32, 32)
    plain = everything(projection_mse, inputs, {"all": torch.float32})
    inputs["teachers"] = inputs["teachers"].transpose(0, 1).contiguous().transpose(0, 1)
    assert not inputs["teachers"].is_contiguous()
    close(everything(projection_mse, inputs, {"all": torch.float32}), plain, 0.0)


def test_equals_the_embedding_losses() -> None:
    inputs = sample(21, 3, 32, 32)
    g = torch.Generator().manual_seed(5)
    slots, slot_mask = (
        torch.randint(21, (6, 9), generator=g),
        (torch.rand(6, 9, generator=g) < 0.8),
    )
    teacher_weights, weights = (
        torch.rand(6, 3, generator=g).softmax(1),
        torch.rand(6, generator=g),
    )
    inputs["coefficients"] = news_coefficients(teacher_weights, slots, slot_mask, weights, 6.0, 21, 32)
    projected = project(inputs["weight"], inputs["bias"], inputs["teachers"])
    wanted = news_embedding_loss_per_slot(
        projected[slots], inputs["student"][slots], teacher_weights, slot_mask, weights, 6.0
    )
    torch.testing.assert_close(projection_mse(**inputs), wanted)
    users = {**inputs, "teachers": inputs["teachers"][:6], "student": inputs["student"][:6]}
    users["coefficients"] = teacher_weights * weights.unsqueeze(1) / (32 * 6.0)
    wanted = user_embedding_loss_of_projected(projected[:6], users["student"], teacher_weights, weights, 6.0)
    torch.testing.assert_close(projection_mse(**users), wanted)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that was made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [part.numel() for part in tree_flatten(out)[0] if isinstance(part, Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return out


def test_memory_does_not_grow_with_teachers_times_slots_times_size() -> None:
    """Samples may be many: nothing of [B, S, D] or more is made, forwards or backwards, only a number a slot and teacher."""
    samples, slots, rows, teachers, size = 400, 55, 21, 3, 64
    inputs = sample(rows, teachers, size, size)
    g = torch.Generator().manual_seed(6)
    at = torch.randint(rows, (samples, slots), generator=g)
    mask, weights = torch.ones_like(at, dtype=torch.bool), torch.ones(samples)
    w = torch.rand(samples, teachers, generator=g).softmax(1).requires_grad_()
    for key in ("weight", "bias", "student"):
        inputs[key].requires_grad_()
    with Largest() as largest:
        inputs["coefficients"] = news_coefficients(w, at, mask, weights, float(samples), rows, size)
        projection_mse(**inputs).backward()
    assert 0 < largest.elements <= samples * slots * teachers < samples * slots * size


def test_no_rows() -> None:
    got = everything(projection_mse, sample(0, 2, 16, 16), {"all": torch.float32})
    assert [float(x.detach().sum()) for x in got] == [0.0] * 5


def test_autocast_decides_the_product() -> None:
    inputs = sample(40, 2, 64, 64)
    exact = projection_mse(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = projection_mse(**inputs)
        wanted = reference(**inputs)
    assert rounded.dtype == torch.float32
    assert rounded != exact
    torch.testing.assert_close(rounded, wanted, rtol=2**-7, atol=0)
