"""Training on clicks, from a batch of the loader to what the module takes: each distinct title once, encoded by one rank."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from tnr_dist.config.training import ClickTrainConfig, ValidatedTrainConfig
from tnr_dist.data.batches.clicks import Batch, ClickLoader
from tnr_dist.data.held_out import HeldOut
from tnr_dist.data.tokens import RaggedTable, check_ids
from tnr_dist.engines.base import Engine
from tnr_dist.engines.graphs import Recordable
from tnr_dist.engines.precision import compute_dtype
from tnr_dist.kernels.dispatch import use_triton
from tnr_dist.kernels.launch import power_of_two
from tnr_dist.kernels.tiles import block_rows
from tnr_dist.models.flops import news_encoder_flops
from tnr_dist.models.packed import Packed, TokenRows, TokenStates
from tnr_dist.models.recommender import NewsEncoder, Recommender
from tnr_dist.models.transformer import Encoder
from tnr_dist.stages.parts.fill_batches import StaticTables, fill, fill_rows
from tnr_dist.stages.parts.frozen import frozen_states
from tnr_dist.stages.parts.start_models import plm_parameters
from tnr_dist.stages.parts.task import TrainsRecommender
from tnr_dist.stages.parts.validation import Validation
from tnr_dist.train.throughput import Texts
from tnr_dist.util.transfer import from_stored, replace_tensors, tensors_of, to_device


@dataclass
class Teachers:
    """What the teachers say of a batch: values, or the rows of the module's tables that hold them.

    Attributes:
        users: [B, M, D], or [B] int64 rows.
        logits: [B, C, M], or [B, C] int64 rows.
    """

    users: Tensor
    logits: Tensor


@dataclass
class ClickInputs(Recordable):
    """A click batch on the device: B samples of H distinct histories.

    U distinct titles of this rank's samples; E titles that this rank encodes.
    """

    news: Tensor  # [U] int64 news indices
    titles: Packed  # E titles
    frozen: Tensor | None  # [T, hidden] output of the frozen layers for `titles`, when it is cached
    vectors: Tensor  # [U] rows of the vectors of all ranks' titles
    history: Tensor  # [H, L] rows of `news`
    history_mask: Tensor  # [H, L] bool
    users: Tensor  # [B] rows of `history`
    candidates: Tensor  # [B, C] rows of `news`
    candidate_mask: Tensor  # [B, C] bool
    weights: Tensor  # [B]
    count: float
    teachers: Teachers | None = None
    gather: Callable[[Tensor], Tensor] | None = None  # the engine's: own rows [E, ...] -> all ranks'; None: own are all
    teacher_frozen: Tensor | None = None  # [T, hidden] the same of the teacher that runs beside (`prepare_teacher`)
    static: StaticTables | None = None  # where the titles were filled up to a size that repeats
    real_lengths: np.ndarray | None = None  # [E] of those that were not added to fill up

    def encode(self, encoder: NewsEncoder) -> Tensor:
        """Vectors of the batch's distinct titles, [U, D] float32."""
        return self.spread(encoder(self.titles, self.first_layer(encoder), self.frozen).float())

    def first_layer(self, encoder: NewsEncoder) -> int:
        """The layer that `encoder` starts with: above the frozen ones where their output is cached."""
        return encoder.encoder.frozen_layers if self.frozen is not None else 0

    def spread(self, rows: Tensor) -> Tensor:
        """From rows [E, ...] of the titles that this rank encodes to those of the batch's distinct titles, [U, ...]."""
        return (rows if self.gather is None else self.gather(rows))[self.vectors]

    def users_and_scores(self, model: Recommender, news: Tensor) -> tuple[Tensor, Tensor]:
        """User vectors [B, D] and scores [B, C] from vectors [U, D] of `news`; each distinct history is encoded once."""
        distinct = model.encode_users_of(news, self.history, self.history_mask)
        users = F.embedding(self.users, distinct.float())  # so that the gradients of a user's samples add up in float32
        return users, model.score(users, F.embedding(self.candidates, news))

    def slots(self) -> tuple[Tensor, Tensor]:
        """Rows of `news` in all slots of a sample, its history and its candidates [B, L + C], and which are filled."""
        return (
            torch.cat([self.history[self.users], self.candidates], 1),
            torch.cat([self.history_mask[self.users], self.candidate_mask], 1),
        )

    @override
    def shape_key(self) -> Hashable | None:
        if self.static is None:
            return None
        shapes = tuple((tensor.shape, tensor.dtype) for tensor in self.tensors())
        return shapes, self.count, power_of_two(self.titles.plan.longest)

    @override
    def tensors(self) -> list[Tensor]:
        return list(tensors_of(self))

    @override
    def with_tensors(self, tensors: list[Tensor]) -> ClickInputs:
        other: ClickInputs = replace_tensors(self, iter(tensors))
        assert other.static is not None
        other.static.attach(other.titles)
        return other


class ClickTitles:
    """The titles of a data set as a click stage encodes them; `place`: folder for frozen states that go to disk."""

    def __init__(
        self,
        titles: RaggedTable,
        max_length: int,
        encoder: NewsEncoder,
        settings: ClickTrainConfig,
        engine: Engine,
        place: Path,
    ) -> None:
        if int(titles.lengths.max(initial=0)) > max_length:
            packed = Packed.gather(titles.values, titles.offsets, np.arange(len(titles)), max_length)
            titles = RaggedTable(packed.tokens.numpy().astype(titles.values.dtype), packed.offsets)
        check_ids(titles, encoder.encoder.config.vocab_size, "the prepared titles")
        self.titles, self.lengths = titles, titles.lengths
        self.encoder, self.engine, self.settings, self.place = encoder, engine, settings, place
        self.shared = settings.dedupe == "global" and engine.environment.world_size > 1
        self.frozen: TokenStates | None = None
        self.teacher_frozen: TokenStates | None = None
        self.longest = int(self.lengths.max(initial=0))
        self.repeats = False  # whether batches are filled up to sizes that repeat
        self._tokens = torch.from_numpy(np.asarray(titles.values).astype(np.int32)).to(engine.device)

    def prepare(self, title: str) -> None:
        """Run the frozen layers once over every title (they see no dropout, so it is the same in every step)."""
        self.frozen = frozen_states(self.encoder.encoder, self.titles, self.settings, self.engine, self.place, title)
        self.repeats = self.settings.cuda_graphs and self._recordable()

    def prepare_teacher(self, encoder: Encoder, title: str) -> None:
        """Run the layers below `encoder.frozen_layers` of a teacher once, of which the others run in the step."""
        self.teacher_frozen = frozen_states(encoder, self.titles, self.settings, self.engine, self.place, title)

    def _recordable(self) -> bool:
        """Whether a step can be a CUDA graph: all that it does follows from the shapes of its inputs."""
        if self.engine.device.type != "cuda" or self.engine.environment.world_size > 1 or self.frozen is None:
            return False
        dtype = compute_dtype(self.engine)
        probe = torch.empty(0, device=self.engine.device, dtype=dtype)
        if self.longest > block_rows(dtype) or not use_triton(None, probe, "ragged_attention"):
            return False
        return self.encoder.token_budget == 0 or len(self.titles.values) < self.encoder.token_budget

    def inputs(self, batch: Batch) -> ClickInputs:
        """Find the distinct histories and titles of a batch, share the titles among ranks, and lay the slots out as rows.

        All of it is planned on the host, from ids the loader has just made there: on the device their number would have
        to be waited for.
        """
        device, environment = self.engine.device, self.engine.environment
        candidates = batch["candidates"]
        history, users = distinct_rows(batch["history"])
        if self.repeats:
            history = fill_rows(history, len(users))
        ids = np.concatenate([history.ravel(), candidates.ravel()])
        known = ids >= 0
        # An empty slot points at any title of the batch; its mask keeps it out of everything.
        news, rows = np.unique(np.where(known, ids, candidates[0, 0]), return_inverse=True)
        if self.shared:
            # Sorted by length and dealt out like cards, so that the ranks get equal work.
            order = self._by_length(np.unique(np.concatenate(self.engine.gather(news))))
            shares = [order[rank :: environment.world_size] for rank in range(environment.world_size)]
        else:
            shares = [self._by_length(news)]
        gathered = np.concatenate(shares)
        by_news = np.argsort(gathered)
        vectors = by_news[np.searchsorted(gathered[by_news], news)]
        mine = shares[environment.rank if self.shared else 0]
        lengths, starts, static = self.lengths[mine], np.asarray(self.titles.offsets)[mine], None
        if self.repeats:
            filled = fill(lengths, starts, self.longest)
            lengths, starts, vectors = filled.lengths, filled.starts, filled.place[vectors]
            news, vectors = (np.pad(values, (0, len(lengths) - len(values))) for values in (news, vectors))
        tokens = TokenRows(starts, lengths, device)
        titles = Packed(self._tokens[tokens.on_device].long(), lengths)
        if self.repeats:
            static = StaticTables.of(lengths, device, compute_dtype(self.engine))
            static.attach(titles)
        return ClickInputs(
            news=to_device(news.astype(np.int64), device),
            titles=titles,
            frozen=None if self.frozen is None else self.frozen.rows(tokens),
            vectors=to_device(vectors.astype(np.int64), device),
            history=to_device(rows[: history.size].reshape(history.shape), device),
            history_mask=to_device(known[: history.size].reshape(history.shape), device),
            users=to_device(users, device),
            candidates=to_device(rows[history.size :].reshape(candidates.shape), device),
            candidate_mask=to_device(known[history.size :].reshape(candidates.shape), device),
            weights=to_device(batch["weights"], device),
            count=float(batch["count"]),
            teachers=_teachers(batch, device),
            gather=partial(self.engine.all_gather_rows, sizes=[len(share) for share in shares])
            if self.shared
            else None,
            teacher_frozen=None if self.teacher_frozen is None else self.teacher_frozen.rows(tokens),
            static=static,
            real_lengths=self.lengths[mine] if self.repeats else None,
        )

    def _by_length(self, news: np.ndarray) -> np.ndarray:
        """The encoder's own order: it then need not reorder tokens and states, there and back."""
        return news[np.argsort(self.lengths[news], kind="stable")]

    def vectors(self, encoder: NewsEncoder, news: np.ndarray) -> Tensor:
        """Vectors [E, D] of some news [E] on the device, outside a training step and on this rank alone."""
        lengths = self.lengths[news]
        tokens = TokenRows(np.asarray(self.titles.offsets)[news], lengths, self.engine.device)
        titles = Packed(self._tokens[tokens.on_device].long(), lengths)
        if self.frozen is None:
            return encoder(titles)  # type: ignore[no-any-return]
        return encoder(titles, encoder.encoder.frozen_layers, self.frozen.rows(tokens))  # type: ignore[no-any-return]


def distinct_rows(history: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows [H, L] of histories [B, L], and for each sample the one of them that is its own [B]."""
    whole = np.ascontiguousarray(history).view(np.dtype((np.void, history.itemsize * history.shape[1]))).ravel()
    _, first, users = np.unique(whole, return_index=True, return_inverse=True)
    return history[first], users.reshape(-1)


def _teachers(batch: Batch, device: torch.device) -> Teachers | None:
    if "teacher_users" not in batch:
        return None
    users, logits = (
        to_device(from_stored(np.ascontiguousarray(batch[name])), device)
        for name in ("teacher_users", "teacher_logits")
    )
    return Teachers(users, logits)


@dataclass
class ClickTask(TrainsRecommender):
    """What the stages that train on clicks hand to the loop."""

    recommender: Recommender
    module: nn.Module
    titles: ClickTitles
    loader: ClickLoader
    train: ClickTrainConfig
    seed: int
    title: str
    held_out: HeldOut | None = None

    @property
    @override
    def prefetch(self) -> bool:
        """With titles shared among ranks, laying out a batch is a conversation of the ranks."""
        return not self.titles.shared

    @override
    def begin(self, engine: Engine) -> None:
        self.titles.prepare(f"{self.title}: frozen layers")

    @override
    def to_device(self, batch: Batch) -> ClickInputs:
        return self.titles.inputs(batch)

    @override
    def texts(self, inputs: ClickInputs) -> list[Texts]:
        encoder, lengths = self.recommender.news_encoder, inputs.real_lengths
        lengths = inputs.titles.lengths if lengths is None else lengths
        return [Texts(lengths, partial(news_encoder_flops, encoder, lengths, inputs.first_layer(encoder)))]

    @override
    def plm_parameters(self) -> set[nn.Parameter]:
        return plm_parameters(self.module)

    @override
    def validation(self) -> Validation | None:
        if self.held_out is None:
            return None
        assert isinstance(self.train, ValidatedTrainConfig)
        history, every = self.loader.options.history, self.train.validate_every
        return Validation(self.recommender, self.titles, self.held_out, history, every, self.loader.steps)

    @override
    def validate(self, engine: Engine) -> dict[str, float]:
        return {}
