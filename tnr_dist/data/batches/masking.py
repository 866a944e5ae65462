"""Masked language modelling: which tokens of a text are to be predicted, and what stands in their place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from typing_extensions import override

from tnr_dist.data.batches.matching import MatchingLoader
from tnr_dist.data.batches.sample_windows import Batch
from tnr_dist.data.tokens import RaggedTable


@dataclass(frozen=True)
class Masking:
    """BERT's rule, drawn anew every epoch: of the chosen tokens 80 % become [MASK], 10 % any word, 10 % stay.

    What is drawn for a text depends on `seed`, epoch and text only, so on no rank, batch or earlier draw. A text's first
    and last token are its special ones ([CLS] and [SEP]) and are never chosen.

    Attributes:
        share: of the other tokens that is chosen, rounded, but one at least.
        mask_id: id of [MASK].
        vocab_size: words that a token may be replaced with.
    """

    share: float
    mask_id: int
    vocab_size: int
    seed: int

    def counts(self, lengths: np.ndarray) -> np.ndarray:
        """Chosen tokens of texts of these lengths [U], special tokens included: int64 [U]."""
        inner = np.maximum(np.asarray(lengths, np.int64) - 2, 0)
        return np.minimum(np.maximum(np.rint(self.share * inner).astype(np.int64), 1), inner)

    def mask(
        self, tokens: np.ndarray, lengths: np.ndarray, texts: np.ndarray, epoch: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw for U texts that lie one after another.

        Args:
            tokens: [T] ids.
            lengths: [U], they sum to T.
            texts: [U] number of each text, by which it is drawn.
            epoch: the epoch.

        Returns:
            What the model sees [T], and the positions [P] of the chosen tokens, ascending.
        """
        seen, positions = tokens.copy(), []
        starts = np.cumsum(lengths) - lengths
        for text, start, length, count in zip(texts, starts, lengths, self.counts(lengths), strict=True):
            rng = np.random.default_rng([self.seed, epoch, 8, int(text)])
            chosen = start + 1 + np.sort(rng.permutation(max(int(length) - 2, 0))[:count])
            fate, words = rng.random(count), rng.integers(0, self.vocab_size, count)
            seen[chosen] = np.where(fate < 0.8, self.mask_id, np.where(fate < 0.9, words, tokens[chosen]))
            positions.append(chosen)
        return seen, np.concatenate(positions) if positions else np.zeros(0, np.int64)


class MaskedLoader(MatchingLoader):
    """Title-body pairs as `MatchingLoader` gives them, without other titles, for masked language modelling.

    Its batches also say `epoch` [] and `masked` []: the masked tokens of the whole global batch, with `title_tokens` and
    `body_tokens` kept of a title and of a body.
    """

    def __init__(
        self,
        folder: Path,
        global_batch: int,
        masking: Masking,
        title_tokens: int,
        body_tokens: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(folder, global_batch, 0, masking.seed, 0.0, rank, world_size)
        self.masking = masking
        self._masked = self._counts(self.titles, title_tokens) + self._counts(self.bodies, body_tokens)  # of each pair

    def _counts(self, texts: RaggedTable, most: int) -> np.ndarray:
        return self.masking.counts(np.minimum(texts.lengths, most))

    @override
    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """This rank's batches of an epoch from step `start` on."""
        order = self.order(epoch)
        for step, batch in enumerate(super().epoch(epoch, start), start):
            news = self.train[order[step * self.batch : (step + 1) * self.batch]]
            masked = np.array(self._masked[news].sum(), np.float32)
            yield {**batch, "epoch": np.array(epoch, np.int64), "masked": masked}
