"""News vectors of a whole table, and the scores of every candidate of a split, shared among ranks.

News are encoded in chunks that do not depend on the number of ranks, so that every rank count gives the same bits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tnr_dist.data.batches.clicks import last_clicked
from tnr_dist.data.shards import Block, ShardInfo, SplitIndex, read_shard
from tnr_dist.data.tokens import RaggedTable, check_ids, gather_rows
from tnr_dist.engines.base import Engine
from tnr_dist.evaluation.metrics import ImpressionMetrics, impression_metrics
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import AttentionUserEncoder, HistoryPadding, NewsEncoder, Recommender
from tnr_dist.util.progress import Bar

# Tokens encoded at a time, by device: on a GPU enough that kernels take longer than their launch does.
_CHUNK_TOKENS = {"cpu": 16_384, "cuda": 131_072}
_USER_ROWS = 4_096  # histories at a time: [4096, 50, 256] float32 is 200 MB

warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")  # what is used of it here is tested here


def length_chunks(table: RaggedTable, max_length: int, device: torch.device) -> list[np.ndarray]:
    """Rows of a table in chunks of similar length, longest first, as large as suits the device."""
    tokens = _CHUNK_TOKENS.get(device.type, _CHUNK_TOKENS["cpu"])
    lengths = np.minimum(table.lengths, max_length)
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    cuts = np.flatnonzero(np.diff(ends // tokens)) + 1
    return [part for part in np.split(order, cuts) if len(part)]


@torch.no_grad()
def encode_rows(encoder: NewsEncoder, table: RaggedTable, rows: np.ndarray, max_length: int, engine: Engine) -> Tensor:
    """Encode some rows of a table on this rank, [len(rows), D] float32; `encoder` is in evaluation mode."""
    packed = Packed.gather(table.values, table.offsets, rows, max_length).to(engine.device)
    with engine.autocast():
        return encoder(packed).float()  # type: ignore[no-any-return]


@torch.no_grad()
def encode_table(encoder: NewsEncoder, table: RaggedTable, max_length: int, engine: Engine, title: str = "") -> Tensor:
    """Encode all rows of a table, [U, D] float32 on the engine's device, the same on all ranks.

    Raises InputError for a token id that the encoder's word table has no row for.
    """
    check_ids(table, encoder.encoder.config.vocab_size, title or "a token table")
    rank, world = engine.environment.rank, engine.environment.world_size
    encoder.eval()
    mine = length_chunks(table, max_length, engine.device)[rank::world]
    dim = encoder.dense.out_features
    vectors = torch.zeros(len(table), dim, device=engine.device)
    with Bar(title, len(table), "news", enabled=bool(title) and rank == 0) as bar:
        for rows in mine:
            encoded = encode_rows(encoder, table, rows, max_length, engine)
            vectors[torch.from_numpy(rows).to(engine.device)] = encoded
            bar.advance(min(len(rows) * world, len(table) - bar.done))
    # Each row was computed by one rank and is zero elsewhere: adding zeros changes no bit.
    return engine.all_reduce(vectors)


@dataclass(frozen=True)
class BlockRows:
    """A block's news as rows of a table of vectors, laid out once for all models that score it.

    Attributes:
        clicked: [H, L] int64 rows of the last L clicked news, oldest first; known: [H, L] bool, False for an empty slot.
        clicks: [clicks] int64, `clicked` without its empty slots; starts: [H] int64, each history's first place in it.
        candidates: [C] rows of all candidates; offsets: [I + 1], those of each impression. int32 on a CPU, else int64.
        owners: [I] int64, the history of each impression.
        unknown: [C] bool, candidates that are in no news.tsv (unlabelled splits); None where there are none.
    """

    clicked: Tensor
    known: Tensor
    clicks: Tensor
    starts: Tensor
    candidates: Tensor
    offsets: Tensor
    owners: Tensor
    unknown: Tensor | None

    @classmethod
    def of(cls, block: Block, history: int, device: torch.device) -> BlockRows:
        """Of histories of `history` slots; the last so many clicks count."""
        last = last_clicked(block["history_news"], block["history_offsets"], history)
        filled = last >= 0
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(filled.sum(1))[:-1]])
        clicks, clicked = last[filled].astype(np.int64), np.maximum(last, 0).astype(np.int64)
        candidates, unknown = block["candidate_news"], block["candidate_news"] < 0
        kind = np.int32 if device.type == "cpu" else np.int64

        def put(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values).to(device)

        return cls(
            put(clicked),
            put(filled),
            put(clicks),
            put(starts[: len(last)]),
            put(np.maximum(candidates, 0).astype(kind)),
            put(block["candidate_offsets"].astype(kind)),
            put(block["impression_history"].astype(np.int64)),
            put(unknown) if unknown.any() else None,
        )


class UserVectors:
    """A model's user vectors from a table of news vectors.

    The paper's user encoder gives a clicked news the logit q^T tanh(W h + b), which does not depend on the user: it is
    computed once a news, and a user vector is then a softmax over looked-up numbers and one weighted sum, without
    padding. Other user encoders are run as they are.

    Args:
        model: in evaluation mode.
        news: [news, D] float32 vectors.
        padding: of empty history slots. `mask` leaves them out; `learned` puts the vector there that the user encoder
            has learned for them, as while it was trained.

    Raises:
        ValueError: `learned`, and the model has no such vector.
    """

    @torch.no_grad()
    def __init__(self, model: Recommender, news: Tensor, padding: HistoryPadding = "mask") -> None:
        self.model, self.news = model, news
        self.logits: Tensor | None = None
        self.padding: Tensor | None = None
        if isinstance(model.user_encoder, AttentionUserEncoder):
            parts = [model.user_encoder.pooling.logits(part) for part in news.split(_USER_ROWS)]
            self.logits = torch.cat(parts)
        if padding == "learned":
            encoder = model.user_encoder
            if not isinstance(encoder, AttentionUserEncoder) or encoder.padding is None:
                raise ValueError("this model's user encoder has learned no padding")
            self.padding = encoder.padding.float()
            self.padding_logit = encoder.pooling.logits(self.padding)

    @torch.no_grad()
    def of(self, rows: BlockRows) -> Tensor:
        """User vectors of a block's histories, [H, D] float32."""
        if self.logits is None:
            parts = zip(rows.clicked.split(_USER_ROWS), rows.known.split(_USER_ROWS), strict=True)
            return torch.cat([self.model.encode_users(self.news[c], k).float() for c, k in parts])
        known = rows.known
        logits = self.logits[rows.clicked].masked_fill(~known, -torch.inf)
        if self.padding is not None:
            # The n empty slots hold one vector, so they are one slot of n times its weight.
            empty = (~known).sum(1, keepdim=True)
            logits = torch.cat([logits, self.padding_logit + empty.log()], 1)
        weights = logits.softmax(1)
        # A history without clicks has no finite logit (its weights are NaN) and no rows either: it sums to zeros.
        share = weights[:, : known.shape[1]][known]
        vectors = F.embedding_bag(rows.clicks, self.news, rows.starts, mode="sum", per_sample_weights=share)
        return vectors if self.padding is None else vectors + weights[:, -1:] * self.padding


@torch.no_grad()
def block_scores(users: Tensor, news: Tensor, rows: BlockRows) -> Tensor:
    """Scores u^T h of all candidates of a block, flat float32. `users` [H, D], `news` [news, D].

    A candidate that is in no news.tsv (index -1, unlabelled splits) scores below everything else.
    """
    users = users[rows.owners]
    if users.is_cuda:
        counts = rows.offsets.diff()
        users = users.repeat_interleave(counts, 0, output_size=len(rows.candidates))
        scores = (users * news[rows.candidates]).sum(1)
    else:
        # The product of all impressions with all news, at their candidates only: no vector is copied.
        pairs = torch.sparse_csr_tensor(
            rows.offsets,
            rows.candidates,
            torch.zeros(len(rows.candidates)),
            (len(users), len(news)),
            check_invariants=False,  # a row's columns are in no order
        )
        scores = torch.sparse.sampled_addmm(pairs, users, news.T, beta=0.0).values()
    return scores if rows.unknown is None else scores.masked_fill(rows.unknown, torch.finfo(scores.dtype).min)


@dataclass
class ScoredSplit:
    """A split's scores, impressions in the order of the raw file."""

    row: np.ndarray  # [I]
    impression_id: np.ndarray  # [I]
    offsets: np.ndarray  # [I + 1]
    scores: np.ndarray  # flat float32


def _shards_of(
    folder: Path, index: SplitIndex, engine: Engine, title: str
) -> Iterator[tuple[ShardInfo, dict[str, Block]]]:
    rank, world = engine.environment.rank, engine.environment.world_size
    with Bar(title, index.impressions, "impressions", enabled=rank == 0) as bar:
        for info in index.shards[rank::world]:
            yield info, read_shard(folder / index.split / info.name, info)
            bar.advance(min(info.impressions * world, index.impressions - bar.done))


Scorer = Callable[[Block], np.ndarray]


def recommender_scorer(model: Recommender, news: Tensor, history: int) -> Scorer:
    """The model's scores of a block. User vectors and dot products are float32 whatever the training precision."""
    users = UserVectors(model.eval(), news)

    def scores(block: Block) -> np.ndarray:
        rows = BlockRows.of(block, history, news.device)
        return block_scores(users.of(rows), news, rows).cpu().numpy()

    return scores


def evaluate_split(
    folder: Path, index: SplitIndex, scorer: Scorer, engine: Engine, title: str
) -> tuple[np.ndarray, ImpressionMetrics]:
    """Metrics of every impression of a labelled split, in the raw file's order, on all ranks: (row [I], metrics)."""
    rows, parts = [np.zeros(0, np.int64)], []
    for _, blocks in _shards_of(folder, index, engine, title):
        for block in blocks.values():
            rows.append(block["row"])
            parts.append(impression_metrics(scorer(block), block["candidate_clicked"], block["candidate_offsets"]))
    names = ("auc", "mrr", "ndcg5", "ndcg10", "valid", "tied")
    columns = {name: [np.zeros(0)] + [getattr(part, name).astype(np.float64) for part in parts] for name in names}
    row = np.concatenate(engine.gather(np.concatenate(rows)))
    order = np.argsort(row, kind="stable")
    gathered = {name: np.concatenate(engine.gather(np.concatenate(columns[name])))[order] for name in names}
    valid, tied = (gathered.pop(name).astype(bool) for name in ("valid", "tied"))
    return row[order], ImpressionMetrics(**gathered, valid=valid, tied=tied)


def score_split(folder: Path, index: SplitIndex, scorer: Scorer, engine: Engine, title: str) -> ScoredSplit:
    """Scores of every candidate of a split, in the raw file's order, on all ranks."""
    rows, ids, counts, scores = (
        [np.zeros(0, np.int64)],
        [np.zeros(0, np.int64)],
        [np.zeros(0, np.int64)],
        [np.zeros(0, np.float32)],
    )
    for _, blocks in _shards_of(folder, index, engine, title):
        for block in blocks.values():
            rows.append(block["row"])
            ids.append(block["impression_id"])
            counts.append(np.diff(block["candidate_offsets"]).astype(np.int64))
            scores.append(scorer(block).astype(np.float32))
    row, identifier, count, flat = (
        np.concatenate(engine.gather(np.concatenate(values))) for values in (rows, ids, counts, scores)
    )
    offsets = np.concatenate([[0], np.cumsum(count)])
    order = np.argsort(row, kind="stable")
    flat, offsets = gather_rows(flat, offsets, order)
    return ScoredSplit(row[order], identifier[order], offsets, flat)
