"""How many tokens' activations a rank keeps at a time: `token_budget=0`, by memory."""

from __future__ import annotations

import torch

from tnr_dist.config.training import TrainConfig
from tnr_dist.engines.base import Engine
from tnr_dist.engines.precision import compute_dtype
from tnr_dist.kernels.attention import SHORT_WITH_GRADIENT
from tnr_dist.models.activations import token_bytes
from tnr_dist.models.recommender import NewsEncoder
from tnr_dist.util.memory import GIB, job_limit
from tnr_dist.util.progress import say_once

_SHARE = 0.25  # of a rank's part of the job's memory, which also holds weights, tables and what the allocator keeps
_UNGIVEN = 4 * GIB  # at most, where nobody has given the job its memory: the machine may be other people's too
_GPU_SHARE, _GPU_FREE = 0.4, 0.6  # of a GPU's memory, and of what of it is free


def token_budget(news_encoder: NewsEncoder, train: TrainConfig, engine: Engine) -> int:
    """Tokens whose activations a rank keeps at a time; 0: all, where `token_budget` is -1. Rank 0 says what memory gives.

    A quarter of the rank's part of `job_limit`, at most 4 GiB where that is nobody's gift; on a GPU 40 % of its memory, at
    most 60 % of what is free.
    """
    if train.token_budget:
        return max(train.token_budget, 0)
    encoder, query_dim = news_encoder.encoder, news_encoder.pooling.query.in_features
    trained = len(encoder.layers) if train.trainable_layers < 0 else min(train.trainable_layers, len(encoder.layers))
    longest: int = getattr(train, "body_tokens", SHORT_WITH_GRADIENT)  # stages on clicks read titles
    room, source = _room(engine)
    budget = int(room / token_bytes(encoder, trained, query_dim, longest, compute_dtype(engine), engine.device))
    if engine.environment.rank == 0:
        say_once(
            f"activations: of up to {budget:,} tokens a rank at a time, {room / GIB:.1f} GiB by {source}, for {trained} "
            f"trained layer{'s' * (trained != 1)}; more are computed twice (token_budget)"
        )
    return max(budget, 1)


def _room(engine: Engine) -> tuple[float, str]:
    """Bytes for a rank's activations, and what they are a part of."""
    if engine.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(engine.device)
        free += torch.cuda.memory_reserved(engine.device) - torch.cuda.memory_allocated(engine.device)
        return min(_GPU_SHARE * total, _GPU_FREE * free), "the GPU's memory"
    limit = job_limit()
    room = _SHARE * limit.size / engine.environment.local_world_size
    return (room if limit.given else min(room, _UNGIVEN)), limit.source
