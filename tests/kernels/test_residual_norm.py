"""LayerNorm(x + dropout(y)) by the kernel against float64 torch: outputs, every gradient, the mask; and its user."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tnr_dist.kernels.dispatch import residual_norm, residual_norm_reference, use_kernels
from tnr_dist.kernels.residual_norm import MAX_WIDTH
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.packed import Packed
from tnr_dist.models.transformer import Encoder, encoder_from_config

FP32, BF16 = torch.float32, torch.bfloat16
EPS = 1e-12


def draw(rows: int, width: int, device: torch.device) -> list[Tensor]:
    """x, y, weight, bias and an upstream gradient; rows with an offset, as LayerNorm's input may have."""
    g = torch.Generator().manual_seed(rows * width)
    x, y, grad = (torch.randn(rows, width, generator=g) for _ in range(3))
    weight, bias = torch.randn(width, generator=g) + 1, torch.randn(width, generator=g)
    return [t.to(device) for t in (x + torch.randn(rows, 1, generator=g), y, weight, bias, grad)]


def float64(values: list[Tensor], keep: Tensor, p: float) -> list[Tensor]:
    """Output and gradients by torch for a given mask, from what the inputs' dtypes hold."""
    x, y, weight, bias = (t.detach().double().requires_grad_() for t in values[:4])
    h = x + y * keep / (1 - p)
    out = F.layer_norm(h, x.shape[1:], weight, bias, EPS)
    return [out.detach(), *torch.autograd.grad(out, (x, y, weight, bias), values[4].double())]


def by_kernel(values: list[Tensor], p: float) -> list[Tensor]:
    leaves = [t.detach().clone().requires_grad_() for t in values[:4]]
    out = residual_norm(*leaves, EPS, p, "triton")
    return [out.detach(), *torch.autograd.grad(out, leaves, values[4].to(out.dtype))]


def kept(rows: int, width: int, p: float, seed: int, device: torch.device) -> Tensor:
    """[rows, width] bool: the mask that a call draws after `seed`.

    With x = 0 and y_j = +1, -1, +1, ... h_j is y_j / (1 - p) or 0, and the row's mean at most half as far from 0. An eps
    beside which the variance is nothing makes the output h - mean h.
    """
    sign = (1 - 2 * (torch.arange(width, device=device) % 2)).float().expand(rows, -1)
    ones, zeros = torch.ones(width, device=device), torch.zeros(width, device=device)
    torch.manual_seed(seed)
    out = residual_norm(torch.zeros_like(sign), sign, ones, zeros, 1e12, p, "triton")
    return out * 1e6 * (1 - p) * sign > 0.5


def close(found: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    """Equal up to `tolerance` of each tensor's largest element."""
    for name, a, b in zip(("out", "x", "y", "weight", "bias"), found, wanted, strict=True):
        assert a.shape == b.shape
        error = float((a.double() - b.double()).abs().max())
        assert error <= tolerance * float(b.abs().max()), f"{name}: {error}"


@pytest.mark.parametrize("dtypes", [(FP32, FP32), (BF16, BF16), (BF16, FP32), (FP32, BF16)], ids=str)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (5, 7), (129, 16), (13, 33), (7, 384), (6, 768), (3, 1000)])
def test_without_dropout(rows: int, width: int, dtypes: tuple[torch.dtype, ...], device: torch.device) -> None:
    values = draw(rows, width, device)
    if width == 1:
        values[4].zero_()  # a row of one has no deviation: its gradient is 0 times 1 / sqrt(eps)
    values = [t.to(dtype) for t, dtype in zip(values, (*dtypes, FP32, FP32, dtypes[0]), strict=True)]
    found = by_kernel(values, 0.0)
    assert [t.dtype for t in found] == [dtypes[0], *dtypes, FP32, FP32]
    wanted = float64(values, torch.ones_like(values[0]), 0.0)
    close(found, wanted, 1e-5 if BF16 not in dtypes else 2**-7)


def test_without_dropout_equals_the_plain_form(device: torch.device) -> None:
    values = draw(9, 96, device)
    leaves = [t.requires_grad_() for t in values[:4]]
    wanted = residual_norm_reference(*leaves, EPS)
    wanted_all = [wanted.detach(), *torch.autograd.grad(wanted, leaves, values[4])]
    torch.testing.assert_close(by_kernel(values, 0.0), wanted_all, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
@pytest.mark.parametrize(("rows", "width"), [(9, 10), (7, 384), (5, 768)])
def test_backward_draws_the_mask_of_forward(
    rows: int, width: int, dtype: torch.dtype, p: float, device: torch.device
) -> None:
    values = [t.to(dtype) if i in (0, 1, 4) else t for i, t in enumerate(draw(rows, width, device))]
    keep = kept(rows, width, p, 3, device)
    torch.manual_seed(3)
    found = by_kernel(values, p)
    close(found, float64(values, keep, p), 1e-5 if dtype == FP32 else 2**-7)
    # What was dropped has no gradient, and all else has one.
    assert torch.equal(found[2] != 0, keep)


def test_dropout_keeps_the_right_share_independently(device: torch.device) -> None:
    p, rows, width = 0.1, 60, 384
    first, second = (kept(rows, width, p, seed, device).cpu() for seed in (1, 2))
    assert torch.equal(first, kept(rows, width, p, 1, device).cpu())
    for share in (first.double(), second.double()):
        # Five standard deviations of the mean of n Bernoulli draws; six for the largest of many.
        assert abs(share.mean().item() - (1 - p)) < 5 * (p * (1 - p) / share.numel()) ** 0.5
        assert (share.mean(0) - (1 - p)).abs().max() < 6 * (p * (1 - p) / rows) ** 0.5
    a, b = 1 - first.double(), 1 - second.double()
    # Between seeds, neighbouring rows and neighbours of each distance within and beyond a quad.
    pairs = [(a, b), (a[1:], a[:-1]), *((a[:, n:], a[:, :-n]) for n in (1, 2, 3, 4))]
    for left, right in pairs:
        assert abs((left * right).mean().item() - p * p) < 5 * (p * p * (1 - p * p) / left.numel()) ** 0.5


def test_everything_dropped(device: torch.device) -> None:
    x, y, weight, bias, grad = draw(4, 20, device)
    y.requires_grad_()
    out = residual_norm(x, y, weight, bias, EPS, 1.0, "triton")
    torch.testing.assert_close(out, F.layer_norm(x, (20,), weight, bias, EPS), rtol=1e-4, atol=1e-5)
    out.backward(grad)
    assert y.grad is not None and not y.grad.any()


def test_programs_take_several_blocks(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    from tnr_dist.kernels import residual_norm as module

    monkeypatch.setattr(module, "_PROGRAMS", 3)
    values = draw(4 * 9 + 1, 384, device)  # 4 rows a block: ten blocks, the last one not full
    torch.manual_seed(4)
    found = by_kernel(values, 0.2)
    close(found, float64(values, kept(37, 384, 0.2, 4, device), 0.2), 1e-5)


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("wanted", [(0,), (1,), (0, 1), (2,), (3,), (1, 2, 3)], ids=str)
def test_only_the_gradients_that_are_needed(wanted: tuple[int, ...], p: float, device: torch.device) -> None:
    values = draw(5, 48, device)
    torch.manual_seed(6)
    everything = by_kernel(values, p)
    leaves = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(values[:4])]
    torch.manual_seed(6)
    residual_norm(*leaves, EPS, p, "triton").backward(values[4])
    for i, leaf in enumerate(leaves):
        if i in wanted:
            assert leaf.grad is not None and torch.equal(leaf.grad, everything[1 + i])
        else:
            assert leaf.grad is None


def test_gradients_of_one_tensor_in_both_places_add_up(device: torch.device) -> None:
    x, _, weight, bias, grad = draw(5, 24, device)
    once, twice = x.clone().requires_grad_(), x.clone().requires_grad_()
    residual_norm(once, once, weight, bias, EPS, 0.0, "triton").backward(grad)
    residual_norm_reference(twice, twice, weight, bias, EPS).backward(grad)
    assert once.grad is not None and twice.grad is not None
    torch.testing.assert_close(once.grad, twice.grad, rtol=1e-4, atol=1e-5)


def test_strided_inputs(device: torch.device) -> None:
    x, y, weight, bias, grad = draw(10, 48, device)
    views = [x[::2], y.T.contiguous().T[::2], weight, bias, grad[::2]]
    close(by_kernel(views, 0.0), float64(views, torch.ones_like(views[0]), 0.0), 1e-5)
    expanded = [*views[:4], grad[:1].expand(5, -1)]
    close(by_kernel(expanded, 0.0), float64(expanded, torch.ones_like(views[0]), 0.0), 1e-5)


def test_no_rows(device: torch.device) -> None:
    values = draw(0, 32, device)
    found = by_kernel(values, 0.1)
    assert found[0].shape == found[1].shape == found[2].shape == (0, 32)
    assert not found[3].any() and not found[4].any() and found[3].shape == (32,)


def test_wide_rows_take_the_plain_form(device: torch.device) -> None:
    x, y, weight, bias, _ = draw(2, MAX_WIDTH + 1, device)
    found = residual_norm(x, y, weight, bias, EPS, 0.0, "triton")
    assert torch.equal(found, residual_norm_reference(x, y, weight, bias, EPS))


def test_without_gradients_nothing_is_kept(device: torch.device) -> None:
    x, y, weight, bias, _ = draw(4, 32, device)
    weight.requires_grad_()
    kept_tensors: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        kept_tensors.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        with torch.no_grad():
            assert residual_norm(x, y, weight, bias, EPS, 0.1, "triton").grad_fn is None
        assert not kept_tensors
        residual_norm(x, y, weight, bias, EPS, 0.1, "triton")
    # With them: the inputs and the seed.
    pointers = {t.data_ptr() for t in kept_tensors if t.numel() > 1}
    assert pointers == {x.data_ptr(), y.data_ptr(), weight.data_ptr()}


@pytest.fixture(params=["gelu", "gelu_new"])
def encoder(request: pytest.FixtureRequest, device: torch.device) -> Iterator[Encoder]:
    torch.manual_seed(0)
    config = EncoderConfig(
        vocab_size=30, hidden=24, layers=2, heads=2, intermediate=40, max_positions=32, activation=request.param
    )
    yield encoder_from_config(config).to(device)


def batch_of(device: torch.device) -> Packed:
    return Packed.pack(torch.arange(23, device=device) % 30, [4, 1, 7, 3, 8])


def test_the_encoder_by_the_kernel(encoder: Encoder, device: torch.device) -> None:
    encoder.set_dropout(0.0).train()
    results = []
    for kernels in ("torch", "triton"):
        encoder.zero_grad()
        with use_kernels(kernels):
            out = encoder(batch_of(device))
            (out * torch.linspace(-1, 1, out.numel(), device=device).view_as(out)).sum().backward()
        results.append([out.detach(), *(p.grad for p in encoder.parameters() if p.grad is not None)])
    for found, wanted in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_the_encoder_drops_only_in_training(encoder: Encoder, device: torch.device) -> None:
    encoder.set_dropout(0.3)
    with use_kernels("triton"), torch.no_grad():
        torch.manual_seed(0)
        first = encoder.train()(batch_of(device))
        torch.manual_seed(0)
        assert torch.equal(first, encoder(batch_of(device)))
        assert not torch.allclose(first, encoder(batch_of(device)))
        state = torch.get_rng_state()
        assert torch.equal(encoder.eval()(batch_of(device)), encoder(batch_of(device)))
        assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("autocast", [True, False])
def test_the_plain_encoder_is_what_it_was(
    encoder: Encoder, train: bool, autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit the expressions that the kernels replace, dropout's draws included."""
    from tnr_dist.kernels.attention import ragged_attention
    from tnr_dist.kernels.dispatch import layer_norm
    from tnr_dist.models import transformer

    def norm(x: Tensor, module: torch.nn.LayerNorm) -> Tensor:
        return layer_norm(x, module.weight, module.bias, module.eps)

    def forward(
        self: transformer.Layer, x: Tensor, batch: Packed, bias: Tensor | None, train: bool, weights: object = None
    ) -> Tensor:
        attended = ragged_attention(*self.heads_of(x), batch.plan, bias, self.attention_dropout if train else 0.0)
        attended = F.dropout(self.attention_out(attended.flatten(1)), self.dropout, train)
        x = norm(x + attended, self.attention_norm)
        out = F.dropout(self.ffn_out(self.activation(self.ffn_in(x))), self.dropout, train)
        return norm(x + out, self.ffn_norm)

    results = []
    encoder.cpu().train(train)
    for _ in range(2):
        torch.manual_seed(1)
        encoder.zero_grad()
        with use_kernels("torch"), torch.autocast("cpu", BF16, enabled=autocast):
            out = encoder(batch_of(torch.device("cpu")))
        out.float().square().sum().backward()
        results.append([out.detach(), *(p.grad for p in encoder.parameters() if p.grad is not None)])
        monkeypatch.setattr(transformer.Layer, "forward", forward)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
