"""The paper's model (Fig. 1): news encoder, user encoder, dot product; and the matching model of post-training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tnr_dist.kernels.attention import additive_pooling, additive_pooling_padded
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.packed import Packed, recomputed
from tnr_dist.models.transformer import Encoder, encoder_from_config
from tnr_dist.models.weights import load_state, load_strict, model_file, save_model
from tnr_dist.util.errors import InputError
from tnr_dist.util.json_types import JsonObject, built

HistoryPadding = Literal["mask", "learned"]


class AttentionPooling(nn.Module):
    """sum_t softmax_t(q^T tanh(W x_t + b)) x_t over the valid t (the paper's "attention network", query size 200).

    One set of weights, two forms: packed sequences (tokens of news) and padded ones (histories of users). Which
    kernels compute them is `kernels.dispatch.use_kernels`'.
    """

    def __init__(self, dim: int, query_dim: int = 200) -> None:
        super().__init__()
        self.project = nn.Linear(dim, query_dim)
        self.query = nn.Linear(query_dim, 1, bias=False)

    def logits(self, x: Tensor) -> Tensor:
        """[..., d] -> [...] float32: importance before the softmax."""
        logits: Tensor = self.query(torch.tanh(self.project(x))).squeeze(-1).float()
        return logits

    def forward_packed(self, hidden: Tensor, batch: Packed) -> Tensor:
        """Pool each sequence of a packed batch.

        Args:
            hidden: [T, d] states of `batch`'s tokens, in its order.
            batch: U sequences; one of length 0 gives zeros.

        Returns:
            [U, d] float32.
        """
        longest = int(batch.lengths.max(initial=0))
        return additive_pooling(
            hidden, self.project.weight, self.project.bias, self.query.weight.squeeze(0), batch.device_offsets, longest
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Pool padded sequences.

        Args:
            x: [B, L, d]; what stands in the padding does not matter, as long as it is finite.
            mask: [B, L] bool, True = valid. A row with no valid slot gives zeros and has zero gradient.

        Returns:
            [B, d] in the dtype of x, or in autocast's.
        """
        return additive_pooling_padded(x, mask, self.project.weight, self.project.bias, self.query.weight.squeeze(0))


class NewsEncoder(nn.Module):
    """PLM -> attention pooling over tokens -> dense: one vector per news text (title or body)."""

    def __init__(self, encoder: Encoder, news_dim: int = 256, query_dim: int = 200, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = AttentionPooling(encoder.config.hidden, query_dim)
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(encoder.config.hidden, news_dim)
        self.token_budget = 0  # tokens whose activations are kept for the backward pass; 0: all

    def forward(self, batch: Packed, first: int = 0, hidden: Tensor | None = None) -> Tensor:
        """Encode U texts.

        Args:
            batch: U packed texts.
            first, hidden: start at this layer from cached states [T, hidden size] below it (`Encoder.forward`).

        Returns:
            [U, D] news vectors.
        """
        order = batch.by_length
        x = None if hidden is None else order.enter(hidden)
        count, budget = len(batch.tokens), self.token_budget
        if budget and count > budget and torch.is_grad_enabled():
            # Only the vectors are kept; each part's activations are computed again when its gradient is due.
            parts = order.batch.split(count / math.ceil(count / budget))
            vectors = torch.cat(
                [recomputed(self._vectors, part, first, None if x is None else x[rows]) for part, rows in parts]
            )
        else:
            vectors = self._vectors(order.batch, first, x)
        return order.leave_rows(vectors)

    def _vectors(self, batch: Packed, first: int, hidden: Tensor | None) -> Tensor:
        """`forward` of texts in the encoder's order."""
        states = self.encoder.forward_ordered(batch.by_length, first, hidden=hidden)
        vectors: Tensor = self.dense(self.dropout(self.pooling.forward_packed(states, batch)))
        return vectors


def _weighted_sum(weights: Tensor, vectors: Tensor) -> Tensor:
    """Weights [H, L], vectors [H, L, D]: [H, D]."""
    return torch.bmm(weights.unsqueeze(1).to(vectors.dtype), vectors).squeeze(1)


class AttentionUserEncoder(nn.Module):
    """Additive attention over the clicked news (the paper's user encoder).

    `history_padding`: 'mask' leaves padded slots out. 'learned' is the form of the authors' releases: in training a
    learned vector stands in every padded slot and takes part in the attention; in evaluation they are masked.
    """

    def __init__(self, news_dim: int = 256, query_dim: int = 200, history_padding: HistoryPadding = "mask") -> None:
        super().__init__()
        self.pooling = AttentionPooling(news_dim, query_dim)
        # No parameter that never gets a gradient: data-parallel engines stop at those.
        self.padding = nn.Parameter(torch.zeros(news_dim)) if history_padding == "learned" else None
        if self.padding is not None:
            nn.init.uniform_(self.padding, -1.0, 1.0)

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        """History [B, L, D], mask [B, L] bool (True = a click) -> user vectors [B, D]; zeros without any click."""
        if self.padding is not None and self.training:
            history = torch.where(mask.unsqueeze(-1), history, self.padding.to(history.dtype))
            mask = torch.ones_like(mask)
        vectors: Tensor = self.pooling(history, mask)
        return vectors

    def of_rows(self, news: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
        """`forward` of `news[rows]`: the importance of a news does not depend on the user, so it is computed once a news.

        Args:
            news: [U, D] float32; rows: [H, L] int64, any row in an empty slot; mask: [H, L] bool, True = a click.

        Returns:
            [H, D] user vectors; zeros without any click.
        """
        logits = F.embedding(rows, self.pooling.logits(news).unsqueeze(-1)).squeeze(-1)
        history = F.embedding(rows, news)
        if self.padding is not None and self.training:
            empty = self.pooling.logits(self.padding)
            weights = torch.where(mask, logits, empty).softmax(-1)
            left = weights.masked_fill(mask, 0.0).sum(-1, keepdim=True)
            return _weighted_sum(weights.masked_fill(~mask, 0.0), history) + left * self.padding
        weights = logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(-1).masked_fill(~mask, 0.0)
        return _weighted_sum(weights, history)


class NRMSUserEncoder(nn.Module):
    """Multi-head self-attention over the clicked news, then additive attention (NRMS, Wu et al. 2019)."""

    def __init__(self, news_dim: int = 256, heads: int = 16, query_dim: int = 200) -> None:
        super().__init__()
        if news_dim % heads:
            raise InputError(f"NRMS user encoder: news_dim {news_dim} is not a multiple of heads {heads}")
        self.heads = heads
        self.qkv = nn.Linear(news_dim, 3 * news_dim)
        self.pooling = AttentionPooling(news_dim, query_dim)

    def forward(self, history: Tensor, mask: Tensor) -> Tensor:
        """History [B, L, D], mask [B, L] bool (True = a click) -> user vectors [B, D]; zeros without any click."""
        q, k, v = self.qkv(history).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        # A row without clicks attends everywhere: pooling zeroes it, and no softmax is ever empty.
        keys = (mask | ~mask.any(-1, keepdim=True))[:, None, None, :]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
        vectors: Tensor = self.pooling(attended.transpose(1, 2).flatten(2), mask)
        return vectors


class Recommender(nn.Module):
    """News encoder, user encoder and click score u^T h."""

    def __init__(self, news_encoder: NewsEncoder, user_encoder: nn.Module) -> None:
        super().__init__()
        self.news_encoder = news_encoder
        self.user_encoder = user_encoder

    def encode_news(self, batch: Packed, first: int = 0, hidden: Tensor | None = None) -> Tensor:
        """U packed titles -> [U, D]; `first` and `hidden` as in `NewsEncoder.forward`."""
        vectors: Tensor = self.news_encoder(batch, first, hidden)
        return vectors

    def encode_users(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """News vectors of the histories [B, L, D], mask [B, L] -> [B, D]."""
        users: Tensor = self.user_encoder(vectors, mask)
        return users

    def encode_users_of(self, news: Tensor, rows: Tensor, mask: Tensor) -> Tensor:
        """`encode_users` of `news[rows]`, news [U, D] and rows [H, L], without what would be computed twice: [H, D]."""
        if isinstance(self.user_encoder, AttentionUserEncoder):
            return self.user_encoder.of_rows(news, rows, mask)
        return self.encode_users(F.embedding(rows, news), mask)

    def score(self, users: Tensor, candidates: Tensor) -> Tensor:
        """Users [B, D], candidates [B, C, D] -> scores [B, C]: y_c = h_c^T u."""
        return torch.bmm(candidates, users.unsqueeze(-1)).squeeze(-1)


class Matcher(nn.Module):
    """Body-title matching (post-training and stage 1): the dot product of body and title vectors."""

    def __init__(self, news_encoder: NewsEncoder) -> None:
        super().__init__()
        self.news_encoder = news_encoder

    def score(self, bodies: Tensor, titles: Tensor) -> Tensor:
        """Bodies [B, D], titles [B, N+1, D] -> scores [B, N+1]."""
        return torch.bmm(titles, bodies.unsqueeze(-1)).squeeze(-1)

    def forward(self, bodies: Packed, titles: Packed, candidates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode all in one pass (in parts where the encoder's token budget asks for them), and score.

        Args:
            bodies: B bodies; titles: the U distinct titles of the batch.
            candidates: [B, N+1] rows of `titles`.

        Returns:
            Scores [B, N+1], body vectors [B, D], title vectors [U, D].
        """
        vectors = self.news_encoder(Packed.join([bodies, titles]))
        body_vectors, title_vectors = vectors.split([len(bodies), len(titles)])
        return self.score(body_vectors, F.embedding(candidates, title_vectors)), body_vectors, title_vectors


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to build a recommender; kept in each saved model.

    Attributes:
        user_heads: heads of the NRMS user encoder.
        dropout: of the pooled token vector, before the dense layer.
    """

    encoder: EncoderConfig
    news_dim: int = 256
    query_dim: int = 200
    user_encoder: Literal["attention", "nrms"] = "attention"
    user_heads: int = 16
    history_padding: HistoryPadding = "mask"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("news_dim", "query_dim", "user_heads"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"model: {name} is {value!r}; it must be a positive integer")
        if self.user_encoder not in ("attention", "nrms"):
            raise InputError(f"model: user_encoder {self.user_encoder!r} is not one of attention, nrms")
        if self.history_padding not in ("mask", "learned"):
            raise InputError(f"model: history_padding {self.history_padding!r} is not one of mask, learned")
        if self.user_encoder == "nrms" and self.history_padding != "mask":
            raise InputError("model: history_padding 'learned' goes with user_encoder 'attention' only")

    def to_dict(self) -> JsonObject:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> ModelSpec:
        """Inverse of `to_dict`; an unknown or missing key is an `InputError`."""
        try:
            encoder = values["encoder"]
            if not isinstance(encoder, dict):
                raise TypeError(f"encoder is a {type(encoder).__name__}, not an object")
            return built(cls, {**values, "encoder": EncoderConfig.from_dict(encoder)})
        except (TypeError, KeyError) as error:
            raise InputError(f"model description: {error}") from None


def build_recommender(spec: ModelSpec, encoder: Encoder | None = None) -> Recommender:
    """A recommender as `spec` says, around `encoder` (from `load_plm`) or a randomly initialised one."""
    if encoder is None:
        encoder = encoder_from_config(spec.encoder)
    elif encoder.config != spec.encoder:
        raise InputError("model: the encoder's configuration differs from the specification's")
    news_encoder = NewsEncoder(encoder, spec.news_dim, spec.query_dim, spec.dropout)
    user_encoder: nn.Module
    if spec.user_encoder == "nrms":
        user_encoder = NRMSUserEncoder(spec.news_dim, spec.user_heads, spec.query_dim)
    else:
        user_encoder = AttentionUserEncoder(spec.news_dim, spec.query_dim, spec.history_padding)
    return Recommender(news_encoder, user_encoder)


def save_recommender(model: Recommender, spec: ModelSpec, path: Path | str) -> Path:
    """Write a recommender and its specification as safetensors; returns the file."""
    return save_model(model, path, spec.to_dict())


def load_recommender(path: Path | str) -> tuple[Recommender, ModelSpec]:
    """Recommender and specification from `save_recommender`'s file or folder.

    Raises:
        InputError: a missing or corrupt file, or a missing, unexpected or wrongly shaped key; names file and key.
    """
    state, architecture = load_state(path)
    try:
        spec = ModelSpec.from_dict(architecture)
    except InputError as error:
        raise InputError(f"{model_file(path)}: {error}") from None
    model = build_recommender(spec)
    load_strict(model, state, model_file(path))
    return model, spec


def count_parameters(module: nn.Module, trainable: bool = False) -> int:
    """Number of parameters; only those that train if `trainable`."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)
