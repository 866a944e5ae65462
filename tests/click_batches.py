"""Titles and batches of clicks without meaning, as the loader and the teachers' cache hand them to stage 2."""

from __future__ import annotations

import numpy as np

from tnr_dist.data.tokens import RaggedTable

WORDS = 30


def random_batch(
    rng: np.random.Generator, samples: int, history: int, candidates: int, news: int, teachers: int, dim: int
) -> dict[str, np.ndarray]:
    """A batch of `samples` with histories of any length up to `history` (unused slots: -1)."""
    titles = rng.integers(0, news, (samples, history))
    titles[np.arange(history) >= rng.integers(0, history + 1, samples)[:, None]] = -1
    return {
        "history": titles.astype(np.int32),
        "candidates": rng.integers(0, news, (samples, candidates)).astype(np.int32),
        "weights": np.ones(samples, np.float32),
        "count": np.array(samples, np.float32),
        "teacher_users": rng.standard_normal((samples, teachers, dim)).astype(np.float32),
        "teacher_logits": rng.standard_normal((samples, candidates, teachers)).astype(np.float32),
    }


def random_titles(rng: np.random.Generator, news: int, longest: int) -> RaggedTable:
    """Titles of 2 to `longest` of `WORDS` tokens."""
    offsets = np.concatenate([[0], np.cumsum(rng.integers(2, longest + 1, news))])
    return RaggedTable(rng.integers(0, WORDS, offsets[-1]).astype(np.uint16), offsets)
