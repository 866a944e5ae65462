import numpy as np
import torch

from tnr_dist.losses.common import full_precision, log_softmax, mean_over_batch, soft_cross_entropy

from .reference import cross_entropy, random, softmax

MASK = torch.tensor([[True, False, True, True], [True, True, False, False], [False] * 4])


def test_log_softmax_is_over_the_kept_entries_and_zero_elsewhere() -> None:
    scores = random(3, 4, seed=1)
    result = log_softmax(scores, MASK)
    assert result[~MASK].tolist() == [0.0] * int((~MASK).sum())
    for row in range(2):
        expected = np.log(softmax(scores[row][MASK[row]].numpy()))
        np.testing.assert_allclose(result[row][MASK[row]].numpy(), expected, rtol=1e-13)


def test_soft_cross_entropy_is_over_the_kept_entries() -> None:
    teacher, student = random(3, 4, seed=2), random(3, 4, seed=3)
    result = soft_cross_entropy(teacher, student, MASK)
    for row in range(2):
        kept = MASK[row]
        expected = cross_entropy(softmax(teacher[row][kept].numpy()), student[row][kept].numpy())
        np.testing.assert_allclose(float(result[row]), expected, rtol=1e-13)
    assert float(result[2]) == 0


def test_an_empty_row_makes_no_nan_even_on_the_way() -> None:
    teacher, student = random(3, 4, seed=4).requires_grad_(), random(3, 4, seed=5).requires_grad_()
    with torch.autograd.set_detect_anomaly(True):  # raises at the first NaN of the backward pass
        loss = soft_cross_entropy(teacher, student, MASK).sum()
        for gradient in torch.autograd.grad(loss, (teacher, student)):
            assert torch.isfinite(gradient).all()
            assert gradient[~MASK].abs().max() == 0


def test_mean_over_batch_divides_by_the_global_count() -> None:
    per_sample = torch.tensor([2.0, 4.0, 8.0])
    assert float(mean_over_batch(per_sample, torch.tensor([1.0, 0.5, 0.0]), 8)) == 0.5
    assert mean_over_batch(per_sample.double(), torch.ones(3), 3).dtype == torch.float64


def test_full_precision() -> None:
    assert full_precision(torch.zeros(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert full_precision(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64
