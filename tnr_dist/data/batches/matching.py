"""Title-body pairs as global batches for the matching task (post-training and stage 1), the same for any rank count."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from tnr_dist.data.batches.sample_windows import Batch, draw_negatives
from tnr_dist.data.manifest import open_table
from tnr_dist.util.errors import InputError


class MatchingLoader:
    """Iterates over this rank's slices of the global batches of a corpus.

    Batches are dicts of NumPy arrays; b is this rank's share: `body` [b] int64, row of the body; `titles` [b, 1 + N]
    int64, its own title first, then N other titles drawn uniformly each epoch from the corpus (the paper's form) or,
    with `negatives_from="batch"`, from the rest of the global batch, so that fewer titles are encoded; `weights` [b] float32;
    `count` []: samples of the global batch.

    A share `held_out` of the pairs, the same for every seed, is never trained on: `held_out_batches` gives it.
    Raises InputError when the corpus has not more than N pairs to train on.
    """

    text_columns = ("body", "titles")  # those of a batch that name a text in each of their slots

    def __init__(
        self,
        folder: Path,
        global_batch: int,
        negatives: int,
        seed: int,
        held_out: float = 0.0,
        rank: int = 0,
        world_size: int = 1,
        *,
        negatives_from: Literal["corpus", "batch"] = "corpus",
    ) -> None:
        bodies = open_table(folder, "body")
        titles = open_table(folder, "corpus_title")
        if len(bodies) != len(titles):
            raise InputError(
                f"{folder / 'tokens'}: {len(titles)} titles and {len(bodies)} bodies; prepare the data again"
            )
        if global_batch < world_size:
            raise InputError(f"a global batch of {global_batch} cannot be shared by {world_size} ranks")
        self.bodies, self.titles = bodies, titles
        self.batch, self.negatives, self.seed = global_batch, negatives, seed
        self.rank, self.world_size, self.negatives_from = rank, world_size, negatives_from
        order = np.random.default_rng([0, 4]).permutation(len(bodies))
        kept_apart = int(len(bodies) * held_out)
        self.held_out, self.train = np.sort(order[:kept_apart]), np.sort(order[kept_apart:])
        if len(self.train) <= negatives:
            raise InputError(f"{folder}: {len(self.train)} title-body pairs, too few for {negatives} other titles each")

    def skipped(self, batch: Batch) -> int:
        """Samples of a damaged shard: there are no shards here."""
        return 0

    @property
    def steps(self) -> int:
        """Steps of an epoch, the same on all ranks."""
        return -(-len(self.train) // self.batch)

    def fingerprint(self) -> str:
        """Identifies the sequence of global batches."""
        text = repr(
            (
                self.batch,
                self.negatives,
                self.negatives_from,
                self.seed,
                len(self.train),
                len(self.held_out),
                len(self.bodies.values),
            )
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def order(self, epoch: int) -> np.ndarray:
        """Places in `train` in the order of an epoch, on all ranks; step s takes those from s * global batch on."""
        return np.random.default_rng([self.seed, epoch, 5]).permutation(len(self.train))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This rank's batches of an epoch from step `start` on."""
        order = self.order(epoch)
        for step in range(start, self.steps):
            chosen = order[step * self.batch : (step + 1) * self.batch]
            low = len(chosen) * self.rank // self.world_size
            high = len(chosen) * (self.rank + 1) // self.world_size
            rng = np.random.default_rng([self.seed, epoch, 6, step])
            if self.negatives_from == "batch" and len(chosen) > self.negatives:
                titles = self._titles(np.arange(len(chosen)), self.train[chosen], rng)
            else:
                titles = self._titles(chosen, self.train, rng)
            batch = {
                "body": self.train[chosen[low:high]],
                "titles": titles[low:high],
                "weights": np.ones(high - low, np.float32),
            }
            if low == high:  # no share of the last batch: one slot of weight 0
                batch = {"body": self.train[:1], "titles": titles[:1], "weights": np.zeros(1, np.float32)}
            batch["count"] = np.array(len(chosen), np.float32)
            yield batch

    def held_out_batches(self) -> Iterator[Batch]:
        """All held-out pairs, each with N other held-out titles (fewer pairs than that: none)."""
        if len(self.held_out) <= self.negatives:
            return
        titles = self._titles(np.arange(len(self.held_out)), self.held_out, np.random.default_rng([0, 7]))
        for start in range(0, len(self.held_out), self.batch):
            part = slice(start, start + self.batch)
            body = self.held_out[part]
            weights = np.ones(len(body), np.float32)
            yield {"body": body, "titles": titles[part], "weights": weights, "count": np.array(len(body), np.float32)}

    def _titles(self, chosen: np.ndarray, pool: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Each pair's own title, then N others: every set of N other titles is equally likely."""
        others = draw_negatives(np.full(len(chosen), len(pool) - 1), self.negatives, "repeat", rng)
        others += others >= chosen[:, None]  # numbers of the titles beside its own
        titles: np.ndarray = pool[np.concatenate([chosen[:, None], others], 1)]
        return titles
