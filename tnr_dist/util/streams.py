"""Named random streams: what one part of a model draws does not depend on what another drew before it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np
import torch


def stream_seed(seed: int, *names: str) -> int:
    """The seed of the stream that `names` name; other names or another `seed` give an independent stream."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    words = np.frombuffer(digest, np.uint32).tolist()
    return int(np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] >> 1)


@contextlib.contextmanager
def drawn_from(seed: int, *names: str) -> Iterator[None]:
    """Within this context torch's CPU generator is at the start of the named stream; afterwards it is as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(stream_seed(seed, *names))
        yield
