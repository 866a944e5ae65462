"""How well the loader shuffles: between epochs, and within a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tnr_dist.data.batches.clicks import ClickLoader


@dataclass(frozen=True)
class ShuffleQuality:
    """Figures of two epochs; shares are fractions of a full global batch."""

    rank_correlation: float  # Spearman's, of a sample's place in one epoch and in the other; 0 for random orders
    block_share_mean: float  # the largest share of a batch that comes from one block, mean over the batches
    block_share_max: float  # ... and its maximum


def shuffle_quality(loader: ClickLoader, first: int = 0, second: int = 1) -> ShuffleQuality:
    """Measure the order of epochs `first` and `second`. `loader` must be that of one rank alone, without damaged shards.

    A sample is known by its row and click; a batch's block shares are taken over the full batches of `first`.
    """
    assert loader.world_size == 1
    row_a, click_a = _order(loader, first)
    row_b, click_b = _order(loader, second)
    place_a, place_b = np.lexsort((click_a, row_a)), np.lexsort((click_b, row_b))
    correlation = float(np.corrcoef(place_a, place_b)[0, 1]) if len(place_a) > 1 else 0.0
    rows, blocks = _blocks(loader)
    block = blocks[np.searchsorted(rows, row_a)]
    batch = loader.options.global_batch
    shares = [
        np.bincount(block[at : at + batch]).max() / batch for at in range(0, len(block) // batch * batch, batch)
    ] or [np.bincount(block).max() / len(block)]
    return ShuffleQuality(correlation, float(np.mean(shares)), float(np.max(shares)))


def _order(loader: ClickLoader, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    batches = [(batch["row"].copy(), batch["click"].copy()) for batch in loader.epoch(epoch)]
    return np.concatenate([row for row, _ in batches]), np.concatenate([click for _, click in batches])


def _blocks(loader: ClickLoader) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the split in ascending order, and the number of the block that holds each."""
    rows, sizes = [], []
    for info in loader.index.shards:
        for block in loader.source.read_blocks(info).values():
            rows.append(block["row"])
            sizes.append(len(block["row"]))
    joined = np.concatenate(rows)
    order = np.argsort(joined)
    return joined[order], np.repeat(np.arange(len(sizes)), sizes)[order]
