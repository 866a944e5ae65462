"""First half of a feed-forward block, GELU(x W^T + b), without a pass over memory of its own for the GELU.

No kernel of ours: the matrix product's library (cuBLASLt) applies bias and GELU to the product before it is written.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tnr_dist.kernels.dispatch import Choice, product_dtype, use_triton


def fuses(x: Tensor, weight: Tensor, kernels: Choice | None = None) -> bool:
    """Whether `linear_gelu` takes its fused form: without gradients, on CUDA, in bfloat16, if that is chosen."""
    return (
        x.is_cuda
        and not torch.is_grad_enabled()
        and product_dtype(x, weight) == torch.bfloat16
        and hasattr(torch, "_addmm_activation")
        and use_triton(kernels, x, "linear_gelu")
    )


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor, kernels: Choice | None = None) -> Tensor:
    """GELU(x W^T + b).

    Args:
        x: [T, d].
        weight: [F, d].
        bias: [F].
        kernels: 'torch' for the plain form; None: as `dispatch.use_kernels` says. See `fuses`.

    Returns:
        [T, F] in autocast's dtype, or x's; bfloat16 from the fused form.
    """
    form = _linear_gelu_bf16 if fuses(x, weight, kernels) else linear_gelu_reference
    return form(x, weight, bias)


def linear_gelu_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`linear_gelu` in plain torch."""
    return F.gelu(F.linear(x, weight, bias))


def _linear_gelu_bf16(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The fused form; autocast knows nothing of it, so the casts are made here."""
    x, weight, bias = x.bfloat16(), weight.bfloat16(), bias.bfloat16()
    # The library has GELU's tanh approximation only, at most 5e-4 from the exact one. The plain form rounds x W^T + b to
    # bfloat16 first, which costs ten times as much: for x W^T + b ~ N(0, 1) 1.3e-3 (RMS) against 1e-4.
    with torch.autocast(x.device.type, enabled=False):
        return torch._addmm_activation(bias, x, weight.t(), use_gelu=True)
