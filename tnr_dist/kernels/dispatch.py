"""The layers' operations, and the choice of the form in which each runs.

Each has a plain form in torch here (`NAME_reference` or the function itself) and a Triton form in a file of its name,
which must equal it. Attention and pooling are in `attention.py`, the losses' own in `losses/stage2.py`. The linear layer's
other form is the libraries' own: cuBLASLt (`torch._addmm_activation`) and oneDNN (`torch.ops.mkldnn._linear_pointwise`,
which torch.compile calls too) add bias and GELU before the product is written; torch's linear layer does not ask them to.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from tnr_dist.kernels.context import Context
from tnr_dist.kernels.gather_cast import fused_gather_cast
from tnr_dist.kernels.launch import interpreted
from tnr_dist.kernels.residual_norm import MAX_WIDTH, fused_residual_norm
from tnr_dist.util.errors import InputError

Choice = Literal["auto", "triton", "torch"]

# What `kernels=auto` takes on CUDA: the kernels that were measured to beat the plain form at the real sizes
# (`tnr bench kernels`, benchmarks/results/gpu-h200; docs/performance.md says where torch.compile would do better still).
# One without an entry counts as False.
AUTO: dict[str, bool] = {
    "distillation": True,
    "additive_pooling": True,
    "ragged_attention": True,
    "gather_cast": True,
    "residual_norm": True,
    "varlen_attention": True,  # not measured yet; it is torch's own, for sequences above 64 tokens without dropout
    "linear_gelu": True,  # not measured yet; it is cuBLASLt's, not Triton's
}

_chosen: Choice = "auto"
_ROWS = 2048  # of which `layer_norm` holds float32 copies: at width 384 they stay in a core's cache


@contextlib.contextmanager
def use_kernels(choice: Choice) -> Iterator[None]:
    """Within this context every operation runs as `choice` says, unless its call says otherwise.

    A stage enters it once, around all that it computes, backward passes included: activations that are computed again
    choose again. It holds for the whole process, not for one thread: autograd runs threads of its own.

    Raises:
        InputError: for an unknown choice.
    """
    global _chosen
    before, _chosen = _chosen, _known(choice)
    try:
        yield
    finally:
        _chosen = before


def _known(choice: Choice) -> Choice:
    if choice not in get_args(Choice):
        raise InputError(f"kernels={choice!r}: unknown; one of {', '.join(get_args(Choice))}")
    return choice


def chosen(kernels: Choice | None) -> Choice:
    """A call's own choice, or for None what `use_kernels` has set."""
    return _chosen if kernels is None else _known(kernels)


def use_triton(kernels: Choice | None, tensor: Tensor, name: str) -> bool:
    """Whether the Triton form of an operation is to run on `tensor`.

    Args:
        kernels: 'torch' for the plain form, 'triton' for the kernel, 'auto' for the kernel where it is known to win
            (`AUTO`) and can run; None as for `chosen`.
        tensor: one of the operation's inputs; tells device and dtype.
        name: the operation.

    Raises:
        InputError: for an unknown choice; for 'triton' where Triton is missing, on CPU tensors without the interpreter,
            or on float64, in which no kernel computes.
    """
    choice = chosen(kernels)
    if choice == "torch":
        return False
    if choice == "auto":
        return AUTO.get(name, False) and tensor.is_cuda and tensor.dtype != torch.float64 and _has_triton()
    if not _has_triton():
        raise InputError(
            f"kernels=triton: {name} needs Triton, which is not installed; pip install triton or kernels=torch"
        )
    if not tensor.is_cuda and not interpreted():
        raise InputError(
            f"kernels=triton: {name} got tensors on {tensor.device}, but Triton needs a CUDA device; kernels=auto or torch"
            " (TRITON_INTERPRET=1 runs kernels on the CPU, slowly, to test them)"
        )
    if tensor.dtype == torch.float64:
        raise InputError(f"kernels=triton: {name} got float64, but its kernel computes in float32; kernels=torch")
    return True


@functools.cache
def _has_triton() -> bool:
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def product_dtype(*operands: Tensor) -> torch.dtype:
    """The dtype in which an operation multiplies matrices, the same in both of its forms; sums are in float32.

    Autocast's where it is on; else the narrowest of the operands', so that a bfloat16 table is not widened for the sake
    of float32 weights.
    """
    device = operands[0].device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    narrowest = operands[0].dtype  # a loop, not min(key=...): torch.compile breaks its graph there
    for operand in operands[1:]:
        narrowest = operand.dtype if operand.dtype.itemsize < narrowest.itemsize else narrowest
    return narrowest


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
        out: Tensor = _Linear.apply(x, weight, bias, _dtype(x, weight))  # type: ignore[no-untyped-call]
        return out
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
    """A weight [F, d] as inputs like `x` are multiplied by it, for many calls without gradients.

    Returns:
        A tensor for `linear` and `linear_gelu` only, which later changes of `weight` do not reach: in oneDNN's layout, or
        in autocast's dtype; `weight` itself where neither is used.
    """
    if not _onednn(x, weight, kernels):
        device = weight.device.type
        on = torch.is_autocast_enabled(device)
        return weight.detach().to(torch.get_autocast_dtype(device)) if on else weight
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
    ops = torch.ops.mkldnn
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
    def forward(ctx: Context, x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.dtypes = x.dtype, weight.dtype, bias.dtype
        x, weight = x.to(dtype), weight.to(dtype)
        ctx.save_for_backward(x, weight)
        return _pointwise(x, weight, bias, "none")

    @staticmethod
    @once_differentiable
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.dtypes
        with torch.autocast("cpu", enabled=False):
            return (
                grad.mm(weight).to(to_x) if ctx.needs_input_grad[0] else None,
                grad.t().mm(x).to(to_weight) if ctx.needs_input_grad[1] else None,
                grad.sum(0).to(to_bias) if ctx.needs_input_grad[2] else None,
                None,
            )


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """LayerNorm over the last dimension.

    On a CPU torch sums the gradients of a float32 weight and bias in the dtype of a half-precision input. Over the
    thousands of tokens of a batch the sum then stops growing: with bf16 the error was 8 to 93 % of the gradient. Here the
    two are summed in float32. The output and the gradient of `x` are torch's own.

    Args:
        x: [T, d], float32, bfloat16 or float16.
        weight: [d].
        bias: [d].
        eps: added to the variance.

    Returns:
        [T, d]; in the dtype of x on a CPU, elsewhere in what torch or autocast makes of it.

    Source: Ba et al. 2016, "Layer Normalization".
    """
    half = x.dtype in (torch.bfloat16, torch.float16)
    if half and x.device.type == "cpu" and torch.is_grad_enabled() and (weight.requires_grad or bias.requires_grad):
        out: Tensor = _LayerNorm.apply(x, weight, bias, eps)  # type: ignore[no-untyped-call]
        return out
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps)


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Context, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        out, mean, inverse = torch.native_layer_norm(x, x.shape[-1:], weight, bias, eps)
        ctx.save_for_backward(x, mean, inverse, weight, bias)
        return out

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, inverse, weight, bias = ctx.saved_tensors
        grad, shape = grad.contiguous(), x.shape[-1:]
        backward = torch.ops.aten.native_layer_norm_backward
        dx = None
        if ctx.needs_input_grad[0]:
            dx = backward(grad, x, shape, mean, inverse, weight, bias, [True, False, False])[0]
        exact = torch.zeros(2, *shape)
        for part in zip(*(t.split(_ROWS) for t in (grad, x, mean, inverse)), strict=True):
            g, h, m, i = (t.float() for t in part)
            _, dw, db = backward(g, h, shape, m, i, weight.float(), bias.float(), [False, True, True])
            exact += torch.stack([dw, db])
        dw, db = exact
        return (
            dx,
            dw.to(weight.dtype) if ctx.needs_input_grad[1] else None,
            db.to(bias.dtype) if ctx.needs_input_grad[2] else None,
            None,
        )


def residual_norm(
    x: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    dropout_p: float = 0.0,
    kernels: Choice | None = None,
) -> Tensor:
    """LayerNorm(x + dropout(y)) over the last dimension.

    Args:
        x: [T, d], float32, bfloat16 or float16; d above `MAX_WIDTH` takes the plain form.
        y: [T, d], likewise, not necessarily of x's dtype.
        weight: [d].
        bias: [d].
        eps: added to the variance.
        dropout_p: share of y's elements that are dropped, drawn from the device's generator; 0 draws nothing.
        kernels: the form that runs; None: as `dispatch.use_kernels` says.

    Returns:
        [T, d] in the dtype of x, computed in float32 (the plain form: in what torch or autocast makes of the inputs).
        Gradients flow to x, y, weight and bias.

    Raises:
        InputError: if that is 'triton' and Triton cannot run on these tensors.

    Source: Vaswani et al. 2017, "Attention Is All You Need", 5.4.
    """
    if not use_triton(kernels, x, "residual_norm") or x.shape[-1] > MAX_WIDTH:
        return residual_norm_reference(x, y, weight, bias, eps, dropout_p)
    return fused_residual_norm(x, y, weight, bias, eps, dropout_p)


def residual_norm_reference(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, eps: float, dropout_p: float = 0.0
) -> Tensor:
    """`residual_norm` in plain torch."""
    return layer_norm(x + F.dropout(y, dropout_p, dropout_p > 0), weight, bias, eps)


def gather_cast(table: Tensor, index: Tensor, dtype: torch.dtype, kernels: Choice | None = None) -> Tensor:
    """table[index] in another dtype.

    Args:
        table: [V, ...], float32, bfloat16 or float16; its rows may lie apart.
        index: [U] int32 or int64, in [0, V); the kernel, unlike torch, does not check it.
        dtype: of the result.
        kernels: the form that runs; None: as `dispatch.use_kernels` says.

    Returns:
        [U, ...]. Gradients flow to the table, summed in float32.
    """
    rows_are_whole = table[:1].is_contiguous()
    if not rows_are_whole or not use_triton(kernels, table, "gather_cast"):
        return gather_cast_reference(table, index, dtype)
    return fused_gather_cast(table, index, dtype)


def gather_cast_reference(table: Tensor, index: Tensor, dtype: torch.dtype) -> Tensor:
    """`gather_cast` in plain torch."""
    return table.index_select(0, index).to(dtype)
