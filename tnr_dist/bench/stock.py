"""A stage-2 step as others write it, around transformers' BertModel: every slot, or each distinct title once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from tnr_dist.bench.encoding import device
from tnr_dist.bench.per_slot import news_embedding_loss_per_slot, project, user_embedding_loss_of_projected
from tnr_dist.bench.titles import PADDED, padded, transformers_bert
from tnr_dist.data.batches.clicks import Batch
from tnr_dist.data.tokens import RaggedTable
from tnr_dist.losses.common import click_loss, teacher_cross_entropy, teacher_weights
from tnr_dist.losses.stage2 import distillation_loss
from tnr_dist.models.projection import Projection
from tnr_dist.stages.stage2 import Stage2Module

_HISTORY = 50
_MICRO = 32  # samples of every slot at a time: 7,040 padded titles with gradients do not fit beside the rest
_CHUNK = {"cpu": 64, "cuda": 4096}  # distinct titles of about one length at a time


class PerSlot(nn.Module):
    """(a) and (b): stage 2 with every slot's title encoded, around transformers' BertModel."""

    def __init__(self, ours: Stage2Module, attention: str) -> None:
        super().__init__()
        news_encoder = ours.student.news_encoder
        self.bert = transformers_bert(news_encoder.encoder, attention)
        frozen = news_encoder.encoder.frozen_layers
        for name, parameter in self.bert.named_parameters():
            layer = name.split("encoder.layer.")[-1].split(".")[0]
            parameter.requires_grad_(layer.isdigit() and int(layer) >= frozen)
        self.pooling, self.dense = news_encoder.pooling, news_encoder.dense
        self.user_encoder = ours.student.user_encoder
        assert ours.news_projection is not None and ours.user_projection is not None
        self.news_projection, self.user_projection = ours.news_projection, ours.user_projection
        self.omega, self.settings = ours.omega, ours.settings

    def forward(self, ids: Tensor, mask: Tensor, history_mask: Tensor, teacher_news: Tensor, teacher_users: Tensor,
                teacher_logits: Tensor, weights: Tensor, count: float) -> Tensor:  # fmt: skip
        """ids, mask [B, S, 30]; teacher_news [B, S, M, D]: the loss of B samples as a share of `count`."""
        b, s, length = ids.shape
        news = self.news(ids.view(b * s, length), mask.view(b * s, length)).view(b, s, -1)
        return self.loss(news, history_mask, teacher_news, teacher_users, teacher_logits, weights, count)

    def news(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids, mask [n, length]: news vectors [n, D], float32."""
        states = self.bert(input_ids=ids, attention_mask=mask.long())[0]
        vectors: Tensor = self.dense(self.pooling(states, mask)).float()
        return vectors

    def loss(self, news: Tensor, history_mask: Tensor, teacher_news: Tensor, teacher_users: Tensor,
             teacher_logits: Tensor, weights: Tensor, count: float) -> Tensor:  # fmt: skip
        """news [B, S, D]: the loss with a term for each slot."""
        history, candidates = news[:, :_HISTORY], news[:, _HISTORY:]
        users = self.user_encoder(history, history_mask)
        scores = torch.bmm(candidates, users.unsqueeze(-1)).squeeze(-1)
        logits = teacher_logits.transpose(1, 2)
        w = teacher_weights(teacher_cross_entropy(logits), self.omega())
        slots = torch.cat([history_mask, torch.ones_like(scores, dtype=torch.bool)], 1)
        projected = self._project(self.news_projection, teacher_news.flatten(0, 1)).unflatten(0, news.shape[:2])
        return (
            distillation_loss(logits, w, scores, self.settings.temperature, weights, count)
            + news_embedding_loss_per_slot(projected, news, w, slots, weights, count)
            + user_embedding_loss_of_projected(
                self._project(self.user_projection, teacher_users), users, w, weights, count
            )
            + self.settings.beta2 * click_loss(scores, weights, count)
        )

    @staticmethod
    def _project(projection: Projection, vectors: Tensor) -> Tensor:
        return project(projection.weight, projection.bias, vectors)


def per_slot_step(
    model: PerSlot, batch: Batch, titles: RaggedTable, teacher_news: Tensor, bf16: bool
) -> Callable[[], float]:
    """Every slot, padded to 30 tokens, `_MICRO` samples at a time."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, 0.0, fused=bf16)
    samples = len(batch["weights"])
    where = device()

    def step() -> float:
        total = 0.0
        for start in range(0, samples, _MICRO):
            part = {k: v[start : start + _MICRO] for k, v in batch.items() if v.ndim}
            ids = np.concatenate([part["history"], part["candidates"]], 1)
            rows = np.maximum(ids, 0)
            tokens, mask = padded(titles, rows.reshape(-1), PADDED)
            shape = (*ids.shape, PADDED)
            # An empty slot is a title of padding; one visible token keeps its softmax finite, its vector is masked out.
            gathered = teacher_news[torch.from_numpy(rows.astype(np.int64))]  # on the host, as in the authors' releases
            users = torch.from_numpy(part["teacher_users"].view(np.int16)).view(torch.bfloat16)
            inputs = [
                tokens.view(shape), mask.view(shape), torch.from_numpy(part["history"] >= 0), gathered.float(),
                users.float(), torch.from_numpy(part["teacher_logits"]), torch.from_numpy(part["weights"]),
            ]  # fmt: skip
            with torch.autocast(where.type, torch.bfloat16, enabled=bf16):
                loss = model(*(x.to(where) for x in inputs), float(samples))
            loss.backward()
            total += float(loss.detach())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    return step


def distinct_step(
    model: PerSlot, batch: Batch, titles: RaggedTable, teacher_news: Tensor, compiled: bool
) -> Callable[[], float]:
    """What a good engineer writes in a day: distinct titles sorted by length, in chunks padded to their longest, in bf16.

    Frozen layers keep nothing, Adam is fused, the teachers' vectors lie on the device; the loss has a term for each slot.
    `compiled`: the encoder under torch.compile with dynamic shapes.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, 0.0, fused=True)
    samples, where = len(batch["weights"]), device()
    encode = torch.compile(model.news, dynamic=True) if compiled else model.news
    table = teacher_news.to(where)

    def step() -> float:
        ids = np.concatenate([batch["history"], batch["candidates"]], 1)
        used, rows = np.unique(np.maximum(ids, 0), return_inverse=True)
        order = np.argsort(titles.lengths[used], kind="stable")
        place = np.empty(len(used), np.int64)
        place[order] = np.arange(len(used))
        users = torch.from_numpy(batch["teacher_users"].view(np.int16)).view(torch.bfloat16).to(where)
        with torch.autocast(where.type, torch.bfloat16):
            parts = []
            for start in range(0, len(used), _CHUNK[where.type]):
                part = used[order[start : start + _CHUNK[where.type]]]
                tokens, mask = padded(titles, part, int(titles.lengths[part].max()))
                parts.append(encode(tokens.to(where), mask.to(where)))
            at = torch.from_numpy(place[rows].reshape(ids.shape)).to(where)
            news = torch.nn.functional.embedding(at, torch.cat(parts))
            teachers = table[torch.from_numpy(used[order]).to(where)][at].float()
            loss = model.loss(
                news, torch.from_numpy(batch["history"] >= 0).to(where), teachers, users.float(),
                torch.from_numpy(batch["teacher_logits"]).to(where), torch.from_numpy(batch["weights"]).to(where),
                float(samples),
            )  # fmt: skip
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())

    return step
