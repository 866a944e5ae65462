"""Random blocks and batches of MIND's shape, for benchmarks that need sizes and not meaning."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from tnr_dist.data.batches.clicks import Batch
from tnr_dist.data.shards import Block
from tnr_dist.util.transfer import to_stored

NEWS = 101_527  # MINDlarge train


def candidate_counts(impressions: int, rng: np.random.Generator) -> np.ndarray:
    """Candidates of each impression, [I]: log-normal with MIND's mean (37.4), median (25) and range (2 to 300)."""
    return np.clip(rng.lognormal(np.log(25), 0.92, impressions).round(), 2, 300).astype(np.int64)


def history_lengths(histories: int, rng: np.random.Generator) -> np.ndarray:
    """Clicked news of each history, [H]: mean 33, median 19, at most 801, 2.2 % empty."""
    lengths = np.clip(rng.lognormal(np.log(19), 1.05, histories).round(), 1, 801).astype(np.int64)
    lengths[rng.random(histories) < 0.022] = 0
    return lengths


def user_samples(users: int, rng: np.random.Generator) -> np.ndarray:
    """Train samples of each user, [U]: mean 4.8 as in MIND (3,383,656 of 711,222 users), median 3, each at least 1.

    How unequal MIND's users are is not published; here their activity is log-normal, as in `tnr data synth`.
    """
    activity = rng.lognormal(0.0, 1.0, users)
    impressions = 1 + rng.poisson(2.14 * activity / np.exp(0.5))
    samples: np.ndarray = impressions + rng.negative_binomial(impressions, 0.655)  # an impression has 1.53 clicks
    return samples


def grouped_users(samples: int, streams: int, rng: np.random.Generator) -> np.ndarray:
    """The user of each sample of a batch that the loader groups by user, [B]: each stream's part is cut from its own run."""
    parts: list[np.ndarray] = []
    for first, last in itertools.pairwise(samples * s // streams for s in range(streams + 1)):
        counts = user_samples(last - first + 100, rng)
        start = rng.integers(counts[:100].sum())  # in the midst of the users
        parts.append(np.repeat(np.arange(len(counts)), counts)[start : start + last - first] + 2 * samples * len(parts))
    return np.unique(np.concatenate(parts), return_inverse=True)[1]


def click_batch(
    samples: int, news: int, slots: tuple[int, int], teachers: tuple[int, int], rng: np.random.Generator, group: str
) -> Batch:
    """A batch with MIND's slots: clicked news of MIND's history lengths, candidates, Zipf-like news.

    Their popularity is set so that batches of 128, 512 and 2,048 samples of 50 and 5 slots have the distinct titles that
    were counted on real MIND rows (2,490; 5,914; 11,264), within 9 %.

    Args:
        slots: of the history, of the candidates.
        teachers: M, D.
        group: as `data.group`, with 16 streams.
    """
    lengths = np.minimum(history_lengths(samples, rng), slots[0])
    popularity = (np.arange(news) + 300.0) ** -1.3
    popularity /= popularity.sum()
    history = rng.choice(news, (samples, slots[0]), p=popularity).astype(np.int32)
    history[np.arange(slots[0]) >= lengths[:, None]] = -1
    if group == "user":
        history = history[grouped_users(samples, 16, rng)]
    return {
        "history": history,
        "candidates": rng.choice(news, (samples, slots[1]), p=popularity).astype(np.int32),
        "weights": np.ones(samples, np.float32),
        "count": np.array(samples, np.float32),
        "teacher_users": to_stored(torch.randn(samples, *teachers), "bf16"),
        "teacher_logits": rng.standard_normal((samples, slots[1], teachers[0])).astype(np.float32),
    }


def random_block(impressions: int, first_row: int, rng: np.random.Generator) -> Block:
    """A labelled block: users of about 3.1 impressions, Zipf-like news."""
    histories = max(impressions * 10 // 31, 1)
    counts, lengths = candidate_counts(impressions, rng), history_lengths(histories, rng)
    candidates, clicked = int(counts.sum()), int(lengths.sum())
    offsets = np.concatenate([[0], np.cumsum(counts)])
    labels = np.zeros(candidates, np.uint8)
    labels[offsets[:-1] + (rng.random(impressions) * counts).astype(np.int64)] = 1
    labels[rng.random(candidates) < 0.014] = 1

    def news(count: int) -> np.ndarray:
        return (NEWS * rng.random(count) ** 3).astype(np.int32)

    rows = np.arange(first_row, first_row + impressions)
    return {
        "row": rows,
        "impression_id": rows + 1,
        "time": np.full(impressions, 1_573_257_600) + rows % 86_400,
        "impression_history": np.sort(rng.integers(0, histories, impressions)).astype(np.int32),
        "history_offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        "history_news": news(clicked),
        "candidate_offsets": offsets.astype(np.int32),
        "candidate_news": news(candidates),
        "candidate_clicked": labels,
    }
