"""The PLM encoder: post-LN BERT / RoBERTa / MPNet / UniLMv2 over packed sequences.

Written on its own because no library offers unpadded batches, a shared relative position bias and frozen lower layers
without activation memory together; `plm.py` fills it with published weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tnr_dist.kernels.attention import attention_scores, ragged_attention, relative_buckets
from tnr_dist.kernels.dispatch import chosen, lay_out, layer_norm, linear, linear_gelu, residual_norm
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.packed import Order, Packed
from tnr_dist.util.errors import InputError
from tnr_dist.util.transfer import to_device

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}
# Without gradients a CPU runs this many tokens through all layers at a time: the activations stay in its cache.
_CPU_TOKENS = 2048


class Weights(NamedTuple):
    """The matrices of a layer's linear parts, as `kernels.dispatch.linear` takes them."""

    qkv: Tensor
    attention_out: Tensor
    ffn_in: Tensor
    ffn_out: Tensor


class Layer(nn.Module):
    """One post-LN transformer layer with the query, key and value projections in one matrix."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        d = config.hidden
        self.heads = config.heads
        self.dropout, self.attention_dropout = config.dropout, config.attention_dropout
        self.activation = ACTIVATIONS[config.activation]
        self.qkv = nn.Linear(d, 3 * d)
        self.attention_out = nn.Linear(d, d)
        self.attention_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.ffn_in = nn.Linear(d, config.intermediate)
        self.ffn_out = nn.Linear(config.intermediate, d)
        self.ffn_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)

    @property
    def weights(self) -> Weights:
        """As they are trained."""
        return Weights(self.qkv.weight, self.attention_out.weight, self.ffn_in.weight, self.ffn_out.weight)

    def heads_of(self, x: Tensor, weights: Weights | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [T, heads, head_dim] of x [T, d], as views of one tensor."""
        weight = self.qkv.weight if weights is None else weights.qkv
        q, k, v = linear(x, weight, self.qkv.bias).unflatten(-1, (3, self.heads, -1)).unbind(1)
        return q, k, v

    def forward(
        self,
        x: Tensor,
        batch: Packed,
        bias: Tensor | None,
        train: bool,
        heads: Sequence[Tensor] | None = None,
        weights: Weights | None = None,
    ) -> Tensor:
        """States [T, d] -> [T, d]; `batch` ordered by length, `bias` [heads, S, S], dropout only if `train`.

        Args:
            heads: what `heads_of` gives for x, where it is known.
            weights: the layer's own, laid out for many calls without gradients; None: as they are.
        """
        weights = self.weights if weights is None else weights
        q, k, v = self.heads_of(x, weights) if heads is None else heads
        attended = ragged_attention(q, k, v, batch.plan, bias, self.attention_dropout if train else 0.0)
        attended = linear(attended.flatten(1), weights.attention_out, self.attention_out.bias)
        x = self._add(x, attended, self.attention_norm, train)
        if self.activation is F.gelu:
            inner = linear_gelu(x, weights.ffn_in, self.ffn_in.bias)
        else:
            inner = self.activation(linear(x, weights.ffn_in, self.ffn_in.bias))
        return self._add(x, linear(inner, weights.ffn_out, self.ffn_out.bias), self.ffn_norm, train)

    def _add(self, x: Tensor, y: Tensor, norm: nn.LayerNorm, train: bool) -> Tensor:
        """norm(x + dropout(y)) for x, y [T, d]."""
        return residual_norm(x, y, norm.weight, norm.bias, norm.eps, self.dropout if train else 0.0)


class Encoder(nn.Module):
    """A PLM over packed sequences. The output of a sequence does not depend on the others of its batch.

    Submodules: `words`, `positions`, `types` (or None), `embedding_norm`, `layers`, `relative_bias` (or None).
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        d = config.hidden
        self.config, self.max_length = config, config.max_length
        self.words = nn.Embedding(config.vocab_size, d)
        self.positions = nn.Embedding(config.max_positions, d)
        self.types = nn.Embedding(config.type_vocab_size, d) if config.type_vocab_size else None
        self.embedding_norm = nn.LayerNorm(d, eps=config.layer_norm_eps)
        self.relative_bias = nn.Embedding(config.relative_buckets, config.heads) if config.relative_buckets else None
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.frozen_layers = 0
        self.frozen_embeddings = False
        self.frozen_dropout = False
        self._serving: list[Weights] | None = None
        self._frozen: tuple[tuple[Hashable, ...], list[Weights]] | None = None

    def truncate(self, n: int) -> Encoder:
        """Keep the first `n` layers only; returns itself."""
        if not 1 <= n <= len(self.layers):
            raise InputError(f"layers={n}: this encoder has {len(self.layers)}; choose 1 to {len(self.layers)}")
        self.layers = self.layers[:n]
        self.config = dataclasses.replace(self.config, layers=n)
        self.frozen_layers = min(self.frozen_layers, n)
        return self

    def set_dropout(self, p: float) -> Encoder:
        """Use dropout `p` after embeddings, attention and feed-forward and on attention weights; returns itself."""
        self.config = dataclasses.replace(self.config, dropout=p, attention_dropout=p)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            layer.dropout = layer.attention_dropout = p
        return self

    def freeze_below(self, trainable: int, dropout: bool = False) -> Encoder:
        """Train only the last `trainable` layers: embeddings and the layers below get no gradient.

        The relative bias is shared by all layers, so it trains only where all layers do. Returns itself.

        Args:
            trainable: 0 or more.
            dropout: whether the frozen part has dropout in training too; without it its output for a text is always
                the same, and can be kept.
        """
        if trainable < 0:
            raise InputError(f"trainable layers = {trainable}: give 0 or more")
        self.frozen_layers = max(0, len(self.layers) - trainable)
        self.frozen_embeddings, self.frozen_dropout = True, dropout
        self._frozen = None
        self.requires_grad_(False)
        for layer in self.layers[self.frozen_layers :]:
            layer.requires_grad_(True)
        if self.relative_bias is not None:
            self.relative_bias.requires_grad_(self.frozen_layers == 0)
        return self

    def serve(self) -> Encoder:
        """Lay the weights out once for all calls without gradients; returns itself.

        Call it under the autocast that the calls will run under. Later changes of the weights are not seen, and they are
        held in memory twice. Where `kernels.dispatch.lay_out` has no such form (float32 on a GPU) nothing changes.
        """
        self._serving = self._laid_out(0, len(self.layers))
        return self

    def forward(self, batch: Packed, first: int = 0, last: int | None = None, hidden: Tensor | None = None) -> Tensor:
        """Run layers `first` up to (not including) `last`.

        Args:
            batch: U packed sequences, each at most `config.max_length` long.
            first: layer to start with; above 0 `hidden` must be given.
            last: layer to stop before; None = to the end.
            hidden: [T, d] states below layer `first` (for example a frozen layer's cached output); None = embed.

        Returns:
            [T, d] states in the order of `batch.tokens`; float32, or autocast's dtype.

        Raises:
            InputError: a sequence is longer than the position table.
        """
        order = batch.by_length
        states = self._states(order, first, last, hidden)
        return order.leave(states)

    def forward_ordered(
        self, order: Order, first: int = 0, last: int | None = None, hidden: Tensor | None = None
    ) -> Tensor:
        """`forward` without the way back: states [T, d] in the order of `order.batch` (hidden in the caller's)."""
        return self._states(order, first, last, hidden)

    def forward_all(
        self, batch: Packed, scores: bool = False, first: int = 0, hidden: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The states below layer `first` and after each layer from there on, for losses between layers (TinyBERT).

        Args:
            batch, first, hidden: as for `forward`; with `first` = 0 the states below are the embeddings' output.
            scores: whether attention scores are wanted.

        Returns:
            layers - first + 1 tensors [T, d] in the order of `batch.tokens`; and, if `scores`, per layer from `first` on
            the attention scores [P, heads] of `attention_scores`, else an empty list.
        """
        order = batch.by_length
        x = self._states(order, first, first, hidden)
        states, all_scores, bias = [order.leave(x)], [], self._bias(order.batch, x.dtype)
        for number, layer in enumerate(self.layers[first:], first):
            learns = number >= self.frozen_layers
            with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
                heads = layer.heads_of(x)  # type: ignore[operator]
                if scores:
                    q, k, _ = heads
                    all_scores.append(attention_scores(q, k, order.batch.plan, bias))
                x = layer(x, order.batch, bias, self.training and (learns or self.frozen_dropout), heads)
            states.append(order.leave(x))
        return states, all_scores

    def _states(self, order: Order, first: int, last: int | None, hidden: Tensor | None) -> Tensor:
        last = len(self.layers) if last is None else last
        if not 0 <= first <= last <= len(self.layers) or (first > 0 and hidden is None):
            raise ValueError(f"layers {first} to {last} of {len(self.layers)}, hidden given: {hidden is not None}")
        batch = order.batch
        if batch.plan.longest > self.max_length:
            raise InputError(
                f"a sequence of {batch.plan.longest} tokens is longer than the encoder's {self.max_length}: "
                "lower the maximum length in tokens"
            )
        x = None if hidden is None else order.enter(hidden)
        return self._advance(batch, x, first, last)

    def _advance(self, batch: Packed, x: Tensor | None, first: int, last: int) -> Tensor:
        """Frozen part without gradients, then the trainable part; x None = embed first."""
        if x is None and not self.frozen_embeddings:
            x = self._span(batch, None, 0, 0, self.training)
        middle = min(max(first, self.frozen_layers), last)
        if x is None or first < middle:
            with torch.no_grad():
                kept = self._frozen_weights(first, middle)
                x = self._span(batch, x, first, middle, self.training and self.frozen_dropout, kept)
        return self._span(batch, x, middle, last, self.training) if middle < last else x

    def _span(
        self,
        batch: Packed,
        x: Tensor | None,
        first: int,
        last: int,
        train: bool,
        weights: list[Weights] | None = None,
    ) -> Tensor:
        if self._serving is not None and not torch.is_grad_enabled():
            weights = self._serving[first:last]
        cpu = batch.tokens.device.type == "cpu"
        if cpu and not torch.is_grad_enabled() and len(batch.tokens) >= 2 * _CPU_TOKENS:
            weights = self._laid_out(first, last) if weights is None else weights
            parts = batch.split(_CPU_TOKENS)
            return torch.cat(
                [self._span(p, None if x is None else x[r], first, last, train, weights) for p, r in parts]
            )
        if x is None:
            x = self._embed(batch, train)
        bias = self._bias(batch, x.dtype) if first < last else None
        for number, layer in enumerate(self.layers[first:last]):
            x = layer(x, batch, bias, train, weights=None if weights is None else weights[number])
        return x

    def _frozen_weights(self, first: int, last: int) -> list[Weights] | None:
        """Weights of frozen layers in autocast's dtype, cast once for all steps of a training; else None.

        Autocast itself keeps the copies of what trains only, and of that for one step.
        """
        device = self.embedding_norm.weight.device.type
        own = [w for layer in self.layers[first:last] for w in layer.weights]  # type: ignore[union-attr]
        # A weight that ZeRO shares out is empty between its layer's calls.
        if not self.training or not torch.is_autocast_enabled(device) or not all(w.numel() for w in own):
            return None
        made_from = (first, torch.get_autocast_dtype(device), chosen(None), *((w.data_ptr(), w._version) for w in own))
        if self._frozen is None or self._frozen[0] != made_from:
            self._frozen = made_from, self._laid_out(first, last)
        return self._frozen[1]

    def _laid_out(self, first: int, last: int) -> list[Weights]:
        """The weights of some layers, cast and laid out once for the many parts of a large batch."""
        like = self.embedding_norm.weight
        return [Weights(*(lay_out(w, like) for w in layer.weights)) for layer in self.layers[first:last]]  # type: ignore[union-attr]

    def _embed(self, batch: Packed, train: bool) -> Tensor:
        x = self.words(batch.tokens) + self.positions(batch.positions + self.config.position_offset)
        if self.types is not None:
            x = x + self.types.weight[0]
        norm = self.embedding_norm
        x = F.dropout(layer_norm(x, norm.weight, norm.bias, norm.eps), self.config.dropout, train)
        device = x.device.type
        # The residual stream is kept in autocast's dtype: half the memory traffic, same accuracy as a cast model.
        return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x

    def _bias(self, batch: Packed, dtype: torch.dtype) -> Tensor | None:
        """[heads, S, S] bias for sequences of up to S tokens."""
        if self.relative_bias is None:
            return None
        config = self.config
        longest, how = batch.plan.longest, (config.relative_buckets, config.relative_max_distance)
        if batch.tokens.device.type == "cpu":
            buckets = relative_buckets(longest, *how)
        else:  # a bucket depends on the distance only, so a table for longer sequences serves too
            buckets = _buckets_on(batch.tokens.device, -(-longest // 64) * 64, *how)[:longest, :longest]
        bias: Tensor = self.relative_bias(buckets).permute(2, 0, 1)
        return bias


@lru_cache(maxsize=16)
def _buckets_on(device: torch.device, length: int, buckets: int, max_distance: int) -> Tensor:
    """`relative_buckets` on the device, where they stay: a copy in every step would be waited for, and cannot be recorded."""
    with torch.inference_mode(False):  # what is made within it cannot be used in training later
        return to_device(relative_buckets(length, buckets, max_distance), device)


def encoder_from_config(config: EncoderConfig) -> Encoder:
    """An encoder with random weights as BERT starts: normal with standard deviation 0.02, biases 0, norms 1."""
    encoder = Encoder(config)
    for module in encoder.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return encoder
