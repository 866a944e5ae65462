"""What a model must be compared with: chance, the most clicked news, and (generated data only) the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tnr_dist.data.shards import Block, read_index, read_shard
from tnr_dist.evaluation.scoring import Scorer
from tnr_dist.util.progress import Bar

POPULAR = "most popular"  # what tables and baselines.json call the news with the most clicks


def random_scorer(seed: int = 0) -> Scorer:
    """Uniform random scores, the same for a block whatever the order of blocks."""
    return lambda block: np.random.default_rng([seed, int(block["row"][0])]).random(len(block["candidate_news"]))


def popularity_scorer(folder: Path, news: int) -> Scorer:
    """A candidate's number of clicks in the training split: what "most popular" knows."""
    index = read_index(folder, "train")
    clicks = np.zeros(news, np.int64)
    with Bar("count clicks", index.impressions, "impressions") as bar:
        for info in index.shards:
            for block in read_shard(folder / "train" / info.name, info).values():
                clicked = block["candidate_news"][block["candidate_clicked"].astype(bool)]
                clicks += np.bincount(clicked, minlength=news)
            bar.advance(info.impressions)

    def score(block: Block) -> np.ndarray:
        candidates = block["candidate_news"]
        return np.where(candidates < 0, -1, clicks[np.maximum(candidates, 0)]).astype(np.float64)

    return score


def oracle_scorer(raw: Path, split: str) -> Scorer:
    """The generator's true click probabilities, by impression id; rows whose candidates were all kept only."""
    from tnr_dist.synth.generate import oracle_scores

    ids, probabilities = oracle_scores(raw, split)
    offsets = probabilities.offsets.to_numpy()
    values = probabilities.values.to_numpy()
    place = {int(identifier): i for i, identifier in enumerate(ids)}

    def score(block: Block) -> np.ndarray:
        rows = [place[int(identifier)] for identifier in block["impression_id"]]
        return np.concatenate([values[offsets[row] : offsets[row + 1]] for row in rows]).astype(np.float64)

    return score
