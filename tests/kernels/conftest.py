"""The kernels' tests: compiled where there is a GPU, else in Triton's interpreter; the same tests either way."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

from tests.kernels.replay import recorded
from tests.lanes import missing

__all__ = ["device", "recorded"]

# Before anything imports Triton: it decides at a kernel's definition whether it is interpreted.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def device() -> torch.device:
    """Where the kernels run: the GPU if there is one, else the CPU, interpreted."""
    if importlib.util.find_spec("triton") is None:
        missing("Triton is not installed (pip install triton)")
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
