"""AUC, MRR and nDCG per impression, for all impressions of a split at once.

Every figure follows from two counts per click: how many candidates of its impression score higher, and how many score
the same. Comparing each click with the candidates of its own impression needs no sort and costs `sum(clicks *
candidates)` comparisons, about 1.5 to 2 per candidate on MIND. The counts are integers, so neither chunks nor threads
can change a bit of the result.

Ties. AUC counts a tied pair half, as `sklearn.metrics.roc_auc_score` does. MRR and nDCG are the means over all orders of
tied candidates, as `sklearn.metrics.ndcg_score` takes them: a click that h candidates beat and that ties with e, itself
among them, stands at each of the ranks h + 1 to h + e with probability 1 / e. Where no scores tie, these are MIND's own
figures; its script ranks with `np.argsort(scores)[::-1]`, whose order of equal scores is no property of the model (a
constant scorer would be perfect on lists that begin with the click). A submission needs one order: `write_prediction`
ranks equal scores as they stand in the impression.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from tnr_dist.util.errors import InputError

Float64s = NDArray[np.float64]
Int64s = NDArray[np.int64]

Metric = Literal["auc", "mrr", "ndcg5", "ndcg10"]
NAMES: tuple[Metric, ...] = ("auc", "mrr", "ndcg5", "ndcg10")

# Pairs (click, candidate) that one task compares at a time: about 20 MiB of temporaries, which stays near the caches.
_PAIRS = 1 << 19


class Figures(TypedDict, total=False):
    """Means over the impressions of a split that have a click and a candidate without one; fractions."""

    auc: float
    mrr: float
    ndcg5: float
    ndcg10: float
    impressions: int
    skipped: int


@dataclass(frozen=True)
class ImpressionMetrics:
    """The metrics of I impressions, in impression order; NaN where an impression lacks a click or a non-click.

    `auc`, `mrr`, `ndcg5`, `ndcg10`: [I] float64. `valid`: [I] bool, False for the skipped impressions. `tied`: [I] bool,
    whether a click has the same score as a candidate that was not clicked; None where that is not known.
    """

    auc: Float64s
    mrr: Float64s
    ndcg5: Float64s
    ndcg10: Float64s
    valid: NDArray[np.bool_]
    tied: NDArray[np.bool_] | None = None

    @property
    def tied_share(self) -> float:
        """Share of the valid impressions in which a click ties with a candidate that was not clicked."""
        if self.tied is None or not self.valid.any():
            return 0.0
        return int((self.tied & self.valid).sum()) / int(self.valid.sum())

    def mean(self) -> Figures:
        """Mean over the valid impressions: `auc, mrr, ndcg5, ndcg10` (fractions), `impressions` (valid), `skipped`.

        The sums are exact before their one rounding (`math.fsum`), so the mean does not depend on the order of the
        impressions: a distributed evaluation that gathers its ranks' impressions in any order gets the same bits.

        Raises:
            InputError: no impression has both a clicked and a non-clicked candidate.
        """
        count = int(self.valid.sum())
        if count == 0:
            raise InputError(
                f"none of {len(self.valid)} impressions has both a clicked and a non-clicked candidate, so there is "
                "nothing to average: evaluate a split with labels"
            )
        auc, mrr, ndcg5, ndcg10 = (math.fsum(getattr(self, name)[self.valid].tolist()) / count for name in NAMES)
        skipped = len(self.valid) - count
        return Figures(auc=auc, mrr=mrr, ndcg5=ndcg5, ndcg10=ndcg10, impressions=count, skipped=skipped)

    @staticmethod
    def concatenate(parts: Sequence[ImpressionMetrics]) -> ImpressionMetrics:
        """Join the metrics of consecutive groups of impressions, for example those of the ranks."""
        names = (*NAMES, "valid") if any(part.tied is None for part in parts) else (*NAMES, "valid", "tied")
        return ImpressionMetrics(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def impression_metrics(
    scores: np.ndarray, labels: np.ndarray, offsets: np.ndarray, *, threads: int = 2
) -> ImpressionMetrics:
    """AUC, MRR, nDCG@5 and nDCG@10 of every impression (MIND's definitions; Tiny-NewsRec, Table 2).

    AUC = P(score of a click > score of a non-click) + P(equal) / 2
    MRR = sum over clicks of 1 / rank, divided by the number of clicks
    nDCG@k = DCG@k / ideal DCG@k with DCG@k = sum over clicks of rank <= k of (2^1 - 1) / log2(rank + 1)

    Of tied candidates MRR and nDCG take the mean over all their orders.

    Args:
        scores: [T] float32 or float64, the candidates' scores, impression after impression.
        labels: [T] bool or integers 0 and 1; 1 is a click.
        offsets: [I + 1] integers; impression i holds candidates `offsets[i]` to `offsets[i + 1]` (exclusive).
        threads: worker threads; they change the time, never the result.

    Raises:
        InputError: a score is not finite, a label is not 0 or 1, or the lengths do not fit; names the impression.
    """
    scores, labels = np.asarray(scores), np.asarray(labels)
    offsets = check_offsets(offsets, len(scores))
    if len(labels) != len(scores):
        raise InputError(f"{len(labels)} labels for {len(scores)} scores: each candidate needs one of each")
    check_scores(scores, offsets)
    if scores.dtype not in (np.float32, np.float64):
        scores = scores.astype(np.float64)
    scores = np.ascontiguousarray(scores)
    clicked = _clicked(labels, offsets)

    clicks = np.flatnonzero(clicked)
    owner = np.searchsorted(offsets, clicks, side="right") - 1
    sizes = np.diff(offsets)
    higher, equal, with_others = _counts(scores, clicked, clicks, offsets[owner], sizes[owner], threads)
    # Only now widen: the sums below must not wrap, the counts themselves fit 32 bits.
    first = higher.astype(np.int64) + 1

    impressions = len(sizes)
    positives = np.bincount(owner, minlength=impressions)
    negatives = sizes - positives
    valid = (positives > 0) & (negatives > 0)

    # Twice the number of candidates that a click beats, ties half; click against click adds exactly clicks^2 to it.
    won = _sum_by(owner, 2 * (sizes[owner] - higher - equal) + equal, impressions) - positives**2
    ranks = np.arange(1, (int(sizes.max()) if impressions else 0) + 1)
    reciprocal = np.bincount(owner, weights=_expected(1.0 / ranks, first, equal), minlength=impressions)
    gain = 1.0 / np.log2(ranks + 1.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        results = {
            "auc": won / (2 * positives * negatives),
            "mrr": reciprocal / positives,
            "ndcg5": _ndcg(5, gain, first, equal, owner, positives),
            "ndcg10": _ndcg(10, gain, first, equal, owner, positives),
        }
    for values in results.values():
        values[~valid] = np.nan
    tied = np.bincount(owner[with_others], minlength=impressions) > 0
    return ImpressionMetrics(**results, valid=valid, tied=tied)


def check_offsets(offsets: np.ndarray, candidates: int) -> Int64s:
    """Return `offsets` [I + 1] as int64; an `InputError` when they do not cut `candidates` into I impressions."""
    offsets = np.asarray(offsets)
    if offsets.ndim != 1 or len(offsets) == 0 or offsets.dtype.kind not in "iu":
        raise InputError(f"offsets must be integers [impressions + 1], not {offsets.dtype} {list(offsets.shape)}")
    offsets = offsets.astype(np.int64)
    if offsets[0] != 0 or offsets[-1] != candidates:
        raise InputError(f"offsets run from {offsets[0]} to {offsets[-1]}, but the scores from 0 to {candidates}")
    if (steps := np.diff(offsets)).size and steps.min() < 0:
        raise InputError(f"offsets fall after impression index {int(np.argmax(steps < 0))}: they must not decrease")
    return offsets


def check_scores(scores: np.ndarray, offsets: Int64s) -> None:
    """Raise an `InputError` that names the first impression (index from 0) with a NaN or infinite score."""
    for start in range(0, len(scores), _PAIRS):
        finite = np.isfinite(scores[start : start + _PAIRS])
        if not finite.all():
            at = start + int(np.argmin(finite))
            impression = int(np.searchsorted(offsets, at, side="right")) - 1
            raise InputError(
                f"score {scores[at]} at impression index {impression}, candidate {at - offsets[impression]} of "
                f"{offsets[impression + 1] - offsets[impression]}: scores must be finite, look for a diverged model"
            )


def _clicked(labels: np.ndarray, offsets: Int64s) -> NDArray[np.bool_]:
    if labels.dtype == np.bool_:
        return labels
    clicked: NDArray[np.bool_] = labels == 1
    wrong = ~clicked & (labels != 0)
    if wrong.any():
        at = int(np.argmax(wrong))
        impression = int(np.searchsorted(offsets, at, side="right")) - 1
        raise InputError(f"label {labels[at]} at impression index {impression}: labels must be 0 or 1")
    return clicked


def _counts(
    scores: np.ndarray,
    clicked: NDArray[np.bool_],
    clicks: Int64s,
    starts: Int64s,
    sizes: Int64s,
    threads: int,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]:
    """Per click: candidates of its impression that score higher, the same (itself too); whether one of those is no click."""
    higher, equal = (np.empty(len(clicks), np.int32) for _ in range(2))
    with_others = np.zeros(len(clicks), bool)

    def count(first: int, last: int) -> None:
        size = sizes[first:last]
        ends = np.cumsum(size)
        begins = ends - size
        candidate = np.arange(ends[-1]) + np.repeat(starts[first:last] - begins, size)
        others = scores[candidate]
        own = np.repeat(scores[clicks[first:last]], size)
        np.add.reduceat((others > own).view(np.int8), begins, dtype=np.int32, out=higher[first:last])
        same = others == own
        np.add.reduceat(same.view(np.int8), begins, dtype=np.int32, out=equal[first:last])
        # Each click ties with itself; most tie with nothing else.
        if (equal[first:last] > 1).any():
            np.logical_or.reduceat(same & ~clicked[candidate], begins, out=with_others[first:last])

    pairs = np.cumsum(sizes)
    bounds = [0]
    while bounds[-1] < len(clicks):
        done = int(pairs[bounds[-1] - 1]) if bounds[-1] else 0
        # At least one click a task: an impression larger than a task is still compared whole.
        bounds.append(max(int(np.searchsorted(pairs, done + _PAIRS, side="right")), bounds[-1] + 1))
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        list(pool.map(count, bounds[:-1], bounds[1:]))
    return higher, equal, with_others


def _sum_by(owner: Int64s, values: Int64s, impressions: int) -> Int64s:
    """Sum of integers per impression; exact in float64, for they stay far below 2^53."""
    return np.bincount(owner, weights=values, minlength=impressions).astype(np.int64)


def _expected(values: Float64s, first: Int64s, count: NDArray[np.int32]) -> Float64s:
    """The mean of `values` (by rank, from 1) over the ranks `first` to `first + count - 1` of each click."""
    out = values[first - 1]
    tied = np.flatnonzero(count > 1)
    if len(tied):  # without ties not a bit of the value itself is lost
        sums = np.concatenate([[0.0], np.cumsum(values)])
        out[tied] = (sums[first[tied] - 1 + count[tied]] - sums[first[tied] - 1]) / count[tied]
    return out


def _ndcg(
    k: int, gain: Float64s, first: Int64s, equal: NDArray[np.int32], owner: Int64s, positives: Int64s
) -> Float64s:
    """DCG@k / ideal DCG@k per impression [I]; bincount adds in click order, so the rounding is always the same."""
    counted = np.where(np.arange(len(gain)) < k, gain, 0.0)
    dcg = np.bincount(owner, weights=_expected(counted, first, equal), minlength=len(positives))
    ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])
    ndcg: NDArray[np.float64] = dcg / ideal[np.minimum(positives, k)]
    return ndcg
