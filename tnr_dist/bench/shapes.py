"""Random blocks of MIND's shape, for benchmarks that need sizes and not meaning."""

from __future__ import annotations

import numpy as np

from tnr_dist.data.shards import Block

NEWS = 101_527  # MINDlarge train


def candidate_counts(impressions: int, rng: np.random.Generator) -> np.ndarray:
    """Candidates of each impression, [I]: log-normal with MIND's mean (37.4), median (25) and range (2 to 300)."""
    return np.clip(rng.lognormal(np.log(25), 0.92, impressions).round(), 2, 300).astype(np.int64)


def history_lengths(histories: int, rng: np.random.Generator) -> np.ndarray:
    """Clicked news of each history, [H]: mean 33, median 19, at most 801, 2.2 % empty."""
    lengths = np.clip(rng.lognormal(np.log(19), 1.05, histories).round(), 1, 801).astype(np.int64)
    lengths[rng.random(histories) < 0.022] = 0
    return lengths


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
