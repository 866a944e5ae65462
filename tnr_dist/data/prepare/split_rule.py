"""Which rows of a behaviours file belong to train, dev and test where a data set has no split of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tnr_dist.data.prepare.news_ids import mix


@dataclass(frozen=True)
class SplitRule:
    """How the rows of one behaviours file are told apart when a data set has no dev or test split of its own.

    Rows of `test` are taken first, then rows of `dev`; a bound is a day number (days since 1970), a share is random.
    """

    dev_from_day: int | None = None
    test_from_day: int | None = None
    dev_share: float = 0.0
    test_share: float = 0.0
    seed: int = 0

    @cached_property
    def trivial(self) -> bool:
        """True when every row belongs to the file's own split."""
        return self.dev_from_day is None and self.test_from_day is None and not self.dev_share and not self.test_share

    @property
    def by_day(self) -> bool:
        """True when times decide."""
        return self.dev_from_day is not None or self.test_from_day is not None

    def split_of(self, days: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """0 train, 1 dev, 2 test for each row, uint8 [I]; depends on the row alone."""
        out = np.zeros(len(rows), np.uint8)
        out[_uniform(rows, self.seed * 2 + 1) < self.dev_share] = 1
        if self.dev_from_day is not None:
            out[days >= self.dev_from_day] = 1
        out[_uniform(rows, self.seed * 2) < self.test_share] = 2
        if self.test_from_day is not None:
            out[days >= self.test_from_day] = 2
        return out


def _uniform(rows: np.ndarray, salt: int) -> np.ndarray:
    """A fixed pseudo-random number in [0, 1) for each row number."""
    return mix(rows.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15 * (salt + 1) & (1 << 64) - 1)) / 2.0**64
