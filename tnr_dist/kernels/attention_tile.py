# mypy: allow-untyped-defs, allow-incomplete-defs
"""The Triton code of `ragged_attention`: forward and backward pass of one tile of one head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tnr_dist.kernels.launch import Kernel

if TYPE_CHECKING:
    import triton.language as tl


@Kernel
def load_rows(ptr, rows, valid, stride, D: tl.constexpr, WIDTH: tl.constexpr, UPCAST: tl.constexpr):
    """Rows of one head, [BLOCK, WIDTH]; 0 beyond `valid` rows and beyond D columns."""
    column = tl.arange(0, WIDTH)
    offset = rows.to(tl.int64)[:, None] * stride + column[None, :]
    x = tl.load(ptr + offset, mask=valid[:, None] & (column < D)[None, :], other=0.0)
    if UPCAST:
        x = x.to(tl.float32)
    return x


@Kernel
def store_rows(ptr, x, rows, valid, stride, D: tl.constexpr, WIDTH: tl.constexpr):
    """Write rows of one head, [BLOCK, WIDTH], where they exist."""
    column = tl.arange(0, WIDTH)
    offset = rows.to(tl.int64)[:, None] * stride + column[None, :]
    tl.store(ptr + offset, x.to(ptr.dtype.element_ty), mask=valid[:, None] & (column < D)[None, :])


@Kernel
def tile_rows(starts_ptr, first, stop, BLOCK: tl.constexpr, NONE: tl.constexpr):
    """Row numbers, which of them exist, and the first row of each one's sequence (`NONE` where there is none)."""
    rows = first + tl.arange(0, BLOCK)
    valid = rows < stop
    return rows, valid, tl.load(starts_ptr + rows, mask=valid, other=NONE)


@Kernel
def tile_scores(
    q, k, rows_q, rows_k, starts_q, starts_k, bias_ptr, stride_i, stride_j, scale, PRECISION: tl.constexpr,
    BIAS: tl.constexpr,
):  # fmt: skip
    """Scores in units of log 2, -1e30 where the pair is not of one sequence; and which pairs are."""
    same = starts_q[:, None] == starts_k[None, :]
    # S_ij = (q_i . k_j / sqrt(head_dim) + b_ij) log2(e)
    s = tl.dot(q, tl.trans(k), input_precision=PRECISION) * (scale * 1.4426950408889634)
    if BIAS:
        place = (rows_q - starts_q)[:, None] * stride_i + (rows_k - starts_k)[None, :] * stride_j
        s += tl.load(bias_ptr + place, mask=same, other=0.0).to(tl.float32) * 1.4426950408889634
    return tl.where(same, s, -1e30), same


@Kernel
def tile_keep(seed, rows_q, first_key, head, dropout_p, BLOCK: tl.constexpr):
    """[BLOCK, BLOCK] 1 = keep, from the counter (row, first key of the tile + quad, head): 4 values a Philox call."""
    quad = tl.arange(0, BLOCK // 4)[None, :]
    c0 = rows_q[:, None] + quad * 0
    c1 = first_key + quad + rows_q[:, None] * 0
    r0, r1, r2, r3 = tl.philox(seed, c0, c1, c0 * 0 + head, c0 * 0, 7)
    a = (tl.uint_to_uniform_float(r0) >= dropout_p).to(tl.int8)
    b = (tl.uint_to_uniform_float(r1) >= dropout_p).to(tl.int8)
    c = (tl.uint_to_uniform_float(r2) >= dropout_p).to(tl.int8)
    d = (tl.uint_to_uniform_float(r3) >= dropout_p).to(tl.int8)
    return tl.reshape(tl.join(tl.join(a, b), tl.join(c, d)), (BLOCK, BLOCK)) != 0


@Kernel
def attention_kernel(
    q_ptr,  # [T, H, D], rows `stride_q` apart
    k_ptr,  # [T, H, D]
    v_ptr,  # [T, H, D]
    bias_ptr,  # b_ij of head h at origin + h * stride_h + i * stride_i + j * stride_j
    out_ptr,  # [T, H, D]
    lse_ptr,  # [H, T] float32, in units of log 2
    tiles_ptr,  # [N, 4] int32
    starts_ptr,  # [T] int32
    seed_ptr,  # [1] int64
    stride_q, stride_k, stride_v, origin, stride_h, stride_i, stride_j, T, scale, dropout_p,
    H: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, CLOSED: tl.constexpr,
    BIAS: tl.constexpr, DROPOUT: tl.constexpr, UPCAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Program: one tile of one head; heads vary fastest, so that neighbours read the same rows."""
    tile = tl.program_id(0) // H
    head = tl.program_id(0) % H
    first = tl.load(tiles_ptr + tile * 4)
    rows, valid, starts = tile_rows(starts_ptr, first, tl.load(tiles_ptr + tile * 4 + 1), BLOCK, -1)
    q = load_rows(q_ptr + head * D, rows, valid, stride_q, D, WIDTH, UPCAST)
    bias_ptr += origin + head.to(tl.int64) * stride_h
    if DROPOUT:
        seed = tl.load(seed_ptr)
    else:
        seed = 0
    if CLOSED:
        rows_k, valid_k, starts_k = tile_rows(starts_ptr, first, tl.load(tiles_ptr + tile * 4 + 1), BLOCK, -2)
        k = load_rows(k_ptr + head * D, rows_k, valid_k, stride_k, D, WIDTH, UPCAST)
        v = load_rows(v_ptr + head * D, rows_k, valid_k, stride_v, D, WIDTH, UPCAST)
        s, same = tile_scores(
            q, k, rows, rows_k, starts, starts_k, bias_ptr, stride_i, stride_j, scale, PRECISION, BIAS
        )
        high = tl.max(s, 1)
        p = tl.where(same, tl.exp2(s - high[:, None]), 0.0)
        total = tl.sum(p, 1)
        if DROPOUT:
            p = tl.where(tile_keep(seed, rows, first, head, dropout_p, BLOCK), p, 0.0)
        out = tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
    else:
        high = tl.full((BLOCK,), -1e30, tl.float32)
        total = tl.zeros((BLOCK,), tl.float32)
        out = tl.zeros((BLOCK, WIDTH), tl.float32)
        stop = tl.load(tiles_ptr + tile * 4 + 3)
        for key in range(tl.load(tiles_ptr + tile * 4 + 2), stop, BLOCK):
            rows_k, valid_k, starts_k = tile_rows(starts_ptr, key, stop, BLOCK, -2)
            k = load_rows(k_ptr + head * D, rows_k, valid_k, stride_k, D, WIDTH, UPCAST)
            v = load_rows(v_ptr + head * D, rows_k, valid_k, stride_v, D, WIDTH, UPCAST)
            s, same = tile_scores(
                q, k, rows, rows_k, starts, starts_k, bias_ptr, stride_i, stride_j, scale, PRECISION, BIAS
            )
            higher = tl.maximum(high, tl.max(s, 1))
            shrink = tl.exp2(high - higher)
            p = tl.where(same, tl.exp2(s - higher[:, None]), 0.0)
            total = total * shrink + tl.sum(p, 1)
            if DROPOUT:
                p = tl.where(tile_keep(seed, rows, key, head, dropout_p, BLOCK), p, 0.0)
            out = out * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision=PRECISION)
            high = higher
    total = tl.where(valid, total, 1.0)
    # O_i = sum_j P_ij keep_ij / (1 - p) v_j;  LSE_i = log2 sum_j 2^S_ij
    out = out / (total * (1.0 - dropout_p))[:, None]
    store_rows(out_ptr + head * D, out, rows, valid, H * D, D, WIDTH)
    tl.store(lse_ptr + head.to(tl.int64) * T + rows, high + tl.log2(total), mask=valid)


@Kernel
def tile_pair(
    q, k, v, dout, delta, lse, rows_q, rows_k, starts_q, starts_k, bias_ptr, stride_i, stride_j, scale, seed,
    first_key, head, dropout_p, BLOCK: tl.constexpr, BIAS: tl.constexpr, DROPOUT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Probabilities after dropout and gradients of the scores of a query tile and a key tile; and which pairs are."""
    s, same = tile_scores(
        q, k, rows_q, rows_k, starts_q, starts_k, bias_ptr, stride_i, stride_j, scale, PRECISION, BIAS
    )
    p = tl.where(same, tl.exp2(s - lse[:, None]), 0.0)
    # dP_ij = keep_ij / (1 - p) dO_i . v_j
    dp = tl.dot(dout, tl.trans(v), input_precision=PRECISION)
    dropped = p
    if DROPOUT:
        keep = tile_keep(seed, rows_q, first_key, head, dropout_p, BLOCK)
        dropped = tl.where(keep, p / (1.0 - dropout_p), 0.0)
        dp = tl.where(keep, dp / (1.0 - dropout_p), 0.0)
    # dS_ij = P_ij (dP_ij - delta_i)
    return dropped, p * (dp - delta[:, None]), same


@Kernel
def tile_queries(
    q_ptr, dout_ptr, out_ptr, lse_ptr, rows, valid, head, stride_q, T, H: tl.constexpr, D: tl.constexpr,
    WIDTH: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """What the backward pass needs of a query tile: q, dO, delta and the log-sum-exp."""
    q = load_rows(q_ptr + head * D, rows, valid, stride_q, D, WIDTH, UPCAST)
    dout = load_rows(dout_ptr + head * D, rows, valid, H * D, D, WIDTH, UPCAST)
    out = load_rows(out_ptr + head * D, rows, valid, H * D, D, WIDTH, UPCAST)
    # delta_i = sum_d dO_id O_id = sum_j P_ij dP_ij
    delta = tl.sum(dout.to(tl.float32) * out.to(tl.float32), 1)
    return q, dout, delta, tl.load(lse_ptr + head.to(tl.int64) * T + rows, mask=valid, other=0.0)


@Kernel
def add_bias_grad(dbias_ptr, ds, same, rows_q, rows_k, starts_q, starts_k, stride_i, stride_j):
    """db_ij = sum over sequences of dS_ij."""
    place = (rows_q - starts_q)[:, None] * stride_i + (rows_k - starts_k)[None, :] * stride_j
    tl.atomic_add(dbias_ptr + place, ds, mask=same)


@Kernel
def attention_gradient_kernel(
    q_ptr,  # [T, H, D], rows `stride_q` apart
    k_ptr,  # [T, H, D]
    v_ptr,  # [T, H, D]
    bias_ptr,  # as in `attention_kernel`
    out_ptr,  # [T, H, D]
    dout_ptr,  # [T, H, D]
    lse_ptr,  # [H, T] float32
    dq_ptr,  # [T, H, D]
    dk_ptr,  # [T, H, D]
    dv_ptr,  # [T, H, D]
    dbias_ptr,  # [copies, ...] float32, a copy laid out by the strides grad_*
    tiles_ptr,  # [N, 4] int32
    starts_ptr,  # [T] int32
    seed_ptr,  # [1] int64
    stride_q, stride_k, stride_v, origin, stride_h, stride_i, stride_j, copies, grad_copy, grad_h, grad_i, grad_j,
    T, scale, dropout_p,
    H: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, CLOSED: tl.constexpr,
    BIAS: tl.constexpr, BIAS_GRAD: tl.constexpr, DROPOUT: tl.constexpr, UPCAST: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Program: one tile of one head, as keys (dk, dv) and as queries (dq, and the bias)."""
    tile = tl.program_id(0) // H
    head = tl.program_id(0) % H
    first = tl.load(tiles_ptr + tile * 4)
    end = tl.load(tiles_ptr + tile * 4 + 1)
    rows_q, valid, starts_q = tile_rows(starts_ptr, first, end, BLOCK, -1)
    rows_k, valid, starts_k = tile_rows(starts_ptr, first, end, BLOCK, -2)
    k = load_rows(k_ptr + head * D, rows_k, valid, stride_k, D, WIDTH, UPCAST)
    v = load_rows(v_ptr + head * D, rows_k, valid, stride_v, D, WIDTH, UPCAST)
    bias_ptr += origin + head.to(tl.int64) * stride_h
    dbias_ptr += (tile % copies).to(tl.int64) * grad_copy + origin + head.to(tl.int64) * grad_h
    if DROPOUT:
        seed = tl.load(seed_ptr)
    else:
        seed = 0
    if CLOSED:
        q, dout, delta, lse = tile_queries(
            q_ptr, dout_ptr, out_ptr, lse_ptr, rows_q, valid, head, stride_q, T, H, D, WIDTH, UPCAST
        )
        p, ds, same = tile_pair(
            q, k, v, dout, delta, lse, rows_q, rows_k, starts_q, starts_k, bias_ptr, stride_i, stride_j, scale, seed,
            first, head, dropout_p, BLOCK, BIAS, DROPOUT, PRECISION,
        )  # fmt: skip
        if BIAS_GRAD:
            add_bias_grad(dbias_ptr, ds, same, rows_q, rows_k, starts_q, starts_k, grad_i, grad_j)
        # dV = P^T dO;  dK = dS^T Q / sqrt(head_dim);  dQ = dS K / sqrt(head_dim)
        dv = tl.dot(tl.trans(p.to(dout.dtype)), dout, input_precision=PRECISION)
        dk = tl.dot(tl.trans(ds.to(q.dtype)), q, input_precision=PRECISION)
        dq = tl.dot(ds.to(k.dtype), k, input_precision=PRECISION)
    else:
        low = tl.load(tiles_ptr + tile * 4 + 2)
        stop = tl.load(tiles_ptr + tile * 4 + 3)
        dk = tl.zeros((BLOCK, WIDTH), tl.float32)
        dv = tl.zeros((BLOCK, WIDTH), tl.float32)
        # No licm: what does not change in the loops would fill the registers if it were moved out of them.
        for row in tl.range(low, stop, BLOCK, disable_licm=True):
            rows, valid_q, starts = tile_rows(starts_ptr, row, stop, BLOCK, -1)
            q, dout, delta, lse = tile_queries(
                q_ptr, dout_ptr, out_ptr, lse_ptr, rows, valid_q, head, stride_q, T, H, D, WIDTH, UPCAST
            )
            p, ds, same = tile_pair(
                q, k, v, dout, delta, lse, rows, rows_k, starts, starts_k, bias_ptr, stride_i, stride_j, scale, seed,
                first, head, dropout_p, BLOCK, BIAS, DROPOUT, PRECISION,
            )  # fmt: skip
            dv += tl.dot(tl.trans(p.to(dout.dtype)), dout, input_precision=PRECISION)
            dk += tl.dot(tl.trans(ds.to(q.dtype)), q, input_precision=PRECISION)
        dq = tl.zeros((BLOCK, WIDTH), tl.float32)
        q, dout, delta, lse = tile_queries(
            q_ptr, dout_ptr, out_ptr, lse_ptr, rows_q, valid, head, stride_q, T, H, D, WIDTH, UPCAST
        )
        for key in tl.range(low, stop, BLOCK, disable_licm=True):
            rows, valid_k, starts = tile_rows(starts_ptr, key, stop, BLOCK, -2)
            k = load_rows(k_ptr + head * D, rows, valid_k, stride_k, D, WIDTH, UPCAST)
            v = load_rows(v_ptr + head * D, rows, valid_k, stride_v, D, WIDTH, UPCAST)
            p, ds, same = tile_pair(
                q, k, v, dout, delta, lse, rows_q, rows, starts_q, starts, bias_ptr, stride_i, stride_j, scale, seed,
                key, head, dropout_p, BLOCK, BIAS, DROPOUT, PRECISION,
            )  # fmt: skip
            if BIAS_GRAD:
                add_bias_grad(dbias_ptr, ds, same, rows_q, rows, starts_q, starts, grad_i, grad_j)
            dq += tl.dot(ds.to(k.dtype), k, input_precision=PRECISION)
    store_rows(dq_ptr + head * D, dq * scale, rows_q, valid, H * D, D, WIDTH)
    store_rows(dk_ptr + head * D, dk * scale, rows_k, valid, H * D, D, WIDTH)
    store_rows(dv_ptr + head * D, dv, rows_k, valid, H * D, D, WIDTH)
