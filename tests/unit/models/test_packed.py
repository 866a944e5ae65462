from itertools import pairwise

import numpy as np
import pytest
import torch

from tnr_dist.kernels.attention import LONG, PADDING, AttentionPlan
from tnr_dist.models.packed import Packed


def table(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.random.default_rng(0).integers(1, 60000, offsets[-1]).astype(np.uint16), offsets


@pytest.mark.parametrize("max_length", [None, 2, 3, 5, 100])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_gather_equals_a_plain_loop(max_length, dtype):
    flat, offsets = table([5, 2, 9, 3, 7, 2])
    flat = flat.astype(dtype)
    index = np.array([2, 0, 2, 5, 1, 4])
    rows = []
    for r in index:
        row = flat[offsets[r] : offsets[r + 1]].tolist()
        rows.append(row if max_length is None or len(row) <= max_length else [*row[: max_length - 1], row[-1]])
    packed = Packed.gather(flat, offsets, index, max_length)
    assert packed.tokens.dtype == torch.int64
    assert packed.tokens.tolist() == [t for row in rows for t in row]
    assert packed.lengths.tolist() == [len(row) for row in rows]
    on_device = Packed.gather(torch.from_numpy(flat.astype(np.int32)), offsets, index, max_length)
    assert on_device.tokens.tolist() == packed.tokens.tolist()


def test_gather_of_nothing():
    flat, offsets = table([5, 2])
    packed = Packed.gather(flat, offsets, np.zeros(0, np.int64), 3)
    assert len(packed) == 0 and packed.tokens.shape == (0,)
    assert packed.plan.buckets == []


def test_pack_refuses_lengths_that_do_not_add_up():
    with pytest.raises(ValueError, match="sum to 5"):
        Packed.pack([1, 2, 3], [2, 3])


def test_by_length_and_back():
    batch = Packed.pack(np.arange(20), [6, 3, 1, 6, 4])
    order = batch.by_length
    assert order.batch.lengths.tolist() == [1, 3, 4, 6, 6]
    assert order.leave(order.batch.tokens).tolist() == list(range(20))
    assert order.enter(batch.tokens).tolist() == order.batch.tokens.tolist()
    firsts = order.batch.tokens[torch.from_numpy(order.batch.offsets[:-1])]
    assert order.leave_rows(firsts).tolist() == batch.offsets[:-1].tolist()
    x = torch.randn(20, 2, requires_grad=True)
    weight = torch.randn(20, 2)
    (order.leave(order.enter(x) * 2) * weight).sum().backward()
    torch.testing.assert_close(x.grad, 2 * weight)


def test_split_keeps_every_sequence_whole():
    lengths = np.sort(np.random.default_rng(1).integers(1, 30, 200))
    batch = Packed.pack(np.arange(lengths.sum()), lengths)
    parts = list(batch.split(256))
    assert len(parts) > 5
    assert np.concatenate([p.lengths for p, _ in parts]).tolist() == lengths.tolist()
    assert torch.cat([p.tokens for p, _ in parts]).tolist() == batch.tokens.tolist()
    assert all(len(p.tokens) == r.stop - r.start for p, r in parts)


def test_plan_buckets_cover_all_tokens_with_bounded_padding():
    lengths = np.sort(np.random.default_rng(2).integers(0, 512, 300))
    plan = AttentionPlan(lengths)
    edges = [(b.start, b.stop) for b in plan.buckets]
    assert edges[0][0] == 0 and edges[-1][1] == lengths.sum()
    assert all(a[1] == b[0] for a, b in pairwise(edges))
    for b in plan.buckets:
        if b.lengths is None:
            assert b.count * b.length == b.stop - b.start
        else:
            assert b.lengths.min() > LONG
            assert b.count * b.length <= (b.stop - b.start) * (1 + PADDING)
    assert any(b.lengths is not None for b in plan.buckets)
