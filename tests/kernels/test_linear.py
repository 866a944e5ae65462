"""Linear layers with bias and GELU in the product: every form against float64, gradients, and where each may run."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tnr_dist.kernels import dispatch
from tnr_dist.kernels.dispatch import Choice, lay_out, linear, linear_gelu, linear_gelu_reference, use_kernels
from tnr_dist.models import transformer
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.packed import Packed
from tnr_dist.models.transformer import ACTIVATIONS, encoder_from_config

BF16 = torch.bfloat16
CPU = torch.device("cpu")


def draw(device: torch.device = CPU, rows: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight and bias."""
    g = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(rows, 64, generator=g),
        torch.randn(96, 64, generator=g) / 8,
        torch.randn(96, generator=g),
    )
    return x.to(device), weight.to(device), bias.to(device)


def rounded(tensors: tuple[Tensor, ...], autocast: bool) -> tuple[Tensor, ...]:
    """In float64, as autocast passes them on."""
    return tuple((t.bfloat16() if autocast else t).double() for t in tensors)


@pytest.fixture
def onednn() -> None:
    """Skips where torch was built without it."""
    if not dispatch._onednn_dtypes():
        pytest.skip("this build of torch has no oneDNN")


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("rows", [0, 1, 40])
@pytest.mark.parametrize("laid_out", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_without_gradients(autocast: bool, laid_out: bool, rows: int) -> None:
    x, weight, bias = draw(rows=rows)
    plain = F.linear(*rounded((x, weight, bias), autocast))
    by_onednn = not autocast or BF16 in dispatch._onednn_dtypes()
    with torch.no_grad(), torch.autocast("cpu", BF16, enabled=autocast):
        matrix = lay_out(weight, x) if laid_out else weight
        assert matrix.is_mkldnn == (laid_out and by_onednn)
        found = [linear(x, matrix, bias), linear_gelu(x, matrix, bias)]
    # Without bf16 instructions torch rounds the product before it adds the bias.
    tolerance = (2**-8 if by_onednn else 2**-6) if autocast else 1e-5
    for one, wanted in zip(found, (plain, F.gelu(plain)), strict=True):
        assert one.dtype == (BF16 if autocast else torch.float32)
        torch.testing.assert_close(one.double(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("activated", [False, True])
def test_gradients_are_those_of_the_plain_form(activated: bool, autocast: bool, dtype: torch.dtype) -> None:
    """Non-unit upstream gradients; x and weights in float32 or bfloat16; gradients in their own dtype."""
    results = []
    for kernels in ("auto", "torch"):
        leaves = [t.to(dtype).requires_grad_() for t in draw()]
        with torch.autocast("cpu", BF16, enabled=autocast):
            out = (linear_gelu if activated else linear)(*leaves, kernels)  # type: ignore[operator]
        out.backward(torch.linspace(-2, 2, out.numel(), dtype=out.dtype).view_as(out))
        results.append([out.detach(), *(leaf.grad for leaf in leaves)])
    exact = dtype == torch.float32 and not autocast
    for one, wanted in zip(*results, strict=True):
        assert one is not None and wanted is not None and one.dtype == wanted.dtype
        error = (one - wanted).double().norm() / wanted.double().norm()
        assert error <= (1e-6 if exact else 2**-8)


@pytest.mark.usefixtures("onednn")
def test_only_wanted_gradients_are_computed() -> None:
    x, weight, bias = draw()
    out = linear(x, weight.requires_grad_(), bias)
    out.sum().backward()
    assert x.grad is None and bias.grad is None and weight.grad is not None


@pytest.mark.usefixtures("onednn")
def test_where_onednn_may_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain torch chosen; float64; mixed dtypes, which torch refuses; torch.compile and torch.export."""
    calls = []
    monkeypatch.setattr(dispatch, "_pointwise", lambda *inputs: calls.append(inputs))
    x, weight, bias = draw()
    with torch.no_grad():
        for name in (linear, linear_gelu):
            name(x, weight, bias, "torch")
            name(x.double(), weight.double(), bias.double())
            with use_kernels("torch"):
                name(x, weight, bias)
            with pytest.raises(RuntimeError, match="dtype"):
                name(x.bfloat16(), weight, bias)
        assert lay_out(weight, x, "torch") is weight
        layer = transformer.Layer(EncoderConfig(40, 64, 1, 4, 96, 30))
        batch = Packed.pack(torch.zeros(40), [20, 20])

        class OneLayer(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = layer

            def forward(self, x: Tensor) -> Tensor:
                return self.layer(x, batch, None, False)  # type: ignore[no-any-return]

        program = torch.export.export(OneLayer(), (x,))
    assert not calls
    assert not any("mkldnn" in str(node.target) for node in program.graph.nodes)


@pytest.mark.parametrize("kernels", ["auto", "torch"])
def test_frozen_weights_are_cast_once_in_training(kernels: Choice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at each use; a change of them is seen, and in float32 nothing is kept."""
    config = EncoderConfig(50, 32, 3, 4, 64, 40, dropout=0.0, attention_dropout=0.0)
    encoder = encoder_from_config(config).freeze_below(1).train()
    made = []
    monkeypatch.setattr(transformer, "lay_out", lambda *inputs: made.append(inputs) or lay_out(*inputs))
    batch = Packed.pack(torch.arange(90) % 50, [20, 30, 40])

    def step(autocast: bool = True) -> Tensor:
        with torch.autocast("cpu", BF16, enabled=autocast), use_kernels(kernels):
            return encoder(batch)

    first = step()
    assert len(made) == 8, "4 matrices of 2 frozen layers"
    torch.testing.assert_close(step(), first, rtol=0, atol=0)
    encoder.eval()
    torch.testing.assert_close(step(), first, rtol=2e-2, atol=2e-2)  # cast at each use
    assert len(made) == 8
    encoder.train()
    with torch.no_grad():
        encoder.layers[0].ffn_in.weight.mul_(1.5)  # type: ignore[union-attr, operator]
    assert not torch.allclose(step(), first, atol=1e-3) and len(made) == 16
    step(autocast=False)
    assert len(made) == 16


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("autocast", [False, True])
def test_an_encoder_lays_its_weights_out_once(autocast: bool, activation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the parts of a large batch; the result is that of plain torch, before and after a change of the weights."""
    config = EncoderConfig(50, 32, 3, 4, 64, 40, activation=activation, dropout=0.0, attention_dropout=0.0)
    encoder = encoder_from_config(config).eval()
    made = []
    monkeypatch.setattr(transformer, "_CPU_TOKENS", 64)
    monkeypatch.setattr(transformer, "lay_out", lambda *inputs: made.append(inputs) or lay_out(*inputs))
    lengths = torch.randint(1, 20, (60,), generator=torch.Generator().manual_seed(0)).numpy()
    batch = Packed.pack(torch.arange(int(lengths.sum())) % 50, lengths)
    for _ in range(2):
        made.clear()
        with torch.no_grad(), torch.autocast("cpu", BF16, enabled=autocast):
            found = encoder(batch)
            with use_kernels("torch"):
                wanted = encoder(batch)
        assert [inputs[0].is_mkldnn for inputs in made] == [False] * 24, "4 matrices of 3 layers, each way"
        assert found.dtype == wanted.dtype
        torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.05 if autocast else 1e-5)
        with torch.no_grad():
            encoder.layers[1].ffn_in.weight.mul_(3.0)  # type: ignore[union-attr]


def test_cuda_form_of_linear_gelu(device: torch.device) -> None:
    """On a CPU torch's operator has the exact GELU; on CUDA the difference is the approximation's 5e-4, and rounding."""
    x, weight, bias = draw(device)
    with torch.autocast(device.type, BF16):
        found = dispatch._linear_gelu_cuda(x, weight, bias)
        wanted = linear_gelu_reference(x, weight, bias)
    assert found.dtype == wanted.dtype == BF16
    exact = F.gelu(F.linear(*(t.bfloat16().double() for t in (x, weight, bias))))
    torch.testing.assert_close(found.double(), exact, rtol=2**-7, atol=2**-7)
    assert (found.double() - exact).square().mean() <= 1.1 * (wanted.double() - exact).square().mean()


@pytest.mark.parametrize("autocast", [True, False])
def test_cuda_form_runs_only_where_it_may(
    device: torch.device, autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    original = dispatch._linear_gelu_cuda

    def counting(*inputs: Tensor) -> Tensor:
        calls.append(inputs)
        return original(*inputs)

    monkeypatch.setattr(dispatch, "_linear_gelu_cuda", counting)
    inputs = draw(device)
    with torch.autocast(device.type, BF16, enabled=autocast):
        linear_gelu(*inputs, "triton")
        assert not calls, "gradients are enabled"
        with torch.no_grad():
            assert torch.equal(linear_gelu(*inputs, "torch"), linear_gelu_reference(*inputs))
            assert not calls
            linear_gelu(*inputs, "triton")
    assert len(calls) == int(autocast and device.type == "cuda")


def test_only_the_exact_gelu_is_replaced() -> None:
    assert [name for name, activation in ACTIVATIONS.items() if activation is F.gelu] == ["gelu"]


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("autocast", [False, True])
def test_an_encoder_that_serves(autocast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lays its weights out once for all; what needs a gradient still goes through the weights themselves."""
    encoder = encoder_from_config(EncoderConfig(50, 32, 3, 4, 64, 40, dropout=0.0, attention_dropout=0.0)).eval()
    batch = Packed.pack(torch.arange(30) % 50, [7, 11, 12])
    with torch.autocast("cpu", BF16, enabled=autocast), torch.no_grad():
        with use_kernels("torch"):
            wanted = encoder(batch)
            middle = encoder(batch, last=1)
        assert encoder.serve() is encoder
        monkeypatch.setattr(transformer, "lay_out", None)
        found = [encoder(batch), encoder(batch, first=1, hidden=middle)]
    for states in found:
        torch.testing.assert_close(states, wanted, rtol=0.05, atol=0.05 if autocast else 1e-5)
    encoder(batch).sum().backward()
    assert encoder.layers[0].qkv.weight.grad is not None  # type: ignore[union-attr]
