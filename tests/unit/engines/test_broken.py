"""Which errors mean that another rank is gone."""

import pytest
import torch.distributed as dist

from tnr_dist.engines.broken import is_broken, reason

PAIR = (
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4242. This is "
    "typically caused by a remote worker crashing. GLHF!"
)


class HorovodInternalError(RuntimeError):
    """Stands for Horovod's, which need not be installed."""


@pytest.mark.parametrize(
    ("error", "broken"),
    [
        (RuntimeError(PAIR), True),
        (RuntimeError("[enforce fail at gloo/transport/tcp/buffer.cc] Timed out waiting 10000ms for recv"), True),
        (dist.DistBackendError("NCCL communicator was aborted on rank 1."), True),
        (dist.DistNetworkError("The client socket has failed to connect"), True),
        (HorovodInternalError("Horovod has been shut down."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"), False),
        (ValueError(PAIR), False),
    ],
)
def test_only_messages_that_did_not_get_through(error, broken):
    assert is_broken(error) is broken


def test_the_reason_has_no_line_of_source():
    assert reason(RuntimeError(PAIR)) == "Connection closed by peer [127.0.0.1]:4242"
    assert reason(RuntimeError("")) == "RuntimeError"
