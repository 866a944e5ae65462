"""Ragged batches: the tokens of all sequences in one row, without padding; and rows of tables that hold some for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from tnr_dist.kernels.attention import AttentionPlan
from tnr_dist.kernels.context import Context
from tnr_dist.util.transfer import from_stored, to_device


@dataclass(eq=False)
class Packed:
    """U sequences, T tokens in all, one after another.

    Lengths stay on the host, so that planning a batch never waits for the device.

    Attributes:
        tokens: [T] int64, on the device of the model.
        lengths: [U] int64, on the host; they sum to T.
    """

    tokens: Tensor
    lengths: np.ndarray

    @classmethod
    def pack(cls, values: Tensor | np.ndarray | Sequence[int], lengths: np.ndarray | Sequence[int]) -> Packed:
        """Wrap flat token ids [T] of any integer type and the sequences' lengths [U]."""
        tokens = values if isinstance(values, Tensor) else torch.from_numpy(np.asarray(values).astype(np.int64))
        packed = cls(tokens.long(), np.asarray(lengths, dtype=np.int64).reshape(-1))
        if int(packed.lengths.sum()) != len(tokens) or (packed.lengths < 0).any():
            raise ValueError(f"lengths sum to {int(packed.lengths.sum())}, but there are {len(tokens)} tokens")
        return packed

    @classmethod
    def gather(
        cls,
        flat: np.ndarray | Tensor,
        offsets: np.ndarray,
        index: np.ndarray,
        max_length: int | None = None,
    ) -> Packed:
        """Pick rows of a ragged table.

        Args:
            flat: [V] token ids of all rows, any integer type; memory-mapped, or a tensor already on the device.
            offsets: [rows + 1] int64, row r being flat[offsets[r]:offsets[r + 1]].
            index: [U] rows to pick, in any order and number.
            max_length: longer rows keep their first max_length - 1 tokens and their last one ([SEP]).
        """
        index = np.asarray(index, dtype=np.int64)
        starts, ends = offsets[index], offsets[index + 1]
        lengths = ends - starts
        cut = np.zeros(0, np.int64)
        if max_length is not None:
            cut = np.flatnonzero(lengths > max_length)
            lengths = np.minimum(lengths, max_length)
        stops = np.cumsum(lengths)
        source = np.arange(int(stops[-1]) if len(stops) else 0) + np.repeat(starts - (stops - lengths), lengths)
        source[stops[cut] - 1] = ends[cut] - 1
        if isinstance(flat, Tensor):
            tokens = flat[to_device(source, flat.device)].long()
        else:
            tokens = torch.from_numpy(flat[source].astype(np.int64))
        return cls(tokens, lengths.astype(np.int64))

    @classmethod
    def join(cls, parts: Sequence[Packed]) -> Packed:
        """The sequences of several, one after another."""
        return cls(torch.cat([p.tokens for p in parts]), np.concatenate([p.lengths for p in parts]))

    def to(self, device: torch.device | str) -> Packed:
        """Return the same sequences on `device`."""
        return Packed(to_device(self.tokens, device), self.lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def offsets(self) -> np.ndarray:
        """[U + 1] int64: sequence u is tokens[offsets[u]:offsets[u + 1]]."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])

    @cached_property
    def device_offsets(self) -> Tensor:
        """`offsets` on the device."""
        return self._device(self.offsets)

    @cached_property
    def positions(self) -> Tensor:
        """[T] int64: place of each token in its sequence, from 0."""
        return self._device(np.arange(len(self.tokens)) - np.repeat(self.offsets[:-1], self.lengths))

    @cached_property
    def sequences(self) -> Tensor:
        """[T] int64: number of the sequence each token belongs to."""
        return self._device(np.repeat(np.arange(len(self)), self.lengths))

    @cached_property
    def starts(self) -> Tensor:
        """[U] int64: first token of each sequence."""
        return self._device(self.offsets[:-1])

    @cached_property
    def by_length(self) -> Order:
        """The same sequences shortest first, as the encoder runs them."""
        if (np.diff(self.lengths) >= 0).all():
            return Order(self, None, None, None)
        rows = np.argsort(self.lengths, kind="stable")
        lengths = self.lengths[rows]
        stops = np.cumsum(lengths)
        tokens = np.arange(int(stops[-1])) + np.repeat(self.offsets[rows] - (stops - lengths), lengths)
        index = self._device(tokens)
        back, rows_back = np.empty_like(tokens), np.empty_like(rows)
        back[tokens] = np.arange(len(tokens))
        rows_back[rows] = np.arange(len(rows))
        return Order(Packed(self.tokens[index], lengths), index, self._device(back), self._device(rows_back))

    @cached_property
    def plan(self) -> AttentionPlan:
        """Attention plan; the sequences must already be ordered by length."""
        return AttentionPlan(self.lengths)

    def split(self, tokens: float) -> Iterator[tuple[Packed, slice]]:
        """Cut into runs of whole sequences of about `tokens` tokens; yields each with its rows of [T, ...]."""
        parts = max(1, round(len(self.tokens) / tokens))
        edges = np.searchsorted(self.offsets, np.linspace(0, len(self.tokens), parts + 1)[1:-1])
        for a, b in zip([0, *edges], [*edges, len(self)], strict=True):
            rows = slice(int(self.offsets[a]), int(self.offsets[b]))
            yield Packed(self.tokens[rows], self.lengths[a:b]), rows

    def _device(self, array: np.ndarray) -> Tensor:
        return to_device(array, self.tokens.device)


def recomputed(work: Callable[..., Tensor], part: Packed, *rest: object) -> Tensor:
    """`work(part, *rest)`, of which only the result is kept: the rest is computed again when its gradient is due.

    With the same dropout: torch restores the random numbers of the devices whose tensors are among the arguments, and
    does not look for them inside a `Packed`.
    """
    result: Tensor = checkpoint(lambda tokens, *others: work(part, *others), part.tokens, *rest, use_reentrant=False)
    return result


@dataclass(frozen=True, eq=False)
class Order:
    """A batch ordered by length, and the way back; the index tensors are None where the order was already right.

    Attributes:
        batch: the same sequences, shortest first.
        tokens: [T] row of the original batch for each row of `batch`; tokens_back: its inverse.
        rows_back: [U] place in `batch` of each original sequence.
    """

    batch: Packed
    tokens: Tensor | None
    tokens_back: Tensor | None
    rows_back: Tensor | None

    def enter(self, x: Tensor) -> Tensor:
        """Rows [T, ...] of the original batch in the order of `batch`."""
        ordered: Tensor = _Permute.apply(x, self.tokens, self.tokens_back)  # type: ignore[no-untyped-call]
        return ordered

    def leave(self, x: Tensor) -> Tensor:
        """Rows [T, ...] of `batch` in the original order."""
        original: Tensor = _Permute.apply(x, self.tokens_back, self.tokens)  # type: ignore[no-untyped-call]
        return original

    def leave_rows(self, x: Tensor) -> Tensor:
        """Sequences [U, ...] of `batch` in the original order."""
        return x if self.rows_back is None else x.index_select(0, self.rows_back)


class _Permute(torch.autograd.Function):
    # The gradient of a permutation is a gather; index_select's own would be a scatter-add.
    @staticmethod
    def forward(ctx: Context, x: Tensor, index: Tensor | None, inverse: Tensor | None) -> Tensor:
        ctx.inverse = inverse
        return x.view_as(x) if index is None else x.index_select(0, index)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None, None]:
        return (grad if ctx.inverse is None else grad.index_select(0, ctx.inverse)), None, None


def ragged_index(starts: np.ndarray, lengths: np.ndarray, device: torch.device) -> Tensor:
    """Rows of whole sequences of a ragged table, one after another: starts[u] to starts[u] + lengths[u] for every u.

    Args:
        starts: [U] first row of each wanted sequence, on the host.
        lengths: [U] on the host, summing to T.
        device: of the result.

    Returns:
        [T] int64. What travels to the device is two numbers a sequence, and nothing waits for it.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    stops = np.cumsum(lengths)
    total = int(stops[-1]) if len(stops) else 0
    counts, shift = to_device(np.stack([lengths, starts - (stops - lengths)]), device)
    return torch.repeat_interleave(shift, counts, output_size=total) + torch.arange(total, device=device)


@dataclass(frozen=True)
class TokenRows:
    """Where the tokens of some titles lie in the token table; told to the device by title, not by token.

    Attributes:
        starts: [E] int64, row of each title's first token.
        lengths: [E] int64, summing to T.
    """

    starts: np.ndarray
    lengths: np.ndarray
    device: torch.device

    @cached_property
    def on_host(self) -> np.ndarray:
        """[T] int64: the row of each token."""
        firsts = self.starts - (np.cumsum(self.lengths) - self.lengths)
        rows: np.ndarray = np.arange(self.lengths.sum()) + np.repeat(firsts, self.lengths)
        return rows

    @cached_property
    def on_device(self) -> Tensor:
        """The same on the device."""
        return ragged_index(self.starts, self.lengths, self.device)


class TokenStates(Protocol):
    """What frozen layers make of every token of a table."""

    def rows(self, tokens: TokenRows) -> Tensor:
        """States [T, hidden] of these rows of the token table, on the device."""


class StatesInMemory(TokenStates):
    """One tensor [tokens, hidden], on the device or pinned on the host."""

    def __init__(self, states: Tensor, device: torch.device) -> None:
        self.states, self.device = states, device

    @override
    def rows(self, tokens: TokenRows) -> Tensor:
        if self.states.device == self.device:
            return self.states[tokens.on_device]
        return to_device(self.states[torch.from_numpy(tokens.on_host)], self.device)


class StatesOnDisk(TokenStates):
    """Memory-mapped segments; segment i holds token rows edges[i] to edges[i + 1]."""

    def __init__(self, maps: list[np.ndarray], edges: np.ndarray, device: torch.device) -> None:
        self.maps, self.edges, self.device = maps, edges, device

    @override
    def rows(self, tokens: TokenRows) -> Tensor:
        rows = tokens.on_host
        out = np.empty((len(rows), self.maps[0].shape[1]), self.maps[0].dtype)
        segment = np.searchsorted(self.edges, rows, side="right") - 1
        for number in np.unique(segment):
            chosen = segment == number
            out[chosen] = self.maps[number][rows[chosen] - self.edges[number]]
        return to_device(from_stored(out), self.device)
