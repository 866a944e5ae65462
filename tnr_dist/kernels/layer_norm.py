"""LayerNorm whose weight's and bias's gradients are summed in float32, whatever the dtype of its input."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows whose float32 copies are held at a time: at width 384 they stay in a core's cache.
_ROWS = 2048


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
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        out, mean, inverse = torch.native_layer_norm(x, x.shape[-1:], weight, bias, eps)
        ctx.save_for_backward(x, mean, inverse, weight, bias)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
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
