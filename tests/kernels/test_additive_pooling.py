from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tnr_dist.kernels.attention import (
    additive_pooling,
    additive_pooling_reference,
)
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import AttentionPooling

NAMES = ("out", "x", "weight", "bias", "query")
LENGTHS = [5, 0, 1, 64, 16, 33, 7, 0]


def parameters(size: int, queries: int, device: torch.device) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(size)
    made = {
        "weight": torch.randn(queries, size, generator=g) / size**0.5,
        "bias": torch.randn(queries, generator=g),
        "query": torch.randn(queries, generator=g) / 4,
    }
    return {key: value.to(device) for key, value in made.items()}


def ragged(lengths: list[int], size: int, queries: int, device: torch.device) -> dict[str, Tensor]:
    x = torch.randn(sum(lengths), size, generator=torch.Generator().manual_seed(1))
    offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]))
    return {"x": x.to(device), "offsets": offsets.to(device), **parameters(size, queries, device)}


def everything(form: Any, given: dict[str, Tensor], dtypes: dict[str, torch.dtype], **options: Any) -> list[Tensor]:
    """The pooled vectors, then the gradients of their sum with unequal factors."""
    inputs = {k: v.detach().to(dtypes.get(k, dtypes["all"])) if v.is_floating_point() else v for k, v in given.items()}
    for key in NAMES[1:]:
        inputs[key].requires_grad_()
    out = form(**inputs, **options)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(3)).to(out))
    return [out, *(inputs[key].grad for key in NAMES[1:])]


def close(got: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    """Equal up to `tolerance` of each tensor's largest element: sums over many terms have no smaller error."""
    for name, a, b in zip(NAMES, got, wanted, strict=True):
        error = float((a.detach().double() - b.detach().double()).abs().max())
        assert error <= tolerance * float(b.detach().abs().max()), f"{name}: {error}"


@pytest.mark.parametrize(("size", "queries"), [(384, 200), (33, 20), (16, 16)])
def test_ragged_equals_the_plain_form_in_float64(device: torch.device, size: int, queries: int) -> None:
    inputs = ragged(LENGTHS, size, queries, device)
    got = everything(additive_pooling, inputs, {"all": torch.float32}, max_length=64, kernels="triton")
    close(got, everything(additive_pooling_reference, inputs, {"all": torch.float64}), 3e-6)
    assert got[0][1].eq(0).all()
    assert got[0].dtype == torch.float32


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_bfloat16(device: torch.device, weights: torch.dtype) -> None:
    """Against float64 arithmetic on what bfloat16 holds: rounded are the products' operands and what is stored."""
    dtypes = {"all": weights, "x": torch.bfloat16}
    inputs = ragged(LENGTHS, 384, 200, device)
    inputs = {k: v.bfloat16().float() if v.is_floating_point() else v for k, v in inputs.items()}
    got = everything(additive_pooling, inputs, dtypes, max_length=64, kernels="triton")
    assert [x.dtype for x in got] == [torch.float32, torch.bfloat16, weights, weights, weights]
    wanted = everything(additive_pooling_reference, inputs, {"all": torch.float64})
    close(got, wanted, 2**-6)
    torch.testing.assert_close(got[0].double(), wanted[0], rtol=1e-5, atol=1e-5)


def test_extreme_logits(device: torch.device) -> None:
    inputs = ragged([3, 40, 1, 9], 48, 32, device)
    inputs["query"] *= 1e4
    inputs["x"] *= 30
    got = everything(additive_pooling, inputs, {"all": torch.float32}, max_length=40, kernels="triton")
    assert all(x.isfinite().all() for x in got)
    wanted = everything(additive_pooling_reference, inputs, {"all": torch.float64})
    torch.testing.assert_close(got[0].double(), wanted[0], rtol=1e-2, atol=1e-2)  # a logit of 1e4 has an error of 1e-3


def test_equals_the_model_s_pooling(device: torch.device) -> None:
    torch.manual_seed(0)
    module = AttentionPooling(48, 20).to(device)
    linear: nn.Linear = module.project
    arguments = {"weight": linear.weight, "bias": linear.bias, "query": module.query.weight[0]}
    inputs = ragged(LENGTHS, 48, 20, device)
    batch = Packed.pack(torch.zeros(sum(LENGTHS), dtype=torch.long, device=device), LENGTHS)
    got = additive_pooling(inputs["x"], offsets=inputs["offsets"], max_length=64, kernels="triton", **arguments)
    torch.testing.assert_close(got, module.forward_packed(inputs["x"], batch))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bodies(device: torch.device, dtype: torch.dtype) -> None:
    """Up to 512 tokens, beside titles, a length on a chunk's edge and none at all."""
    inputs = ragged([512, 3, 128, 0, 300, 65, 64], 40, 20, device)
    inputs = {k: v.to(dtype).float() if v.is_floating_point() else v for k, v in inputs.items()}
    dtypes = {"all": torch.float32, "x": dtype}
    got = everything(additive_pooling, inputs, dtypes, max_length=512, kernels="triton")
    wanted = everything(additive_pooling_reference, inputs, {"all": torch.float64})
    close(got, wanted, 3e-6 if dtype == torch.float32 else 2**-6)


def test_longer_sequences_take_the_plain_form(device: torch.device) -> None:
    inputs = ragged([600, 3], 16, 16, device)
    got = additive_pooling(**inputs, max_length=600, kernels="triton")
    torch.testing.assert_close(got, additive_pooling_reference(**inputs))  # on CUDA sums of no fixed order


@pytest.mark.parametrize("lengths", [[], [0, 0]])
def test_nothing_to_pool(device: torch.device, lengths: list[int]) -> None:
    got = everything(
        additive_pooling, ragged(lengths, 16, 16, device), {"all": torch.float32}, max_length=8, kernels="triton"
    )
    assert got[0].shape == (len(lengths), 16)
    assert all(x.eq(0).all() for x in got)


def test_registered_as_an_operator(device: torch.device) -> None:
    inputs = ragged([3, 9, 0, 2], 16, 16, device)
    leaves = [inputs[key].requires_grad_() for key in ("x", "weight", "bias", "query")]
    arguments = (*leaves, inputs["offsets"], 16, torch.float32)
    # Only the first output carries gradients: the operator's second one is for its own backward pass.
    utils = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(torch.ops.tnr_dist.additive_pooling.default, arguments, test_utils=utils)
