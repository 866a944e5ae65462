"""What a figure hides, as tables: the impressions that a model ranks worst, and the news that it holds to be alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tnr_dist.data.manifest import read_news
from tnr_dist.data.shards import Block, SplitIndex, read_shard
from tnr_dist.evaluation.metrics import ImpressionMetrics

_TITLES = 10  # of a history (the last ones) or of a ranking (the first ones)


@dataclass(frozen=True)
class Table:
    """Columns and rows of plain values."""

    columns: list[str]
    rows: list[list[float | str]]


def news_titles(folder: Path) -> list[str]:
    """The title of every news of a prepared data set, by index."""
    return [title or "" for title in read_news(folder, ["title"])["title"].to_pylist()]


def worst_impressions(
    folder: Path,
    index: SplitIndex,
    rows: np.ndarray,
    metrics: ImpressionMetrics,
    scorer: Callable[[Block], np.ndarray],
    titles: Sequence[str],
    count: int = 20,
) -> Table:
    """The impressions of lowest AUC, of equal ones those whose clicks are ranked lowest: what was clicked and what was not.

    Args:
        rows: [I] of the raw file and `metrics` of them, from `evaluate_split`.
        scorer: of a block's candidates, the same that was evaluated.
    """
    order = np.lexsort((metrics.mrr, metrics.auc))
    wanted = rows[order[metrics.valid[order]]][:count]
    found: dict[int, list[float | str]] = {}
    for info in index.shards:
        if len(found) == len(wanted):
            break
        for block in read_shard(folder / index.split / info.name, info).values():
            hits = np.flatnonzero(np.isin(block["row"], wanted))
            if len(hits):
                scores = scorer(block)
                found.update({int(block["row"][i]): _impression(block, scores, int(i), titles) for i in hits})
    auc = dict(zip(rows.tolist(), metrics.auc.tolist(), strict=True))
    columns = ["impression", "auc", "candidates", "best_rank_of_a_click", "clicked", "ranked_first", "history"]
    return Table(columns, [[found[row][0], auc[row], *found[row][1:]] for row in wanted.tolist()])


def _impression(block: Block, scores: np.ndarray, i: int, titles: Sequence[str]) -> list[float | str]:
    """Identifier, number of candidates, rank of the best click, and titles: clicked, ranked first, history."""
    part = slice(int(block["candidate_offsets"][i]), int(block["candidate_offsets"][i + 1]))
    news, clicked = block["candidate_news"][part], block["candidate_clicked"][part].astype(bool)
    ranking = np.argsort(-scores[part], kind="stable")
    user = int(block["impression_history"][i])
    history = block["history_news"][int(block["history_offsets"][user]) : int(block["history_offsets"][user + 1])]
    return [
        int(block["impression_id"][i]),
        len(news),
        int(np.flatnonzero(clicked[ranking])[0]) + 1,
        _joined(news[clicked], titles),
        _joined(news[ranking][:_TITLES], titles),
        _joined(history[::-1][:_TITLES], titles),
    ]


def _joined(news: np.ndarray, titles: Sequence[str]) -> str:
    return "\n".join(titles[int(one)] for one in news)


@torch.no_grad()
def nearest_news(vectors: Tensor, titles: Sequence[str], count: int = 30, neighbours: int = 5) -> Table:
    """Some news, evenly spaced over the table, and their nearest others by the cosine of news vectors [news, D]."""
    chosen = torch.linspace(0, len(vectors) - 1, min(count, len(vectors))).round().long().unique()
    unit = F.normalize(vectors.float(), dim=1)
    near = unit[chosen.to(unit.device)] @ unit.T
    near[torch.arange(len(chosen)), chosen] = -torch.inf  # not the news itself
    values, others = near.topk(min(neighbours, len(vectors) - 1), dim=1)
    columns = ["news"] + [f"{what}_{n + 1}" for n in range(values.shape[1]) for what in ("nearest", "cosine")]
    rows: list[list[float | str]] = []
    for news, found, cosines in zip(chosen.tolist(), others.tolist(), values.tolist(), strict=True):
        pairs = [value for other, cosine in zip(found, cosines, strict=True) for value in (titles[other], cosine)]
        rows.append([titles[news], *pairs])
    return Table(columns, rows)
