"""A table in host memory that all ranks of a node share: one copy a node, not one a rank."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tnr_dist.engines.base import Engine

_MEMORY = Path("/dev/shm")  # files that are memory
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class SharedTable:
    """[rows, width] of zeros, or None in `tensor` where some node's memory has no room for the file.

    A collective of all ranks. The file has no name any more when it returns: it goes with the last process that maps it.

    Attributes:
        leads: whether this rank is the first of those that share its copy.
        alone: whether all ranks share one copy.
    """

    def __init__(self, rows: int, width: int, dtype: torch.dtype, engine: Engine) -> None:
        size, rank = rows * width * dtype.itemsize, engine.environment.rank
        path = _MEMORY / f"tnr-{uuid.uuid4().hex}"
        said = engine.gather(np.frombuffer(f"{_node()}\n{path}".encode(), np.uint8))
        names = [one.tobytes().decode().split("\n") for one in said]
        nodes = [node for node, _ in names]
        first = nodes.index(nodes[rank])
        self.leads, self.alone = first == rank, len(set(nodes)) == 1
        self.tensor: Tensor | None = None
        path = Path(names[first][1])
        failed = self.leads and not _reserve(path, size)
        # Also a barrier: the file is there when the others open it, and mapped by all when its name goes.
        if _any(failed, engine):
            if self.leads:
                path.unlink(missing_ok=True)
            return
        self.tensor = torch.from_file(str(path), shared=True, size=rows * width, dtype=dtype).view(rows, width)
        engine.barrier()
        if self.leads:
            path.unlink()


def _node() -> str:
    """The same for processes that see the same files in memory: ranks in containers of their own do not."""
    try:
        return f"{_BOOT.read_text(encoding='ascii').strip()} {_MEMORY.stat().st_dev}"
    except OSError:
        return uuid.uuid4().hex


def _reserve(path: Path, size: int) -> bool:
    """Make the file and take its memory now: a full tmpfs would kill the process that writes to the map."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, max(size, 1))
        finally:
            os.close(descriptor)
    except OSError:
        return False
    return True


def _any(flag: bool, engine: Engine) -> bool:
    return bool(engine.all_reduce(torch.tensor([float(flag)], device=engine.device)).item())
