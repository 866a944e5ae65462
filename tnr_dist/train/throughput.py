"""What the steps since the last logged one took and did: `perf/…`, `memory/…` and `ranks/…` of a record.

Everything is counted on the host, from shapes, so that no step waits for the device; the ranks' counts are summed with
the loss, on logging steps only.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from tnr_dist.data.batches.clicks import Batch
from tnr_dist.engines.base import Engine
from tnr_dist.models.flops import news_encoder_flops
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import NewsEncoder
from tnr_dist.train.peak_flops import Peak

# Columns of a batch that name a text in each of their slots, empty slots of a history included.
_SLOTS = ("history", "candidates", "body", "titles")
_COUNTS = ("news", "tokens", "flops", "slots")
_OF_A_RANK = ("data_wait_pct", "max_gib", "cpu_pct")
_RANKS_SHOWN = 64


@runtime_checkable
class CountsItself(Protocol):
    """A module that does not run its texts through a `NewsEncoder`."""

    def encoded(self, inputs: Any) -> tuple[np.ndarray, float]:
        """Lengths [U] of the texts that a forward pass on `inputs` encodes; operations of the step (`models.flops`)."""


class Throughput:
    """Counts from construction, or the last `restart`, on; `close` takes its hooks off the module.

    Args:
        engine: set up. Counted are the texts that its module's news encoders run on, or what a part of it that
            `CountsItself` says. The peak of memory is measured anew.
        peak: of this rank's device; None: without `perf/mfu`.
    """

    def __init__(self, engine: Engine, peak: Peak | None) -> None:
        self.device, self.peak = engine.device, peak
        self.rank, self.world = engine.environment.rank, engine.environment.world_size
        self._encoders = [module for module in engine.module.modules() if isinstance(module, NewsEncoder)]
        self._hooks = [one.register_forward_pre_hook(self._encodes, with_kwargs=True) for one in self._encoders]
        self._counts_itself = [one for one in engine.module.modules() if isinstance(one, CountsItself)]
        self._process = psutil.Process()
        forget_peak(self.device)
        self.restart()

    def restart(self) -> None:
        """Count anew."""
        self._start = time.monotonic()
        self._process.cpu_percent()  # counts from the call before
        self.waited = self.samples = 0.0
        self.steps = 0
        self._counts = dict.fromkeys(_COUNTS, 0.0)

    def close(self) -> None:
        """Count no more."""
        for hook in self._hooks:
            hook.remove()

    def _encodes(self, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert isinstance(encoder, NewsEncoder)
        batch: Packed = args[0]
        first = args[1] if len(args) > 1 else kwargs.get("first", 0)
        self._count(batch.lengths, news_encoder_flops(encoder, batch.lengths, first))

    def _count(self, lengths: np.ndarray, flops: float) -> None:
        self._counts["news"] += len(lengths)
        self._counts["tokens"] += float(lengths.sum())
        self._counts["flops"] += flops

    @contextlib.contextmanager
    def forward(self, inputs: Any) -> Iterator[None]:
        """Around the module's forward pass on `inputs`."""
        before = dict(self._counts)
        yield
        lengths = getattr(inputs, "real_lengths", None)
        if lengths is not None:
            # Inputs of a recorded step: its hooks ran while it was recorded, several times, and never since.
            self._counts = before
            encoder = self._encoders[0]
            self._count(lengths, news_encoder_flops(encoder, lengths, encoder.encoder.frozen_layers))
        for module in self._counts_itself:
            self._count(*module.encoded(inputs))

    def step(self, batch: Batch, waited: float) -> None:
        """A step on this rank's `batch`, for which it waited so many seconds."""
        self.steps += 1
        self.waited += waited
        self.samples += float(batch["count"])
        self._counts["slots"] += sum(batch[name].size for name in _SLOTS if name in batch)

    def shares(self) -> Tensor:
        """This rank's part of what `record` wants the sum over ranks of."""
        own = torch.zeros(self.world, len(_OF_A_RANK))
        waited = 100 * self.waited / self._seconds()
        own[self.rank] = torch.tensor([waited, peak_gib(self.device), self._process.cpu_percent()])
        counts = torch.tensor([self._counts[name] for name in _COUNTS])
        return torch.cat([counts, own.flatten()]).to(self.device)

    def record(self, summed: list[float]) -> dict[str, float]:
        """The figures of all ranks, from the sum of their `shares`.

        `perf/dedupe_ratio`: texts encoded over text slots of the batches, empty ones included. `perf/mfu`: operations of
        the news encoder a second (`models.flops`) over what the ranks' devices can do; user encoder, projections and
        losses are left out of it. Of waiting and memory the worst rank counts.
        """
        seconds = self._seconds()
        news, tokens, flops, slots = summed[: len(_COUNTS)]
        ranks = torch.tensor(summed[len(_COUNTS) :]).view(self.world, len(_OF_A_RANK))
        out = {
            "perf/samples_per_s": self.samples / seconds,
            "perf/news_per_s": news / seconds,
            "perf/tokens_per_s": tokens / seconds,
            "perf/ms_per_step": 1000 * seconds / max(self.steps, 1),
            "perf/data_wait_pct": float(ranks[:, 0].max()),
            "perf/dedupe_ratio": news / max(slots, 1.0),
            "memory/max_gib": float(ranks[:, 1].max()),
        }
        if self.peak is not None:
            out["perf/mfu"] = flops / seconds / (self.peak.flops * self.world)
        if 1 < self.world <= _RANKS_SHOWN:
            for rank in range(self.world):
                out.update({f"ranks/{name}_{rank}": float(ranks[rank, i]) for i, name in enumerate(_OF_A_RANK)})
        return out

    def _seconds(self) -> float:
        return max(time.monotonic() - self._start, 1e-9)


def status(record: dict[str, Any], world: int) -> str:
    """A logged record in a few words for the progress line, all ranks in one.

    Of waiting for data and of memory the worst rank stands there, by its number where there are several and they are
    recorded one by one.
    """

    def worst(total: str, each: str, text: str) -> str:
        ranks = {rank: record[key] for rank in range(world) if (key := f"ranks/{each}_{rank}") in record}
        return text.format(record[total]) + (f" (rank {max(ranks, key=ranks.__getitem__)})" if ranks else "")

    parts = [f"loss {record['train/loss']:.4f}", f"{record['perf/samples_per_s']:,.0f} samples/s"]
    parts += [f"{world} ranks"] * (world > 1)
    parts.append(worst("perf/data_wait_pct", "data_wait_pct", "waits {:.0f} %"))
    parts.append(worst("memory/max_gib", "max_gib", "{:.1f} GiB"))
    return ", ".join(parts)


def peak_gib(device: torch.device) -> float:
    """The most memory this rank has held since `forget_peak`: of its GPU, or of its process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii", errors="replace"))
    return int(found[1]) / 2**20 if found else 0.0


def forget_peak(device: torch.device) -> None:
    """Measure the peak of memory from here on: a process may train one model after another."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # some containers forbid it: then it is the process's peak
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
