"""`tnr bench cache`: the teachers' pass over side shards, news vectors given: what is left is reading, users, writing."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tnr_dist.bench.shapes import NEWS, random_block
from tnr_dist.data.shards import ShardInfo, read_shard, write_shard
from tnr_dist.evaluation.scoring import UserVectors
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.recommender import AttentionUserEncoder, NewsEncoder, Recommender
from tnr_dist.models.transformer import encoder_from_config
from tnr_dist.stages.cache import write_side_shards
from tnr_dist.stages.methods import Tree
from tnr_dist.util.memory import TreePeak


def run(impressions: int = 65_536, teachers: int = 4, history: int = 50) -> dict[str, Any]:
    """Write the side shards of a random split with M trivial teachers (their news vectors are a random table).

    `impressions_per_s` is the cache stage's own code end to end; `read_only_impressions_per_s` reads and parses the same
    data shards, `write_gib` is what was written. Memory is sampled over the pass: it must not grow with the split.
    """
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    config = Tree()
    config.data.history = history
    dim = config.model.news_dim
    news = torch.randn(teachers, NEWS, dim).to(torch.bfloat16).float()
    tiny = EncoderConfig(vocab_size=16, hidden=8, layers=1, heads=1, intermediate=8, max_positions=8)
    models = [
        Recommender(NewsEncoder(encoder_from_config(tiny), dim), AttentionUserEncoder(dim)).eval().requires_grad_(False)
        for _ in range(teachers)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        infos: list[ShardInfo] = []
        row = 0
        while row < impressions:
            blocks = [random_block(1024, row + 1024 * i, rng) for i in range(16)]
            infos.append(write_shard(folder / f"shard-{len(infos):06d}.tar", blocks))
            row += 16 * 1024
        began = time.perf_counter()
        for info in infos:
            read_shard(folder / info.name, info)
        reading = time.perf_counter() - began
        out = folder / "side"
        out.mkdir()
        users = [UserVectors(model, vectors) for model, vectors in zip(models, news, strict=True)]
        memory_at: list[float] = []
        with TreePeak(every=0.05) as memory:
            began = time.perf_counter()
            jobs = [(folder / info.name, info, out / info.name) for info in infos]
            memory_at.extend(memory.gib for _ in write_side_shards(users, "", config, jobs))
            seconds = time.perf_counter() - began
        written = sum(path.stat().st_size for path in out.glob("*.tar"))
    total = sum(info.impressions for info in infos)
    return {
        "impressions": total,
        "shards": len(infos),
        "teachers": teachers,
        "impressions_per_s": total / seconds,
        "shards_per_s": len(infos) / seconds,
        "read_only_impressions_per_s": total / reading,
        "write_gib": written / 2**30,
        "write_mib_per_s": written / 2**20 / seconds,
        "peak_gib": memory.gib,
        "peak_gib_after_first_shard": memory_at[0],
    }
