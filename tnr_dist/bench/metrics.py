"""`tnr bench metrics`: AUC, MRR, nDCG of a MINDlarge-dev-sized split, beside a per-impression scikit-learn loop."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from tnr_dist.bench.shapes import candidate_counts
from tnr_dist.evaluation.metrics import impression_metrics
from tnr_dist.util.errors import InputError
from tnr_dist.util.memory import TreePeak

_DEV = 376_471  # MINDlarge dev impressions


def run(impressions: int = _DEV, sample: int = 4_000) -> dict[str, Any]:
    """Time both on the same scores: ours on all impressions, the loop on a `sample` of them and scaled up.

    `max_difference` is over the sample and all four metrics. scikit-learn's nDCG averages over ties and has gains y, so
    the loop computes MRR and nDCG as the MIND scorer does and takes only AUC from scikit-learn.
    """
    try:
        from sklearn.metrics import roc_auc_score
    except ImportError:
        raise InputError("tnr bench metrics compares with scikit-learn: pip install scikit-learn") from None
    rng = np.random.default_rng(0)
    counts = candidate_counts(impressions, rng)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    scores = rng.standard_normal(offsets[-1]).astype(np.float32)
    labels = np.zeros(offsets[-1], np.uint8)
    labels[offsets[:-1] + (rng.random(impressions) * counts).astype(np.int64)] = 1
    labels[rng.random(len(labels)) < 0.012] = 1
    best = float("inf")
    with TreePeak(every=0.05) as memory:
        for _ in range(3):
            began = time.perf_counter()
            metrics = impression_metrics(scores, labels, offsets)
            mean = metrics.mean()
            best = min(best, time.perf_counter() - began)
    chosen = np.sort(rng.choice(impressions, min(sample, impressions), replace=False))
    began = time.perf_counter()
    rows = [
        _loop(scores[offsets[i] : offsets[i + 1]], labels[offsets[i] : offsets[i + 1]], roc_auc_score) for i in chosen
    ]
    per_impression = (time.perf_counter() - began) / len(chosen)
    kept = [number for number, row in zip(chosen, rows, strict=True) if row is not None]
    reference = np.array([row for row in rows if row is not None])
    ours = np.stack([getattr(metrics, name)[kept] for name in ("auc", "mrr", "ndcg5", "ndcg10")], 1)
    return {
        "impressions": impressions,
        "candidates": int(offsets[-1]),
        "seconds": best,
        "sklearn_seconds": per_impression * impressions,
        "sklearn_sample": len(chosen),
        "ratio": per_impression * impressions / best,
        "max_difference": float(np.abs(ours - reference).max()),
        "peak_gib": memory.gib,
        "auc": mean["auc"],
    }


def _loop(scores: np.ndarray, labels: np.ndarray, roc_auc_score: Any) -> tuple[float, ...] | None:
    """One impression as evaluation scripts do it; None when it has a single class."""
    if labels.min() == labels.max():
        return None
    order = np.argsort(-scores, kind="stable")
    sorted_labels = labels[order].astype(np.float64)
    ranks = np.arange(1, len(labels) + 1)
    mrr = float((sorted_labels / ranks).sum() / sorted_labels.sum())
    ideal = np.sort(labels)[::-1].astype(np.float64)
    discounts = np.log2(ranks + 1)
    ndcg = [
        float(((2 ** sorted_labels[:k] - 1) / discounts[:k]).sum() / ((2 ** ideal[:k] - 1) / discounts[:k]).sum())
        for k in (5, 10)
    ]
    return float(roc_auc_score(labels, scores)), mrr, *ndcg
