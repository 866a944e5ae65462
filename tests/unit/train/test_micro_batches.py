"""A rank's samples cut into micro-batches: all of them, in order, equally many pieces."""

import numpy as np
import pytest
import torch

from tnr_dist.train.loop import micro_batches
from tnr_dist.util.transfer import prefetch, tensors_of


def batch(samples):
    return {
        "history": np.arange(samples * 3).reshape(samples, 3),
        "weights": np.ones(samples, np.float32),
        "count": np.array(100.0, np.float32),
    }


@pytest.mark.parametrize(("samples", "pieces"), [(10, 1), (10, 3), (10, 10), (3, 5), (1, 4)])
def test_every_sample_once(samples, pieces):
    made = micro_batches(batch(samples), pieces)
    assert len(made) == pieces
    real = [piece["history"][piece["weights"] > 0] for piece in made]
    np.testing.assert_array_equal(np.concatenate(real), batch(samples)["history"])
    assert all(piece["count"] == 100 and len(piece["weights"]) for piece in made)


def test_prefetch_gives_batches_with_their_inputs():
    made = prefetch(iter([batch(2), batch(3)]), lambda b: {"x": torch.from_numpy(b["history"])}, torch.device("cpu"))
    assert [(len(b["weights"]), inputs["x"].shape[0]) for b, inputs in made] == [(2, 2), (3, 3)]


def test_tensors_of_everything_a_task_hands_over():
    nested = {"a": [torch.ones(1), (torch.ones(2), 3)], "b": None}
    assert [len(tensor) for tensor in tensors_of(nested)] == [1, 2]
