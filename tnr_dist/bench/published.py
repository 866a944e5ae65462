"""The stages as the published code runs them, timed on a few samples: every slot, padded, float32, transformers' BertModel.

Titles are padded to 30 tokens (24 in the matching task) and bodies to their limit, every layer runs in every step, attention
is eager as in the transformers of 2021. Dropout is off. `bench/step.py` has the same form of a stage-2 step with the loss.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tnr_dist.bench.encoding import device
from tnr_dist.bench.titles import PADDED, encoder_of, synchronise, transformers_bert
from tnr_dist.models.recommender import AttentionUserEncoder, NewsEncoder

_DIM, _HISTORY, _NEGATIVES, _MATCHING_NEGATIVES, _MATCHING_TITLE = 256, 50, 4, 9, 24
_SLOTS = _HISTORY + 1 + _NEGATIVES


class _PaddedNews(nn.Module):
    """News vectors of padded texts; the last `trainable` layers and what stands on them train."""

    def __init__(self, width: int, layers: int, trainable: int) -> None:
        super().__init__()
        encoder = NewsEncoder(encoder_of(width, layers).set_dropout(0.0), _DIM)
        self.bert = transformers_bert(encoder.encoder, "eager")
        for name, parameter in self.bert.named_parameters():
            layer = name.split("encoder.layer.")[-1].split(".")[0]
            parameter.requires_grad_(layer.isdigit() and int(layer) >= layers - trainable)
        self.pooling, self.dense = encoder.pooling, encoder.dense
        if trainable == 0:
            self.requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [n, s], none of them padding that attention could skip: news vectors [n, D]."""
        mask = torch.ones_like(tokens)
        states = self.bert(input_ids=tokens, attention_mask=mask)[0]
        vectors: Tensor = self.dense(self.pooling(states, mask.bool()))
        return vectors


def _tokens(*shape: int) -> Tensor:
    return torch.randint(1000, 30_000, shape).to(device())


def _seconds(work: Callable[[], object]) -> float:
    """Of the second call: the first allocates."""
    for last in (False, True):
        synchronise()
        began = time.perf_counter()
        work()
        synchronise()
        if last:
            break
    return time.perf_counter() - began


def encoding_seconds(width: int, layers: int, titles: int = 256) -> float:
    """Of one title: no gradient, batches of 64 titles of 30 tokens."""
    model = _PaddedNews(width, layers, 0).to(device()).eval()
    batches = [_tokens(64, PADDED) for _ in range(max(titles // 64, 1))]

    @torch.inference_mode()
    def work() -> None:
        for batch in batches:
            model(batch)

    return _seconds(work) / (64 * len(batches))


def click_seconds(width: int, layers: int, trainable: int, teachers: int = 0, samples: int = 32) -> float:
    """Of one sample of a training step on clicks: 55 titles encoded; with `teachers` the second stage's projections too."""
    news_encoder = _PaddedNews(width, layers, trainable)
    users_of = AttentionUserEncoder(_DIM)
    projections = nn.Linear(_DIM, teachers * _DIM) if teachers else nn.Identity()
    model = nn.ModuleList([news_encoder, users_of, projections]).to(device()).train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.0)
    tokens = _tokens(samples * _SLOTS, PADDED)
    mask = torch.ones(samples, _HISTORY, dtype=torch.bool, device=device())
    vectors = torch.randn(samples * _SLOTS, _DIM, device=device())

    def work() -> None:
        news = news_encoder(tokens)
        slots = news.view(samples, _SLOTS, _DIM)
        users = users_of(slots[:, :_HISTORY], mask)
        scores = torch.bmm(slots[:, _HISTORY:], users.unsqueeze(-1)).squeeze(-1)
        loss = -scores.log_softmax(-1)[:, 0].mean()
        if teachers:
            # One teacher's vectors stand for all: what is counted is M projections of every slot and their error.
            projected = projections(vectors).view(-1, teachers, _DIM)
            loss = loss + F.mse_loss(projected, news.unsqueeze(1).expand_as(projected))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return _seconds(work) / samples


def matching_seconds(
    width: int, layers: int, trainable: int, body_tokens: int, teacher_layers: int = 0, pairs: int = 32
) -> float:
    """Of one pair of a step of the matching task, 1 + 9 titles and a body; with `teacher_layers` a teacher encodes them too."""
    model = _PaddedNews(width, layers, trainable).to(device()).train()
    teacher = _PaddedNews(width, teacher_layers, 0).to(device()).eval() if teacher_layers else None
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.0)
    titles, bodies = _tokens(pairs * (1 + _MATCHING_NEGATIVES), _MATCHING_TITLE), _tokens(pairs, body_tokens)

    def work() -> None:
        of_titles, of_bodies = model(titles), model(bodies)
        scores = torch.bmm(of_titles.view(pairs, -1, _DIM), of_bodies.unsqueeze(-1)).squeeze(-1)
        loss = -scores.log_softmax(-1)[:, 0].mean()
        if teacher is not None:
            with torch.no_grad():
                goals = teacher(titles), teacher(bodies)
            loss = loss + F.mse_loss(of_titles, goals[0]) + F.mse_loss(of_bodies, goals[1])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return _seconds(work) / pairs
