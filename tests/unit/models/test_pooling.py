import numpy as np
import pytest
import torch

from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import AttentionPooling

LENGTHS = [4, 1, 7, 4]


@pytest.fixture
def pooling():
    torch.manual_seed(0)
    module = AttentionPooling(6, 5)
    with torch.no_grad():
        module.query.weight.mul_(5)
    return module


def states() -> tuple[torch.Tensor, Packed]:
    hidden = torch.randn(sum(LENGTHS), 6, generator=torch.Generator().manual_seed(1))
    return hidden, Packed.pack(np.zeros(sum(LENGTHS), np.int64), LENGTHS)


def padded(hidden, batch, fill=0.0):
    x = torch.full((len(LENGTHS), max(LENGTHS), 6), fill)
    mask = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.bool)
    for u, n in enumerate(LENGTHS):
        x[u, :n] = hidden[batch.offsets[u] : batch.offsets[u + 1]]
        mask[u, :n] = True
    return x, mask


def plain(module, hidden, batch):
    w, b, q = (p.detach().numpy().astype(np.float64) for p in module.parameters())
    rows = []
    for a, z in zip(batch.offsets, batch.offsets[1:], strict=False):
        x = hidden[a:z].numpy().astype(np.float64)
        e = np.exp(np.tanh(x @ w.T + b) @ q[0])
        rows.append((e / e.sum()) @ x)
    return torch.from_numpy(np.stack(rows)).float()


def test_both_forms_equal_numpy(pooling):
    hidden, batch = states()
    expected = plain(pooling, hidden, batch)
    torch.testing.assert_close(pooling.forward_packed(hidden, batch), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pooling(*padded(hidden, batch, fill=9.0)), expected, atol=1e-5, rtol=1e-5)


def test_both_forms_have_the_same_gradients(pooling):
    hidden, batch = states()
    weight = torch.randn(len(LENGTHS), 6)
    grads = []
    for packed in (True, False):
        x = hidden.clone().requires_grad_()
        pooling.zero_grad()
        out = pooling.forward_packed(x, batch) if packed else pooling(*padded(x, batch))
        (out * weight).sum().backward()
        grads.append([x.grad, *(p.grad.clone() for p in pooling.parameters())])
    assert grads[0][1].abs().max() > 1e-3
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_large_logits_do_not_overflow(pooling):
    hidden, batch = states()
    with torch.no_grad():
        pooling.query.weight.mul_(1e4)
    for out in (pooling.forward_packed(hidden, batch), pooling(*padded(hidden, batch))):
        assert out.isfinite().all()
        # Each sequence's largest logit takes all the weight.
        assert all((hidden - row).abs().sum(-1).min() < 1e-4 for row in out)


def test_a_row_without_valid_slots_gives_zeros_and_no_gradient(pooling):
    x = torch.randn(2, 3, 6, requires_grad=True)
    mask = torch.tensor([[False] * 3, [True, False, True]])
    out = pooling(x, mask)
    assert (out[0] == 0).all() and out.isfinite().all()
    out.sum().backward()
    assert (x.grad[0] == 0).all() and (x.grad[1, 1] == 0).all() and x.grad[1, 0].abs().sum() > 0
    assert all(p.grad.isfinite().all() for p in pooling.parameters())


def test_an_empty_sequence_gives_zeros(pooling):
    hidden = torch.randn(3, 6, requires_grad=True)
    out = pooling.forward_packed(hidden, Packed.pack([1, 1, 1], [0, 3, 0]))
    assert (out[0] == 0).all() and (out[2] == 0).all() and out[1].abs().sum() > 0
    out.sum().backward()
    assert hidden.grad.isfinite().all()


def test_low_precision_states_are_pooled_in_float32(pooling):
    hidden, batch = states()
    with torch.autocast("cpu", torch.bfloat16):
        out = pooling.forward_packed(hidden.bfloat16(), batch)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, plain(pooling, hidden, batch), atol=0.05, rtol=0.05)
