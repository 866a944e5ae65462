"""Which sequences torch's own FlashAttention gets, and that the result is that of the plain form."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tnr_dist.kernels import attention, varlen
from tnr_dist.kernels.attention import AttentionPlan, bucket_attention, ragged_attention
from tnr_dist.kernels.dispatch import use_kernels

LENGTHS = np.array([0, 3, 17, 64, 65, 100, 130], dtype=np.int64)


def _qkv(dtype: torch.dtype, where: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = int(LENGTHS.sum()), 3, 2, 32
    return torch.randn(shape, generator=generator).to(where, dtype).requires_grad_()


def _run(form, qkv: Tensor) -> list[Tensor]:
    q, k, v = qkv.unbind(1)
    out = form(q, k, v, AttentionPlan(LENGTHS), None, 0.0)
    factors = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out)
    return [out.detach().float(), torch.autograd.grad(out, qkv, factors)[0].float()]


def test_long_sequences_are_torchs_and_short_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in that has the same arguments as `torch.nn.attention.varlen.varlen_attn`."""
    calls = []

    def stand_in(q, k, v, edges, edges_k, longest, longest_k):
        calls.append((edges.tolist(), longest))
        assert edges is edges_k and longest == longest_k and edges.dtype == torch.int32
        parts = zip(*(x.split(edges.diff().tolist()) for x in (q, k, v)), strict=True)
        return torch.cat(
            [F.scaled_dot_product_attention(*(x.transpose(0, 1) for x in part)).transpose(0, 1) for part in parts]
        )

    monkeypatch.setattr(varlen, "varlen_attn", lambda: stand_in)
    monkeypatch.setattr(attention, "_takes_varlen", lambda q: True)
    qkv = _qkv(torch.float32)
    for got, wanted in zip(_run(ragged_attention, qkv), _run(bucket_attention, qkv), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    assert calls == [([0, 65, 165, 295], 130)]
    calls.clear()
    q, k, v = qkv.unbind(1)
    plan = AttentionPlan(LENGTHS)
    ragged_attention(q, k, v, plan, torch.zeros(2, 130, 130))  # a bias
    ragged_attention(q, k, v, plan, None, 0.1)  # dropout
    rows = int(LENGTHS[:4].sum())
    ragged_attention(q[:rows], k[:rows], v[:rows], AttentionPlan(LENGTHS[:4]))  # titles only
    assert not calls
    ragged_attention(q[-130:], k[-130:], v[-130:], AttentionPlan(LENGTHS[-1:]))  # bodies only
    assert calls == [([0, 130], 130)]


def test_it_is_not_asked_for_on_a_cpu() -> None:
    assert not attention._takes_varlen(torch.zeros(4, 2, 32, dtype=torch.bfloat16))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_torchs_own_equals_the_plain_form(dtype: torch.dtype) -> None:
    qkv = _qkv(dtype, "cuda")
    assert attention._takes_varlen(qkv[:, 0]) == (varlen.varlen_attn() is not None)
    found = _run(ragged_attention, qkv)
    with use_kernels("torch"):
        assert not attention._takes_varlen(qkv[:, 0])
        wanted = _run(bucket_attention, qkv.detach().float().requires_grad_())
    for got, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, right, atol=2**-6, rtol=2**-6)
