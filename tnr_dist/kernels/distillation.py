# mypy: allow-untyped-defs, allow-incomplete-defs
"""The second stage's loss of each sample in one pass over the teachers' logits [B, M, C].

Teachers' cross-entropies, their weights, blended soft labels, distillation and target loss, and in the backward pass the
gradients to the student's scores and to omega: everything is recomputed from the inputs, nothing but them is saved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tnr_dist.kernels.context import Context
from tnr_dist.kernels.launch import Kernel, power_of_two

if TYPE_CHECKING:
    import triton.language as tl


def fused_distillation(
    teacher_logits: Tensor,
    omega: Tensor | float,
    student_scores: Tensor,
    weights: Tensor,
    count: float,
    candidate_mask: Tensor | None = None,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The Triton form of `losses.stage2.distillation`, which says what the arguments are.

    Returns:
        Losses [2] (distillation and target, this rank's share of the global means) and teachers' weights [B, M], float32.
    """
    if not isinstance(omega, Tensor):
        omega = torch.full((1,), omega, dtype=torch.float32, device=student_scores.device)
    losses: tuple[Tensor, Tensor] = _forward(
        teacher_logits.detach(), omega, student_scores, weights.detach(), candidate_mask, 1.0 / count, temperature
    )
    return losses


@Kernel
def distillation_kernel(
    logits,  # [B, M, C]
    omega,  # [1]
    student,  # [B, C]
    weights,  # [B]
    mask,  # [B, C] bool, or None
    losses,  # [programs, 2] out, forward: distillation and target loss of each program's samples
    teacher,  # [B, M] out, forward
    grad_losses,  # [2] gradients of the two losses, backward
    grad_teacher,  # [B, M] backward
    grad_student,  # [B, C] out, backward
    grad_omega,  # [programs] out, backward: each program's part
    samples,
    teachers,
    candidates,
    logits_b,  # strides of logits
    logits_m,
    logits_c,
    scale,  # 1 / count
    temperature,
    MASKED: tl.constexpr,
    BACKWARD: tl.constexpr,
    BB: tl.constexpr,
    BM: tl.constexpr,
    BC: tl.constexpr,
):
    """Losses and teachers' weights of BB samples, or their gradients, with all that leads to them computed anew."""
    pid = tl.program_id(0)
    b, m, c = pid * BB + tl.arange(0, BB), tl.arange(0, BM), tl.arange(0, BC)
    in_batch, is_teacher = b < samples, (m < teachers)[None, :]
    at, slot = b[:, None] * candidates + c[None, :], in_batch[:, None] & (c < candidates)[None, :]
    keep = slot
    if MASKED:
        keep = slot & (tl.load(mask + at, mask=slot, other=0) != 0)
    first = keep & (c == 0)[None, :]
    has_click = tl.max(first.to(tl.int32), axis=1) > 0
    low = -3.0e38  # finite: the difference of two of them is 0, not NaN
    exists = keep[:, None, :] & (m < teachers)[None, :, None]
    here = b.to(tl.int64)[:, None, None] * logits_b + m[None, :, None] * logits_m + c[None, None, :] * logits_c
    y = tl.load(logits + here, mask=exists, other=0.0).to(tl.float32)
    s = tl.load(student + at, mask=keep, other=0.0).to(tl.float32)
    share = tl.load(weights + b, mask=in_batch, other=0.0).to(tl.float32) * scale

    # CE_i = log sum_c exp(y_ic) - y_i0, 0 for a sample whose click is masked
    kept = tl.where(exists, y, low)
    top = tl.max(kept, axis=2)
    total = tl.sum(tl.where(exists, tl.exp(kept - top[:, :, None]), 0.0), axis=2)
    clicked = has_click[:, None] & is_teacher
    log_total = top + tl.log(tl.where(clicked, total, 1.0))
    ce = tl.where(clicked, log_total - tl.sum(tl.where(first[:, None, :], y, 0.0), axis=2), 0.0)
    # w_i = exp(-omega * CE_i) / sum_j exp(-omega * CE_j)
    a = tl.where(is_teacher, -tl.load(omega).to(tl.float32) * ce, low)
    w = tl.exp(a - tl.max(a, axis=1)[:, None])
    w = w / tl.sum(w, axis=1)[:, None]
    # p = softmax(sum_i w_i y_i / T)
    blend = tl.where(keep, tl.sum(w[:, :, None] * y, axis=1) / temperature, low)
    p = tl.where(keep, tl.exp(blend - tl.max(blend, axis=1)[:, None]), 0.0)
    mass = tl.sum(p, axis=1)
    p = p / tl.where(mass > 0, mass, 1.0)[:, None]
    # log q = log softmax(s / T)
    x = tl.where(keep, s / temperature, low)
    top_x = tl.max(x, axis=1)
    q = tl.where(keep, tl.exp(x - top_x[:, None]), 0.0)
    sum_q = tl.sum(q, axis=1)
    sum_q = tl.where(sum_q > 0, sum_q, 1.0)
    log_q = tl.where(keep, x - (top_x + tl.log(sum_q))[:, None], 0.0)
    # r = softmax(s), the student without temperature
    z = tl.where(keep, s, low)
    top_z = tl.max(z, axis=1)
    r = tl.where(keep, tl.exp(z - top_z[:, None]), 0.0)
    sum_r = tl.sum(r, axis=1)
    sum_r = tl.where(sum_r > 0, sum_r, 1.0)

    at_teacher, of_teacher = b[:, None] * teachers + m[None, :], in_batch[:, None] & is_teacher
    if BACKWARD:
        to_distill = tl.load(grad_losses).to(tl.float32) * share
        to_target = tl.load(grad_losses + 1).to(tl.float32) * share
        # d L_distill / d s = T * (q - p);  d L_target / d s = r - (1, 0, ..., 0)
        from_distill = temperature * (q / sum_q[:, None] - p)
        from_target = tl.where(has_click[:, None], r / sum_r[:, None] - tl.where(first, 1.0, 0.0), 0.0)
        ds = to_distill[:, None] * from_distill + to_target[:, None] * from_target
        tl.store(grad_student + at, ds.to(grad_student.dtype.element_ty), mask=slot)
        # d L_distill / d blend_c = T * p_c * (sum_k p_k log q_k - log q_c)
        mean_log_q = tl.sum(p * log_q, axis=1)
        dblend = (to_distill * temperature)[:, None] * p * (mean_log_q[:, None] - log_q)
        # dw_i = sum_c dblend_c * y_ic + what comes from outside;  d w_i / d omega = -w_i * (CE_i - sum_j w_j CE_j)
        outside = tl.load(grad_teacher + at_teacher, mask=of_teacher, other=0.0).to(tl.float32)
        dw = tl.sum(dblend[:, None, :] * y, axis=2) + outside
        mean_ce = tl.sum(w * ce, axis=1)
        domega = -tl.sum(w * (ce - mean_ce[:, None]) * dw, axis=1)
        tl.store(grad_omega + pid, tl.sum(tl.where(in_batch, domega, 0.0), axis=0))
    else:
        tl.store(teacher + at_teacher, w, mask=of_teacher)
        # L_distill = -T^2 * sum_c p_c * log q_c;  L_target = log sum_c exp(s_c) - s_0
        distill = -temperature * temperature * tl.sum(p * log_q, axis=1)
        nll = top_z + tl.log(sum_r) - tl.sum(tl.where(first, s, 0.0), axis=1)
        tl.store(losses + pid * 2, tl.sum(share * distill, axis=0))
        tl.store(losses + pid * 2 + 1, tl.sum(share * tl.where(has_click, nll, 0.0), axis=0))


def _blocks(shape: torch.Size) -> dict[str, int]:
    """Block sizes for logits [B, M, C]: about 2,048 of them to a program, so that they stay in registers."""
    samples, teachers, candidates = shape
    bm, bc = power_of_two(teachers), power_of_two(candidates)
    return {"BB": max(1, min(32, 2048 // (bm * bc), power_of_two(max(samples, 1)))), "BM": bm, "BC": bc}


@torch.library.custom_op("tnr_dist::distillation", mutates_args=())
def _forward(
    logits: Tensor,
    omega: Tensor,
    student: Tensor,
    weights: Tensor,
    mask: Tensor | None,
    scale: float,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Losses [2] and teachers' weights [B, M]."""
    samples, teachers, candidates = logits.shape
    student, weights, mask = student.contiguous(), weights.contiguous(), None if mask is None else mask.contiguous()
    blocks = _blocks(logits.shape)
    programs = -(-samples // blocks["BB"])
    losses = student.new_empty(programs, 2, dtype=torch.float32)
    teacher = student.new_empty(samples, teachers, dtype=torch.float32)
    sizes = (samples, teachers, candidates, *logits.stride(), scale, temperature)
    distillation_kernel[(programs,)](
        logits, omega, student, weights, mask, losses, teacher, None, None, None, None, *sizes,
        MASKED=mask is not None, BACKWARD=False, **blocks, num_warps=4,
    )  # fmt: skip
    return losses.sum(0), teacher


@torch.library.custom_op("tnr_dist::distillation_backward", mutates_args=())
def _backward(
    grad_losses: Tensor,
    grad_teacher: Tensor,
    logits: Tensor,
    omega: Tensor,
    student: Tensor,
    weights: Tensor,
    mask: Tensor | None,
    scale: float,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Gradients to omega and to the student's scores [B, C]."""
    samples, teachers, candidates = logits.shape
    student, weights, mask = student.contiguous(), weights.contiguous(), None if mask is None else mask.contiguous()
    blocks = _blocks(logits.shape)
    programs = -(-samples // blocks["BB"])
    grad_student = torch.empty_like(student)
    grad_omega = student.new_empty(programs, dtype=torch.float32)
    sizes = (samples, teachers, candidates, *logits.stride(), scale, temperature)
    distillation_kernel[(programs,)](
        logits, omega, student, weights, mask, None, None, grad_losses.contiguous(), grad_teacher.contiguous(),
        grad_student, grad_omega, *sizes, MASKED=mask is not None, BACKWARD=True, **blocks, num_warps=4,
    )  # fmt: skip
    return grad_omega.sum().to(omega.dtype).reshape(omega.shape), grad_student


@_forward.register_fake
def _(logits: Tensor, omega: Tensor, student: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return student.new_empty(2, dtype=torch.float32), student.new_empty(logits.shape[:2], dtype=torch.float32)


@_backward.register_fake
def _(
    grad_losses: Tensor, grad_teacher: Tensor, logits: Tensor, omega: Tensor, student: Tensor, *_: object
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(omega), torch.empty_like(student, memory_format=torch.contiguous_format)


def _save(ctx: Context, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.scale, ctx.temperature = inputs
    ctx.save_for_backward(*tensors)


def _gradients(ctx: Context, grad_losses: Tensor, grad_teacher: Tensor) -> tuple[Tensor | None, ...]:
    grad_omega, grad_student = _backward(grad_losses, grad_teacher, *ctx.saved_tensors, ctx.scale, ctx.temperature)
    return None, grad_omega, grad_student, None, None, None, None


_forward.register_autograd(_gradients, setup_context=_save)
