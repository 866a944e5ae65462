"""Host values go to a CPU as they are, and to a GPU without waiting for what runs there."""

import numpy as np
import pytest
import torch

from tnr_dist.util.transfer import to_device


@pytest.mark.parametrize("values", [np.arange(6).reshape(2, 3).T, torch.arange(4)], ids=["array", "tensor"])
def test_to_the_cpu(values):
    found = to_device(values, torch.device("cpu"))
    np.testing.assert_array_equal(found, values)


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda", torch.device("cuda", 0)])
@pytest.mark.parametrize("pinned", [False, True])
def test_to_a_gpu_that_is_at_work(device, pinned):
    """A copy from pageable memory would wait for the half second of work that is queued before it."""
    values = np.arange(1 << 22)
    to_device(values, device)  # makes CUDA ready
    source = torch.from_numpy(values).pin_memory() if pinned else values
    torch.cuda.synchronize()
    torch.cuda._sleep(1_000_000_000)
    queued = torch.cuda.Event()
    queued.record()
    found = to_device(source, device)
    assert not queued.query(), "the copy has waited for the work before it"
    assert found.device == torch.device("cuda", 0)
    np.testing.assert_array_equal(found.cpu(), values)
