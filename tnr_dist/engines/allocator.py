"""glibc's allocator as training on a CPU needs it: what is freed is kept, for it is needed again, but within bounds.

glibc gives each freed block above 32 MiB back to the kernel, which clears pages anew for the next one: 38 ms for 64 MiB in
4 KiB pages, where writing to memory that was kept takes 1.4. A step allocates hundreds of such blocks. Kept without a
bound they are as good as leaked: blocks of ever other sizes do not fit into each other's places. So the training loop
calls `bound_freed_memory` after each step, and a stage's end `release_freed_memory`.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

import torch

from tnr_dist.util.memory import resident

_SETTINGS = {  # mallopt's number -> value
    -3: 1 << 30,  # M_MMAP_THRESHOLD
    -1: (1 << 31) - 1,  # M_TRIM_THRESHOLD
    -2: 1 << 26,  # M_TOP_PAD
}
# torch and oneDNN each keep 1,024 compiled products, of 270 KiB, one for each shape: 540 MiB of shapes that packed batches do
# not have again. What repeats is within a step, layer by layer: torch's 256 hold that.
_COMPILED = {"LRU_CACHE_CAPACITY": "256", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16"}
_GROWTH, _SLACK = 1.12, 32 << 20  # of the process since it was last trimmed, before it is trimmed again
_STEPS_BETWEEN = 8  # two trims: the pages that a step then touches first cost it a few percent of its time


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees; False where that cannot be set, or the user has set it otherwise."""
    for name, entries in _COMPILED.items():
        os.environ.setdefault(name, entries)
    libc = _glibc()
    if libc is None:
        return False
    done = [libc.mallopt(number, value) for number, value in _SETTINGS.items()]  # every one, whatever the others say
    return all(done)


def release_freed_memory() -> None:
    """Give the memory back that this process has freed."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


class FreedMemory:
    """The bound on freed memory while steps of about the same size repeat: `after_step` is called after each.

    What the process holds after the first steps is taken as what it needs. When it has grown by an eighth over that, what
    lies free is given back, and the need is measured again. Where the steps run on a GPU nothing is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._on = device.type == "cpu"
        self._need = self._steps = 0

    def after_step(self) -> None:
        """Give freed memory back if more of it has gathered than is worth keeping."""
        if not self._on:
            return
        self._steps += 1
        held = resident()
        if self._steps <= 2:  # the largest of two: a batch may be an epoch's last and small
            self._need = max(self._need, held)
        elif self._steps > _STEPS_BETWEEN and held > self._need * _GROWTH + _SLACK:
            release_freed_memory()
            self._need = self._steps = 0


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, where it is glibc and its allocator is left to us."""
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    try:
        libc = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
