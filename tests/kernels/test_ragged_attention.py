"""Packed attention by the kernel against dense attention: outputs, every gradient, dropout, the cut into tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tnr_dist.kernels.attention import AttentionPlan, bucket_attention
from tnr_dist.kernels.ragged_attention import (
    MAX_HEAD_DIM,
    planned_attention,
    ragged_attention,
    ragged_attention_reference,
)
from tnr_dist.kernels.tiles import Tiles, block_rows
from tnr_dist.util.errors import InputError

# float32: another order of summation. bfloat16: the reference computes in float32 from the same inputs, so what is left
# is the rounding of probabilities and results (which the interpreter truncates): two units in the last place of 1.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2**-6}


def _inputs(
    lengths: list[int], heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, np.ndarray]:
    """A fused projection [T, 3, heads, head_dim] and a gradient [T, heads, head_dim] that is not 1."""
    generator = torch.Generator().manual_seed(len(lengths))
    qkv = torch.randn(sum(lengths), 3, heads, head_dim, generator=generator)
    grad = torch.randn(sum(lengths), heads, head_dim, generator=generator) * 0.5
    return qkv.to(device, dtype), grad.to(device, dtype), np.array(lengths, dtype=np.int64)


def _bias(form: str, heads: int, longest: int, device: torch.device) -> Tensor | None:
    """A bias of either form for sequences up to `longest + 2`, so that the table is larger than needed."""
    size = longest + 2
    generator = torch.Generator().manual_seed(7)
    if form == "none":
        return None
    if form == "distance":
        return torch.randn(heads, 2 * size - 1, generator=generator).to(device)
    # As the encoder builds it: the heads are the fastest dimension in memory.
    return torch.randn(size, size, heads, generator=generator).to(device).permute(2, 0, 1)


def _run(
    form: str, qkv: Tensor, bias: Tensor | None, grad: Tensor, lengths: np.ndarray, trained: bool = True
) -> list[Tensor]:
    """Output and gradients (of the projection, and of the bias) of one form, in float32."""
    x = qkv.clone().requires_grad_()
    b = None if bias is None else bias.clone(memory_format=torch.preserve_format).requires_grad_(trained)
    if form == "bucket":
        out = bucket_attention(*x.unbind(1), AttentionPlan(lengths), b, 0.0)
    else:
        out = ragged_attention(*x.unbind(1), lengths, b, kernels=form)
    out.backward(grad)
    assert out.dtype == qkv.dtype and x.grad is not None
    found = [out.detach().float(), x.grad.float()]
    return found if b is None or b.grad is None else [*found, b.grad]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("lengths", "heads", "head_dim", "form"),
    [
        ([3, 1, 17, 0, 5, 30, 2, 16, 16, 9, 11], 3, 32, "none"),
        ([1, 63, 64, 65, 200], 1, 64, "table"),
        ([0, 12, 40, 70, 7, 1], 2, 32, "distance"),
        ([5, 90], 2, 20, "table"),
    ],
    ids=["titles", "all lengths", "any order, distances", "odd head"],
)
def test_equals_dense_attention(
    lengths: list[int], heads: int, head_dim: int, form: str, dtype: torch.dtype, device: torch.device
) -> None:
    qkv, grad, sizes = _inputs(lengths, heads, head_dim, dtype, device)
    bias = _bias(form, heads, max(lengths), device)
    found = _run("triton", qkv, bias, grad, sizes)
    expected = _run("torch", qkv, bias, grad, sizes)
    assert len(found) == len(expected) == (2 if bias is None else 3)
    for name, a, b in zip(["out", "dqkv", "dbias"], found, expected, strict=False):
        scale = max(1.0, b.abs().max().item())
        assert (a - b).abs().max().item() <= TOLERANCE[dtype] * scale, name


def test_equals_the_models_attention(device: torch.device) -> None:
    qkv, grad, lengths = _inputs([1, 4, 4, 9, 40, 42, 66, 70], 2, 32, torch.float32, device)
    bias = _bias("table", 2, 70, device)
    for a, b in zip(_run("triton", qkv, bias, grad, lengths), _run("bucket", qkv, bias, grad, lengths), strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)


def test_frozen_bias_gets_no_gradient(device: torch.device) -> None:
    qkv, grad, lengths = _inputs([4, 9], 2, 32, torch.float32, device)
    bias = _bias("table", 2, 9, device)
    found = _run("triton", qkv, bias, grad, lengths, trained=False)
    assert len(found) == 2
    torch.testing.assert_close(found[1], _run("torch", qkv, bias, grad, lengths)[1], rtol=2e-5, atol=2e-5)


def test_large_scores_neither_overflow_nor_lose_the_sum(device: torch.device) -> None:
    qkv, grad, lengths = _inputs([33, 80], 1, 32, torch.float32, device)
    qkv[:, :2] *= 30
    for a, b in zip(_run("triton", qkv, None, grad, lengths), _run("torch", qkv, None, grad, lengths), strict=True):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def _one_hot_values(lengths: list[int], heads: int, device: torch.device) -> Tensor:
    """v [T, heads, 64] with which the output is the probabilities after dropout, one column a key."""
    position = torch.cat([torch.arange(n) for n in lengths])
    return torch.nn.functional.one_hot(position, 64).float()[:, None].expand(-1, heads, -1).to(device)


def _dense_with_mask(qkv: Tensor, keep: Tensor, lengths: list[int], bias: Tensor, p: float) -> Tensor:
    """The docstring's equations with given keep [T, heads, 64], for [T, 3, heads, head_dim]."""
    outputs = []
    for part, kept in zip(qkv.split(lengths), keep.split(lengths), strict=True):
        n = len(part)
        q, k, v = part.transpose(0, 2).unbind(1)  # [heads, n, head_dim]
        probabilities = (q @ k.mT * q.shape[-1] ** -0.5 + bias[:, :n, :n]).softmax(-1)
        dropped = probabilities * kept[:, :, :n].transpose(0, 1) / (1 - p)
        outputs.append((dropped @ v).transpose(0, 1))
    return torch.cat(outputs)


def test_backward_draws_the_dropout_mask_of_forward(device: torch.device) -> None:
    lengths, heads, p = [7, 20, 40, 3], 2, 0.3
    qkv, grad, sizes = _inputs(lengths, heads, 64, torch.float32, device)
    bias = _bias("table", heads, 40, device)
    assert bias is not None
    torch.manual_seed(5)
    values = _one_hot_values(lengths, heads, device)
    keep = ragged_attention(qkv[:, 0], qkv[:, 1], values, sizes, bias, p, "triton") > 0

    results = []
    for use_kernel in (True, False):
        x, b = qkv.clone().requires_grad_(), bias.clone().requires_grad_()
        torch.manual_seed(5)
        if use_kernel:
            out = ragged_attention(*x.unbind(1), sizes, b, p, "triton")
        else:
            out = _dense_with_mask(x, keep, lengths, b, p)
        out.backward(grad)
        results.append((out, x.grad, b.grad))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=2e-5)


def test_gradient_is_the_finite_difference_under_one_seed(device: torch.device) -> None:
    qkv, grad, lengths = _inputs([9, 38], 1, 32, torch.float32, device)
    direction = torch.randn(qkv.shape, generator=torch.Generator().manual_seed(1)).to(device)

    def loss(x: Tensor) -> Tensor:
        torch.manual_seed(11)
        return (ragged_attention(*x.unbind(1), lengths, None, 0.2, "triton") * grad).sum()

    x = qkv.clone().requires_grad_()
    loss(x).backward()
    step = 1e-3
    difference = (loss(qkv + step * direction) - loss(qkv - step * direction)).item() / (2 * step)
    assert x.grad is not None
    assert (x.grad * direction).sum().item() == pytest.approx(difference, rel=5e-3, abs=5e-3)


def test_dropout_keeps_the_right_share_independently(device: torch.device) -> None:
    lengths, heads, p = [32] * 12 + [60] * 2, 4, 0.1
    qkv, _, sizes = _inputs(lengths, heads, 64, torch.float32, device)
    values = _one_hot_values(lengths, heads, device)
    exists = torch.cat([(torch.arange(64) < n).expand(n, -1) for n in lengths])[:, None].expand(-1, heads, -1)

    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return (ragged_attention(qkv[:, 0] * 0.1, qkv[:, 1], values, sizes, None, p, "triton") > 0).cpu()

    first, second = draw(1), draw(2)
    assert torch.equal(first, draw(1))
    for seen in (first, second):
        share = seen[exists].double()
        # Five standard deviations of the mean of n Bernoulli draws.
        assert abs(share.mean().item() - (1 - p)) < 5 * (p * (1 - p) / len(share)) ** 0.5
    dropped = [~first & exists, ~second & exists]
    every = [x[..., :32] for x in dropped]
    pairs = [(every[0], every[1]), (every[0][:, 0], every[0][:, 1])]  # two seeds, two heads
    pairs += [(every[0][:32], every[0][32:64])]  # two sequences
    long = dropped[0][-60:, :, :60]
    pairs += [(long[..., :-shift], long[..., shift:]) for shift in (1, 2, 4, 8, 16, 32)]  # keys, in other tiles too
    pairs += [(long[:-shift], long[shift:]) for shift in (1, 2, 4, 8, 16, 32)]  # queries
    for a, b in pairs:
        a, b = a.double(), b.double()
        both = (a * b).mean().item()
        expected = a.mean().item() * b.mean().item()
        assert abs(both - expected) < 5 * expected**0.5 / a.numel() ** 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiles_cover_every_row_once(dtype: torch.dtype) -> None:
    block = block_rows(dtype)
    lengths = np.random.default_rng(0).integers(0, 40, 300)
    lengths[[10, 50]] = 200, 65
    tiles = Tiles.of(lengths, "cpu", dtype)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    spans = torch.cat([tiles.closed, tiles.opened]).numpy()
    covered = np.concatenate([np.arange(a, b) for a, b, _, _ in spans])
    assert np.array_equal(np.sort(covered), np.arange(lengths.sum()))
    assert ((spans[:, 1] - spans[:, 0] > 0) & (spans[:, 1] - spans[:, 0] <= block)).all()
    assert np.isin(tiles.closed.numpy()[:, :2], offsets).all(), "a closed tile holds whole sequences"
    assert np.isin(tiles.opened.numpy()[:, 2:], offsets).all()
    assert np.array_equal(tiles.starts.numpy(), np.repeat(offsets[:-1], lengths))


def test_titles_share_tiles() -> None:
    tiles = Tiles.of(np.full(1000, 16), "cpu", torch.bfloat16)
    assert len(tiles.closed) == 250 and not len(tiles.opened)


def test_tiles_are_kept_with_the_plan(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    qkv, _, lengths = _inputs([2, 5, 5], 2, 32, torch.float32, device)
    plan = AttentionPlan(lengths)
    made = []
    original = Tiles.of
    monkeypatch.setattr(Tiles, "of", lambda *args: made.append(1) or original(*args))
    for _ in range(2):
        found = planned_attention(*qkv.unbind(1), plan, None, 0.0)
        torch.testing.assert_close(found, bucket_attention(*qkv.unbind(1), plan, None, 0.0), rtol=2e-5, atol=2e-5)
    assert len(made) == 1


def test_empty_batch_and_large_heads(device: torch.device) -> None:
    empty = torch.zeros(3, 0, 2, 32, device=device, requires_grad=True)
    bias = torch.zeros(2, 4, 4, device=device, requires_grad=True)
    for lengths in (np.zeros(0, np.int64), np.zeros(3, np.int64)):
        for kernels in ("triton", "torch"):
            out = ragged_attention(*empty, lengths, bias, kernels=kernels)
            assert out.shape == (0, 2, 32)
            gradients = torch.autograd.grad(out.sum(), (empty, bias))  # of nothing, but there
            assert not gradients[1].any()
    qkv, _, lengths = _inputs([3, 4], 1, MAX_HEAD_DIM + 1, torch.float32, device)
    expected = ragged_attention_reference(*qkv.unbind(1), lengths)
    assert torch.equal(ragged_attention(*qkv.unbind(1), lengths, kernels="triton"), expected)


def test_unknown_choice_is_refused(device: torch.device) -> None:
    x = torch.zeros(2, 1, 32, device=device)
    with pytest.raises(InputError, match="kernels='cuda'"):
        ragged_attention(x, x, x, np.array([2]), kernels="cuda")
