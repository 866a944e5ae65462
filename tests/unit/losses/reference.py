"""The paper's equations as plain float64 loops, and the check that every loss must pass; shared by the tests here."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor


def softmax(x: np.ndarray) -> np.ndarray:
    shifted = np.exp(x - np.max(x))
    return shifted / shifted.sum()


def cross_entropy(label: np.ndarray, scores: np.ndarray) -> float:
    """-sum_j label_j log softmax(scores)_j."""
    log_z = np.max(scores) + np.log(sum(np.exp(s - np.max(scores)) for s in scores))
    return -sum(p * (s - log_z) for p, s in zip(label, scores, strict=True))


def one_hot(size: int) -> np.ndarray:
    label = np.zeros(size)
    label[0] = 1.0
    return label


def random(*shape: int, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator) * scale


def gradients(loss: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    return [g.detach() for g in torch.autograd.grad(loss, inputs, retain_graph=True)]


def assert_parts_add_up(loss: Callable[[slice], Tensor], samples: int) -> None:
    """A batch cut in two unequal parts (both with the global count) gives the same sum."""
    cut = samples // 3
    whole = loss(slice(None))
    torch.testing.assert_close(loss(slice(cut)) + loss(slice(cut, None)), whole, rtol=1e-13, atol=0)
