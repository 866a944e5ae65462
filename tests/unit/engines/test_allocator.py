"""Freed memory: kept from step to step, within bounds, and given back."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tnr_dist.engines import allocator
from tnr_dist.engines.allocator import FreedMemory

# A process of its own: what other tests have left in the allocator does not count.
_PROGRAM = """
import torch
from tnr_dist.engines.allocator import keep_freed_memory, release_freed_memory
from tnr_dist.util.memory import resident
assert keep_freed_memory()
release_freed_memory()
start = resident()
block = torch.ones(100 << 20, dtype=torch.uint8)
small = torch.ones(1000)  # above it: what is below cannot go back by shrinking the heap
del block
kept = resident() - start
release_freed_memory()
print(kept >> 20, (resident() - start) >> 20)
"""


def test_freed_memory_is_kept_until_it_is_released():
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    kept, left = (int(word) for word in done.stdout.split())
    assert kept >= 100 and left < 20


@pytest.mark.parametrize(("device", "trims"), [("cpu", [9, 27]), ("cuda", [])])
def test_it_is_released_when_an_eighth_more_has_gathered(monkeypatch, device, trims):
    # Held after each step, in MiB: it settles, and grows in steps 9 and 20 to 27.
    held = [1000, 1100, *[1100] * 6, 1400, *[1000] * 10, *[1100] * 7, 1300, *[1000] * 4]
    freed, seen = FreedMemory(torch.device(device)), []
    for step, mebibytes in enumerate(held, 1):
        monkeypatch.setattr(allocator, "resident", lambda mebibytes=mebibytes: mebibytes << 20)
        monkeypatch.setattr(allocator, "release_freed_memory", lambda step=step: seen.append(step))
        freed.after_step()
    assert seen == trims
