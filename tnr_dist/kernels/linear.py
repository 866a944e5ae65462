"""Linear layers whose bias and GELU are applied to the matrix product before it is written to memory.

No kernels of ours: the libraries of the matrix products can do it, cuBLASLt (`torch._addmm_activation`) and oneDNN
(`torch.ops.mkldnn._linear_pointwise`, which torch.compile calls too); torch's own linear layer does not ask them to.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tnr_dist.kernels.dispatch import Choice, chosen, product_dtype, use_triton


def linear(x: Tensor, weight: Tensor, bias: Tensor, kernels: Choice | None = None) -> Tensor:
    """x W^T + b.

    Args:
        x: [T, d].
        weight: [F, d] in x's dtype where autocast is off, or what `lay_out` makes of it.
        bias: [F].
        kernels: 'torch' for the plain form; None: as `dispatch.use_kernels` says.

    Returns:
        [T, F] in autocast's dtype, or x's.
    """
    if not weight.is_mkldnn and not _onednn(x, weight, kernels):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, weight, bias)):
        return _Linear.apply(x, weight, bias, _dtype(x, weight))  # type: ignore[no-any-return]
    return _pointwise(x, weight, bias, "none")


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor, kernels: Choice | None = None) -> Tensor:
    """GELU(x W^T + b), fused where no gradient is wanted.

    Args and returns as for `linear`; bfloat16 from the fused form of CUDA.
    """
    if torch.is_grad_enabled():
        return F.gelu(linear(x, weight, bias, kernels))
    if weight.is_mkldnn or _onednn(x, weight, kernels):
        return _pointwise(x, weight, bias, "gelu")
    if _cublaslt(x, weight, kernels):
        return _linear_gelu_cuda(x, weight, bias)
    return linear_gelu_reference(x, weight, bias)


def linear_gelu_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`linear_gelu` in plain torch."""
    return F.gelu(F.linear(x, weight, bias))


def lay_out(weight: Tensor, x: Tensor, kernels: Choice | None = None) -> Tensor:
    """A weight [F, d] as oneDNN multiplies it by inputs like `x`, for many calls without gradients.

    Returns:
        A tensor for `linear` and `linear_gelu` only, which later changes of `weight` do not reach; `weight` itself where
        oneDNN is not used.
    """
    if not _onednn(x, weight, kernels):
        return weight
    laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().to(_dtype(x, weight)), None)
    return laid_out


def _cublaslt(x: Tensor, weight: Tensor, kernels: Choice | None) -> bool:
    """CUDA in bfloat16, if that is chosen."""
    return (
        x.is_cuda
        and product_dtype(x, weight) == torch.bfloat16
        and hasattr(torch, "_addmm_activation")
        and use_triton(kernels, x, "linear_gelu")
    )


def _linear_gelu_cuda(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The fused form; autocast knows nothing of it, so the casts are made here."""
    x, weight, bias = x.bfloat16(), weight.bfloat16(), bias.bfloat16()
    # The library has GELU's tanh approximation only, at most 5e-4 from the exact one. The plain form rounds x W^T + b to
    # bfloat16 first, which costs ten times as much: for x W^T + b ~ N(0, 1) 1.3e-3 (RMS) against 1e-4.
    with torch.autocast(x.device.type, enabled=False):
        return torch._addmm_activation(bias, x, weight.t(), use_gelu=True)


def _onednn(x: Tensor, weight: Tensor, kernels: Choice | None) -> bool:
    """On a CPU whose dtype oneDNN multiplies, unless plain torch is chosen or a compiler or exporter looks on."""
    return (
        x.device.type == weight.device.type == "cpu"
        and chosen(kernels) != "torch"
        and _dtype(x, weight) in _onednn_dtypes()
        and not torch.compiler.is_compiling()
    )


def _dtype(x: Tensor, weight: Tensor) -> torch.dtype | None:
    """In which x and the weight are multiplied; None where `F.linear` refuses them."""
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    return x.dtype if x.dtype == weight.dtype else None


@functools.cache
def _onednn_dtypes() -> tuple[torch.dtype, ...]:
    ops: Any = torch.ops.mkldnn
    if not torch.backends.mkldnn.is_available() or not hasattr(ops, "_linear_pointwise"):
        return ()
    return (torch.float32, torch.bfloat16) if ops._is_mkldnn_bf16_supported() else (torch.float32,)


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """oneDNN's form; autocast knows nothing of it, so the casts are made here. Its GELU is the exact one."""
    dtype = weight.dtype if weight.is_mkldnn else _dtype(x, weight)
    weight = weight if weight.is_mkldnn else weight.to(dtype)
    return torch.ops.mkldnn._linear_pointwise(x.to(dtype), weight, bias.to(dtype), activation, [], "none")  # type: ignore[no-any-return]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.dtypes = x.dtype, weight.dtype, bias.dtype
        x, weight = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(x, weight)
        return _pointwise(x, weight, bias, "none")

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.dtypes
        with torch.autocast("cpu", enabled=False):
            return (
                grad.mm(weight).to(to_x) if ctx.needs_input_grad[0] else None,
                grad.t().mm(x).to(to_weight) if ctx.needs_input_grad[1] else None,
                grad.sum(0).to(to_bias) if ctx.needs_input_grad[2] else None,
                None,
            )
