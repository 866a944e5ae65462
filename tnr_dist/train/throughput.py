"""What the steps since the last logged one took and did: `perf/…`, `memory/…` and `ranks/…` of a record.

Everything is counted on the host, from shapes, so that no step waits for the device; the ranks' counts are summed with
the loss, on logging steps only.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch
from torch import Tensor

from tnr_dist.engines.base import Engine
from tnr_dist.train.peak_flops import Peak

_COUNTS = ("news", "tokens", "flops", "slots")
_OF_A_RANK = ("data_wait_pct", "max_gib", "cpu_pct")
_RANKS_SHOWN = 64


class Texts(NamedTuple):
    """Texts that a forward pass encodes.

    `lengths`: [U] tokens of each, on the host. `flops`: counts the operations of the step on them (`models.flops`).
    """

    lengths: np.ndarray
    flops: Callable[[], float]


class Throughput:
    """Counts from construction, or the last `restart`, on. The peak of memory is measured anew.

    Args:
        engine: of this rank.
        peak: of this rank's device; None: without `perf/mfu`.
    """

    def __init__(self, engine: Engine, peak: Peak | None) -> None:
        self.device, self.peak = engine.device, peak
        self.rank, self.world = engine.environment.rank, engine.environment.world_size
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

    def step(self, samples: float, slots: int, texts: Iterable[Texts], waited: float) -> None:
        """Count a step.

        Args:
            samples: of the global batch.
            slots: of this rank's batch that name a text.
            texts: that this rank has encoded.
            waited: seconds that it waited for the batch.
        """
        self.steps += 1
        self.waited += waited
        self.samples += samples
        self._counts["slots"] += slots
        for lengths, flops in texts:
            self._counts["news"] += len(lengths)
            self._counts["tokens"] += float(lengths.sum())
            self._counts["flops"] += flops()

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


def status(record: Mapping[str, float], world: int) -> str:
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
