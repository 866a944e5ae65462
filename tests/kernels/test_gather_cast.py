"""Gather and cast in one pass against torch's two."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tnr_dist.kernels.dispatch import gather_cast, gather_cast_reference
from tnr_dist.kernels.launch import interpreted
from tnr_dist.models.packed import ragged_index

DTYPES = [torch.float32, torch.bfloat16]


def _assert_equal(found: Tensor, expected: Tensor) -> None:
    """Bit for bit; the interpreter alone truncates to bfloat16 where torch rounds."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    if interpreted() and found.dtype == torch.bfloat16:
        torch.testing.assert_close(found, expected, rtol=2**-7, atol=0)
    else:
        assert torch.equal(found, expected)


@pytest.mark.parametrize("target", DTYPES, ids=str)
@pytest.mark.parametrize("source", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(11, 1), (37, 4, 64), (5, 1300), (9, 3, 7)], ids=str)
def test_equals_index_select(
    shape: tuple[int, ...], source: torch.dtype, target: torch.dtype, device: torch.device
) -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(shape, generator=generator).to(device, source)
    index = torch.randint(shape[0], (53,), generator=generator).to(device)
    index[-1] = shape[0] - 1
    for index_ in (index, index.int()):
        _assert_equal(gather_cast(table, index_, target, "triton"), gather_cast_reference(table, index_, target))


@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_gradient_sums_over_repeated_rows(source: torch.dtype, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(19, 2, 33, generator=generator).to(device, source)
    index = torch.tensor([3, 3, 3, 18, 0, 3, 7, 18], device=device)
    grad = torch.randn(8, 2, 33, generator=generator).to(device)
    leaf = table.clone().requires_grad_()
    gather_cast(leaf, index, torch.float32, "triton").backward(grad)
    expected = torch.zeros(19, 2, 33, device=device).index_add_(0, index, grad)
    assert leaf.grad is not None and leaf.grad.dtype == source
    tolerance = 1e-6 if source == torch.float32 else 2**-7
    torch.testing.assert_close(leaf.grad.float(), expected, rtol=tolerance, atol=tolerance)


def test_rows_apart_and_odd_strides(device: torch.device) -> None:
    table = torch.randn(12, 40, device=device)
    index = torch.tensor([11, 0, 5], device=device)
    for view in (table[:, :17], table[::2, 3:30], table.T):  # the last one is left to torch
        index_ = index % len(view)
        _assert_equal(gather_cast(view, index_, torch.float32, "triton"), view[index_])


def test_rows_of_whole_sequences(device: torch.device) -> None:
    generator = np.random.default_rng(0)
    sizes = generator.integers(0, 9, 20)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    picked = generator.integers(0, 20, 15)
    found = ragged_index(offsets[picked], sizes[picked], device)
    expected = np.concatenate([np.arange(offsets[i], offsets[i + 1]) for i in picked])
    assert found.dtype == torch.int64 and found.device.type == device.type
    np.testing.assert_array_equal(found.cpu(), expected)
    assert ragged_index(np.zeros(0, np.int64), np.zeros(0, np.int64), device).shape == (0,)


def test_nothing_to_gather(device: torch.device) -> None:
    table = torch.randn(4, 8, device=device, requires_grad=True)
    out = gather_cast(table, torch.zeros(0, dtype=torch.long, device=device), torch.bfloat16, "triton")
    assert out.shape == (0, 8) and out.dtype == torch.bfloat16
    out.sum().backward()
    assert table.grad is not None and not table.grad.any()
