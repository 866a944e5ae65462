"""News vectors a second: ours packed, and transformers' padded, sorted and compiled forms of the same weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from tnr_dist.bench.titles import PADDED, padded, transformers_bert
from tnr_dist.data.tokens import RaggedTable
from tnr_dist.evaluation.scoring import length_chunks
from tnr_dist.models.packed import Packed
from tnr_dist.models.transformer import Encoder
from tnr_dist.train.peak_flops import measured_peak


def device() -> torch.device:
    """The GPU, where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(enabled: bool) -> torch.autocast:
    """bf16 autocast on the benchmark's device."""
    return torch.autocast(device().type, torch.bfloat16, enabled=enabled)


def packed_pass(encoder: Encoder, table: RaggedTable, bf16: bool = True) -> Callable[[], None]:
    """Our encoder over all texts: length-sorted chunks, no padding."""
    encoder = encoder.to(device()).eval()
    chunks = length_chunks(table, int(table.lengths.max()), device())
    batches = [Packed.gather(table.values, table.offsets, rows).to(device()) for rows in chunks]

    @torch.inference_mode()
    def run() -> None:
        with autocast(bf16):
            for batch in batches:
                encoder(batch)

    return run


def transformers_pass(
    encoder: Encoder, table: RaggedTable, *, bf16: bool, sort: bool, compiled: bool = False, pad: int = PADDED
) -> Callable[[], None]:
    """transformers' BertModel (SDPA) over all texts, padded to `pad` or, sorted by length, to the batch's longest.

    Batches are of 64 titles on a CPU and of 4,096 on a GPU, or of as many longer texts as have their tokens. `compiled`: with dynamic shapes where the lengths vary.
    """
    model = transformers_bert(encoder).to(device()).eval()
    run_model = torch.compile(model, dynamic=sort) if compiled else model
    rows = np.argsort(table.lengths, kind="stable") if sort else np.arange(len(table))
    batches, size = [], max((4096 if device().type == "cuda" else 64) * PADDED // pad, 1)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        length = int(table.lengths[part].max()) if sort else pad
        ids, mask = padded(table, part, length)
        batches.append((ids.to(device()), mask.to(device()).long()))

    @torch.inference_mode()
    def run() -> None:
        with autocast(bf16):
            for ids, mask in batches:
                run_model(input_ids=ids, attention_mask=mask)

    return run


def matmul_tflops() -> float:
    """Measured ceiling: a large bf16 matrix product on this device, TFLOP/s."""
    size = 8192 if device().type == "cuda" else 2048
    return measured_peak(device(), torch.bfloat16, size, torch.get_num_threads(), repeats=5) / 1e12
