import numpy as np
import pytest
import torch

from tnr_dist.losses.bert_pkd import patient_layers, patient_loss, pkd_loss


@pytest.mark.parametrize(
    ("student", "teacher", "skip", "last"),
    [
        (6, 12, [2, 4, 6, 8, 10], [7, 8, 9, 10, 11]),  # the paper's
        (3, 12, [4, 8], [10, 11]),
        (4, 6, [1, 3, 4], [3, 4, 5]),
        (1, 12, [], []),
    ],
)
def test_which_layers(student, teacher, skip, last):
    assert patient_layers(student, teacher, "skip") == skip
    assert patient_layers(student, teacher, "last") == last


def test_a_student_is_no_deeper_than_its_teacher():
    with pytest.raises(ValueError, match="4 layers of a student cannot learn from 3"):
        patient_layers(4, 3, "skip")


def test_equation_7():
    rng = np.random.default_rng(0)
    own, other = rng.normal(size=(5, 7)), 3 * rng.normal(size=(5, 7))
    expected = [((a / np.sqrt((a**2).sum()) - b / np.sqrt((b**2).sum())) ** 2).sum() for a, b in zip(own, other, strict=True)]  # fmt: skip
    found = patient_loss(torch.tensor(own), torch.tensor(other))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    # The length of a state says nothing.
    np.testing.assert_allclose(patient_loss(torch.tensor(own), torch.tensor(2 * own)).numpy(), 0, atol=1e-15)
    assert patient_loss(torch.tensor(own).bfloat16(), torch.tensor(other).bfloat16()).dtype == torch.float32


def test_equation_8():
    parts = [torch.tensor(one, dtype=torch.float64) for one in (1.5, 0.25, 2.0)]
    assert pkd_loss(*parts, alpha=0.2, beta=3.0, temperature=10.0).item() == pytest.approx(
        0.8 * 1.5 + 0.2 * 100 * 0.25 + 6
    )
