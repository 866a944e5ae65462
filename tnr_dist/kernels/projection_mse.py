# mypy: allow-untyped-defs
"""Weighted squared distance between the student's vectors and all teachers' projected ones: stage 2's embedding losses.

A matrix product with the squared difference in its epilogue: the projected vectors [U, M, D'] exist in registers only,
in the forward pass and, computed anew, in the backward pass. What is stored is one number per news and teacher.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tnr_dist.kernels.launch import Kernel, interpreted, power_of_two, product_precision

if TYPE_CHECKING:
    import triton.language as tl


def fused_projection_mse(
    teachers: Tensor, weight: Tensor, bias: Tensor, student: Tensor, coefficients: Tensor, dtype: torch.dtype
) -> Tensor:
    """The Triton form of `losses.stage2.projection_mse`; `dtype`: of the products."""
    return (coefficients * _squares(teachers.detach(), weight, bias, student, dtype)).sum()


@Kernel
def difference_tile(
    teachers,  # [U, M, D]
    weight,  # [M, D, E]
    bias,  # [M, E]
    student,  # [U, E]
    n,  # [BU] int64, rows of this tile
    i,  # teacher
    e,  # [BE] columns of this tile
    rows,
    stride_u,
    stride_m,
    D: tl.constexpr,
    E: tl.constexpr,
    BK: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Tile [BU, BE] of h_i(n) W_i + b_i - s(n), float32; anything in rows beyond the last."""
    live, within = (n < rows)[:, None], (e < E)[None, :]
    acc = tl.zeros((n.shape[0], e.shape[0]), tl.float32)
    for start in range(0, D, BK):
        k = start + tl.arange(0, BK)
        h = tl.load(
            teachers + n[:, None] * stride_u + i * stride_m + k[None, :], mask=live & (k < D)[None, :], other=0.0
        )
        w = tl.load(weight + (i * D + k)[:, None] * E + e[None, :], mask=(k < D)[:, None] & within, other=0.0)
        if WIDEN:
            acc = tl.dot(h.to(tl.float32), w.to(tl.float32), acc, input_precision=PRECISION)
        else:
            acc = tl.dot(h.to(weight.dtype.element_ty), w, acc, input_precision=PRECISION)
    b = tl.load(bias + i * E + e, mask=e < E, other=0.0).to(tl.float32)
    s = tl.load(student + n[:, None] * E + e[None, :], mask=live & within, other=0.0).to(tl.float32)
    return acc + b[None, :] - s


@Kernel
def squares_kernel(
    teachers,  # [U, M, D]
    weight,  # [M, D, E]
    bias,  # [M, E]
    student,  # [U, E]
    squares,  # [U, M] out
    rows,
    stride_u,
    stride_m,
    M: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
    BU: tl.constexpr,
    BE: tl.constexpr,
    BK: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Squared distances of BU rows to one teacher."""
    n = tl.program_id(0).to(tl.int64) * BU + tl.arange(0, BU)
    i = tl.program_id(1)
    total = tl.zeros((BU,), tl.float32)
    for start in range(0, E, BE):
        e = start + tl.arange(0, BE)
        difference = difference_tile(
            teachers, weight, bias, student, n, i, e, rows, stride_u, stride_m, D, E, BK, WIDEN, PRECISION
        )
        total += tl.sum(difference * difference, axis=1)  # |h_i(n) W_i + b_i - s(n)|^2
    tl.store(squares + n * M + i, total, mask=n < rows)


@Kernel
def student_gradient_kernel(
    teachers,  # [U, M, D]
    weight,  # [M, D, E]
    bias,  # [M, E]
    student,  # [U, E]
    grad,  # [U, M] gradients of the squares
    grad_student,  # [U, E] out
    rows,
    stride_u,
    stride_m,
    M: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
    BU: tl.constexpr,
    BE: tl.constexpr,
    BK: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradient of a tile [BU, BE] of the student's vectors, over all teachers."""
    n = tl.program_id(0).to(tl.int64) * BU + tl.arange(0, BU)
    e = tl.program_id(1) * BE + tl.arange(0, BE)
    total = tl.zeros((BU, BE), tl.float32)
    for i in range(M):
        difference = difference_tile(
            teachers, weight, bias, student, n, i, e, rows, stride_u, stride_m, D, E, BK, WIDEN, PRECISION
        )
        g = tl.load(grad + n * M + i, mask=n < rows, other=0.0)
        total -= 2.0 * g[:, None] * difference  # ds(n) = -sum_i 2 g_i(n) (h_i(n) W_i + b_i - s(n))
    out = grad_student + n[:, None] * E + e[None, :]
    tl.store(out, total.to(grad_student.dtype.element_ty), mask=(n < rows)[:, None] & (e < E)[None, :])


@Kernel
def weight_gradient_kernel(
    teachers,  # [U, M, D]
    weight,  # [M, D, E]
    bias,  # [M, E]
    student,  # [U, E]
    grad,  # [U, M] gradients of the squares
    grad_weight,  # [parts, M, D, E] out, float32: each part's rows
    grad_bias,  # [parts, M, E] out, float32
    rows,
    stride_u,
    stride_m,
    M: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
    TILES: tl.constexpr,
    BU: tl.constexpr,
    BD: tl.constexpr,
    BE: tl.constexpr,
    BK: tl.constexpr,
    WIDEN: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Gradient of a tile [BD, BE] of one teacher's projection, from TILES * BU rows."""
    i = tl.program_id(0) % M
    e = tl.program_id(0) // M * BE + tl.arange(0, BE)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    part = tl.program_id(2).to(tl.int64)
    total = tl.zeros((BD, BE), tl.float32)
    total_bias = tl.zeros((BE,), tl.float32)
    for tile in range(TILES):
        n = (part * TILES + tile) * BU + tl.arange(0, BU)
        difference = difference_tile(
            teachers, weight, bias, student, n, i, e, rows, stride_u, stride_m, D, E, BK, WIDEN, PRECISION
        )
        g = tl.load(grad + n * M + i, mask=n < rows, other=0.0)
        dp = 2.0 * g[:, None] * difference  # gradient of the projected vectors, 0 in rows beyond the last
        at = teachers + n[None, :] * stride_u + i * stride_m + d[:, None]
        h = tl.load(at, mask=(d < D)[:, None] & (n < rows)[None, :], other=0.0)  # [BD, BU], h transposed
        if WIDEN:
            total = tl.dot(h.to(tl.float32), dp, total, input_precision=PRECISION)  # dW_i = sum_n h_i(n)^T dp(n)
        else:
            kind = weight.dtype.element_ty
            total = tl.dot(h.to(kind), dp.to(kind), total, input_precision=PRECISION)
        total_bias += tl.sum(dp, axis=0)  # db_i = sum_n dp(n)
    row = (part * M + i) * D + d
    tl.store(grad_weight + row[:, None] * E + e[None, :], total, mask=(d < D)[:, None] & (e < E)[None, :])
    # Every program of a block of D has the same sum: one of them writes it.
    tl.store(grad_bias + (part * M + i) * E + e, total_bias, mask=(e < E) & (tl.program_id(1) == 0))


_PROGRAMS = 256  # of the weight gradient: two for each multiprocessor of the largest devices


def _constants(teachers: Tensor, weight: Tensor, dtype: torch.dtype) -> dict[str, dict[str, Any]]:
    """Constants of each kernel, its warps and stages included; the blocks are such that nothing spills on sm_90."""
    rows, m, d = teachers.shape
    e = weight.shape[2]
    bd, be = power_of_two(max(d, 16)), power_of_two(max(e, 16))
    shared = {"M": m, "D": d, "E": e, "WIDEN": interpreted(), "PRECISION": product_precision()}
    if dtype.itemsize <= 2:
        forward = {"BU": 64, "BE": min(be, 256), "BK": min(bd, 64), "num_warps": 8, "num_stages": 3}
        student = {"BU": 64, "BE": min(be, 64), "BK": min(bd, 64), "num_warps": 4, "num_stages": 3}
        projection = {
            "BU": 64,
            "BD": min(bd, 128),
            "BE": min(be, 64),
            "BK": min(bd, 64),
            "num_warps": 8,
            "num_stages": 2,
        }
    else:
        forward = {"BU": 64, "BE": min(be, 64), "BK": min(bd, 32), "num_warps": 8, "num_stages": 2}
        student = forward | {"num_stages": 1}
        projection = {
            "BU": 32,
            "BD": min(bd, 64),
            "BE": min(be, 64),
            "BK": min(bd, 32),
            "num_warps": 8,
            "num_stages": 2,
        }
    tiles = -(-rows // projection["BU"])
    parts = max(1, _PROGRAMS // (m * -(-e // projection["BE"]) * -(-d // projection["BD"])))
    # A constant, and a power of two so that few values of it are ever compiled.
    projection["TILES"] = power_of_two(max(1, -(-tiles // parts)))
    return {"forward": shared | forward, "student": shared | student, "projection": shared | projection}


def _prepare(teachers: Tensor, weight: Tensor, bias: Tensor, student: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """The arguments as the kernels read them."""
    teachers = teachers if teachers.stride(-1) == 1 else teachers.contiguous()
    return [teachers, weight.to(dtype).contiguous(), bias.contiguous(), student.contiguous()]


@torch.library.custom_op("tnr_dist::projection_squares", mutates_args=())
def _squares(teachers: Tensor, weight: Tensor, bias: Tensor, student: Tensor, dtype: torch.dtype) -> Tensor:
    """[U, M] float32: |h_i(n) W_i + b_i - s(n)|^2."""
    rows, m, _ = teachers.shape
    squares = student.new_empty(rows, m, dtype=torch.float32)
    constants = _constants(teachers, weight, dtype)["forward"]
    inputs = _prepare(teachers, weight, bias, student, dtype)
    grid = (-(-rows // constants["BU"]), m)
    squares_kernel[grid](*inputs, squares, rows, inputs[0].stride(0), inputs[0].stride(1), **constants)
    return squares


@torch.library.custom_op("tnr_dist::projection_squares_backward", mutates_args=())
def _squares_backward(
    grad: Tensor, teachers: Tensor, weight: Tensor, bias: Tensor, student: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to weight, bias and student."""
    rows, m, d = teachers.shape
    e = student.shape[1]
    constants = _constants(teachers, weight, dtype)
    grad, inputs = grad.contiguous(), _prepare(teachers, weight, bias, student, dtype)
    sizes = (rows, inputs[0].stride(0), inputs[0].stride(1))
    grad_student = torch.empty_like(student, memory_format=torch.contiguous_format)
    one = constants["student"]
    student_gradient_kernel[(-(-rows // one["BU"]), -(-e // one["BE"]))](*inputs, grad, grad_student, *sizes, **one)
    one = constants["projection"]
    parts = -(-rows // (one["BU"] * one["TILES"]))
    grad_weight = student.new_empty(parts, m, d, e, dtype=torch.float32)
    grad_bias = student.new_empty(parts, m, e, dtype=torch.float32)
    grid = (m * -(-e // one["BE"]), -(-d // one["BD"]), parts)
    weight_gradient_kernel[grid](*inputs, grad, grad_weight, grad_bias, *sizes, **one)
    return grad_weight.sum(0).to(weight.dtype), grad_bias.sum(0).to(bias.dtype), grad_student


@_squares.register_fake
def _(teachers: Tensor, weight: Tensor, bias: Tensor, student: Tensor, dtype: torch.dtype) -> Tensor:
    return student.new_empty(teachers.shape[:2], dtype=torch.float32)


@_squares_backward.register_fake
def _(
    grad: Tensor, teachers: Tensor, weight: Tensor, bias: Tensor, student: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    plain = torch.contiguous_format
    weight, bias = torch.empty_like(weight, memory_format=plain), torch.empty_like(bias, memory_format=plain)
    return weight, bias, torch.empty_like(student, memory_format=plain)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.dtype = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return None, *_squares_backward(grad, *ctx.saved_tensors, ctx.dtype), None


_squares.register_autograd(_gradients, setup_context=_save)
