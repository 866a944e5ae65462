"""Host values go to a GPU through pinned memory, and to a CPU as they are."""

import numpy as np
import pytest
import torch

from tnr_dist.transfer import to_device


@pytest.mark.parametrize("values", [np.arange(6).reshape(2, 3).T, torch.arange(4)], ids=["array", "tensor"])
def test_to_the_cpu(values):
    found = to_device(values, torch.device("cpu"))
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("device", ["cuda", torch.device("cuda", 0)])
def test_to_a_gpu_only_from_pinned_memory(device, monkeypatch):
    said = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: said.append("pinned") or tensor)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *args, **kwargs: said.append((args, kwargs)) or tensor)
    to_device(np.arange(3), device)
    assert said == ["pinned", ((device,), {"non_blocking": True})]
