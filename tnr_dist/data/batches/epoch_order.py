"""The order of an epoch: which samples of which shards go to which canonical stream, in which windows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tnr_dist.data.shards import SplitIndex

Group = Literal["none", "user"]


@dataclass(frozen=True)
class LoaderOptions:
    """What the batches depend on."""

    global_batch: int
    history: int = 50
    negatives: int = 4
    few_negatives: Literal["repeat", "mask"] = "repeat"
    seed: int = 0
    streams: int = 16
    window_shards: int = 2
    on_bad_shard: Literal["stop", "skip"] = "stop"
    before: int | None = field(default=None, repr=False)  # leave out impressions of this time (seconds) and later
    group: Group = field(default="none", repr=False)


class Plan:
    """An epoch's cut into streams and windows (data/batches/clicks.py, points 1 to 3); holds numbers only, no data."""

    def __init__(self, index: SplitIndex, options: LoaderOptions, epoch: int) -> None:
        counts = np.array([shard.samples for shard in index.shards], np.int64)
        self.order = np.random.default_rng([options.seed, epoch, 1]).permutation(len(counts))
        ends = np.concatenate([[0], np.cumsum(counts[self.order])])
        total, batch, streams = int(ends[-1]), options.global_batch, options.streams
        cuts = [batch * s // streams for s in range(streams + 1)]
        self.quota = np.diff(cuts)
        self.bounds = [total * cut // batch for cut in cuts]
        self.steps = -(-total // batch)
        self.windows: list[list[list[tuple[int, int, int]]]] = []  # stream -> window -> (shard, from, to)
        self.window_ends: list[np.ndarray] = []  # stream -> samples up to the end of each window
        for s in range(streams):
            low, high = self.bounds[s], self.bounds[s + 1]
            first = int(np.searchsorted(ends, low, side="right")) - 1
            pieces = []
            for k in range(first, len(counts)):
                start, stop = max(low, int(ends[k])), min(high, int(ends[k + 1]))
                if start >= high:
                    break
                if stop > start:
                    pieces.append((int(self.order[k]), start - int(ends[k]), stop - int(ends[k])))
            size = options.window_shards
            windows = [pieces[i : i + size] for i in range(0, len(pieces), size)]
            self.windows.append(windows)
            self.window_ends.append(np.cumsum([sum(b - a for _, a, b in w) for w in windows]).astype(np.int64))

    def window_at(self, stream: int, position: int) -> int:
        """The window that holds sample `position` of a stream."""
        return int(np.searchsorted(self.window_ends[stream], position, side="right"))
