"""Click batches on the device: each distinct title encoded once, by one rank, above the frozen layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tnr_dist.cache.teachers import from_stored
from tnr_dist.config import ClickTrainConfig
from tnr_dist.data.loader import Batch, ClickLoader
from tnr_dist.data.tokens import RaggedTable, gather_rows
from tnr_dist.engines.base import Engine
from tnr_dist.evaluation.scoring import length_chunks
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import NewsEncoder, Recommender
from tnr_dist.progress import Bar
from tnr_dist.stages.common import plm_parameters


@dataclass
class ClickInputs:
    """A click batch on the device. U distinct titles of this rank's samples; E titles that this rank encodes."""

    news: Tensor  # [U] int64 news indices
    titles: Packed  # E titles
    frozen: Tensor | None  # [T, hidden] output of the frozen layers for `titles`, when it is cached
    sizes: list[int]  # titles that each rank encodes
    vectors: Tensor  # [U] rows of the gathered vectors [sum of sizes, D]
    history: Tensor  # [B, L] rows of `news`
    history_mask: Tensor  # [B, L] bool
    candidates: Tensor  # [B, C] rows of `news`
    candidate_mask: Tensor  # [B, C] bool
    weights: Tensor  # [B]
    count: float
    columns: dict[str, Tensor]


class ClickTitles:
    """The titles of a data set as a click stage encodes them."""

    def __init__(
        self, titles: RaggedTable, max_length: int, encoder: NewsEncoder, settings: ClickTrainConfig, engine: Engine
    ) -> None:
        if int(titles.lengths.max(initial=0)) > max_length:
            packed = Packed.gather(titles.values, titles.offsets, np.arange(len(titles)), max_length)
            titles = RaggedTable(packed.tokens.numpy().astype(titles.values.dtype), packed.offsets)
        self.titles, self.encoder, self.engine = titles, encoder, engine
        self.shared = settings.dedupe == "global" and engine.environment.world_size > 1
        self.first = encoder.encoder.frozen_layers
        self.frozen: Tensor | None = None
        size = len(titles.values) * encoder.encoder.config.hidden * 4 / 2**30
        self._cache = bool(self.first) and size <= settings.frozen_cache_gib

    def prepare(self, title: str) -> None:
        """Run the frozen layers once over every title (they see no dropout, so it is the same in every step)."""
        if self._cache:
            self.frozen = frozen_states(self.encoder, self.titles, self.first, self.engine, title)

    def inputs(self, batch: Batch) -> ClickInputs:
        """Find the distinct titles of a batch, share them among ranks, and lay the slots out as rows of them."""
        device, environment = self.engine.device, self.engine.environment
        history, candidates = batch["history"], batch["candidates"]
        ids = np.concatenate([history, candidates], 1)
        known = ids >= 0
        # An empty slot points at any title of the batch; its mask keeps it out of everything.
        news, rows = np.unique(np.where(known, ids, candidates[0, 0]), return_inverse=True)
        rows = rows.reshape(ids.shape)
        length = history.shape[1]
        if self.shared:
            everywhere = np.unique(np.concatenate(self.engine.gather(news)))
            # Sorted by length and dealt out like cards, so that the ranks get equal work.
            order = everywhere[np.argsort(self.titles.lengths[everywhere], kind="stable")]
            shares = [order[rank :: environment.world_size] for rank in range(environment.world_size)]
            gathered = np.concatenate(shares)
            by_news = np.argsort(gathered)
            vectors = by_news[np.searchsorted(gathered[by_news], news)]
            mine, sizes = shares[environment.rank], [len(share) for share in shares]
        else:
            vectors, mine, sizes = np.arange(len(news)), news, [len(news)]

        def put(array: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)

        titles = Packed.gather(self.titles.values, self.titles.offsets, mine).to(device)
        frozen = None
        if self.frozen is not None:
            tokens, _ = gather_rows(np.arange(len(self.titles.values)), self.titles.offsets, mine)
            frozen = self.frozen[put(tokens)]
        return ClickInputs(
            put(news.astype(np.int64)),
            titles,
            frozen,
            sizes,
            put(vectors.astype(np.int64)),
            put(rows[:, :length]),
            put(known[:, :length]),
            put(rows[:, length:]),
            put(known[:, length:]),
            put(batch["weights"]),
            float(batch["count"]),
            {
                name: from_stored(np.ascontiguousarray(batch[name])).to(device, non_blocking=True)
                for name in ("teacher_users", "teacher_logits")
                if name in batch
            },
        )

    def encode(self, encoder: NewsEncoder, inputs: ClickInputs) -> Tensor:
        """Vectors of the batch's distinct titles, [U, D] float32."""
        first = self.first if inputs.frozen is not None else 0
        vectors = encoder(inputs.titles, first, inputs.frozen).float()
        if self.shared:
            vectors = self.engine.all_gather_rows(vectors, inputs.sizes)
        return vectors[inputs.vectors]


@dataclass
class ClickTask:
    """What the stages that train on clicks hand to the loop; see `train.loop.Task`."""

    recommender: Recommender
    module: nn.Module
    titles: ClickTitles
    loader: ClickLoader
    train: ClickTrainConfig
    seed: int
    title: str

    def begin(self, engine: Engine) -> None:
        """See `Task`."""
        self.titles.prepare(f"{self.title}: frozen layers")

    def to_device(self, batch: Batch) -> ClickInputs:
        """See `Task`."""
        return self.titles.inputs(batch)

    def plm_parameters(self) -> set[nn.Parameter]:
        """See `Task`."""
        return plm_parameters(self.module)

    def validate(self, engine: Engine) -> dict[str, float]:
        """See `Task`."""
        return {}


@torch.no_grad()
def frozen_states(encoder: NewsEncoder, titles: RaggedTable, layers: int, engine: Engine, title: str) -> Tensor:
    """The frozen layers' output for every token of every title, [T, hidden], in the engine's precision."""
    encoder.eval()
    hidden = encoder.encoder.config.hidden
    rank, world = engine.environment.rank, engine.environment.world_size
    out: Tensor | None = None
    with Bar(title, len(titles), "news", enabled=rank == 0) as bar:
        for rows in length_chunks(titles, int(titles.lengths.max(initial=0)))[rank::world]:
            packed = Packed.gather(titles.values, titles.offsets, rows).to(engine.device)
            with engine.autocast():
                states = encoder.encoder(packed, 0, layers)
            if out is None:
                out = torch.zeros(len(titles.values), hidden, dtype=states.dtype, device=engine.device)
            tokens, _ = gather_rows(np.arange(len(titles.values)), titles.offsets, rows)
            out[torch.from_numpy(tokens).to(engine.device)] = states
            bar.advance(min(len(rows) * world, len(titles) - bar.done))
    if out is None:  # fewer chunks than ranks
        with engine.autocast():
            dtype = encoder.encoder(
                Packed.gather(titles.values, titles.offsets, np.arange(1)).to(engine.device), 0, layers
            ).dtype
        out = torch.zeros(len(titles.values), hidden, dtype=dtype, device=engine.device)
    # Each row was computed by one rank and is zero elsewhere.
    return engine.all_reduce(out)
