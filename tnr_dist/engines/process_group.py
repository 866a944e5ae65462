"""torch.distributed's process group (gloo on CPUs, NCCL on GPUs), for the engines that talk through it."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from typing_extensions import override

from tnr_dist.engines import core
from tnr_dist.engines.base import Terms
from tnr_dist.engines.core import EngineCore
from tnr_dist.engines.meeting import meet, meeting_error, timeout
from tnr_dist.engines.waiting import TooLate, Wait, interruptible


class ProcessGroupEngine(EngineCore):
    """Collectives over the default process group; `alone`: have one even where there is one rank."""

    def __init__(self, device: str, threads: int, terms: Terms | None = None, *, alone: bool = False) -> None:
        super().__init__(device, threads, terms)
        self._host: dist.ProcessGroup | None = None  # for messages that never touch the device
        if (self.environment.world_size > 1 or alone) and not dist.is_initialized():
            self._begin()

    def _begin(self) -> None:
        """Meet, then connect: each ends within `timeout`."""
        env = self.environment
        try:
            wait = Wait(core.TIMEOUT_SECONDS, self._terms.stop_requested)
            store = interruptible(functools.partial(meet, env, self._terms, wait), wait)
            wait = Wait(core.TIMEOUT_SECONDS, self._terms.stop_requested)
            interruptible(functools.partial(self._connect, store), wait)
        except TooLate:
            raise meeting_error(env, TimeoutError(f"no answer for {core.TIMEOUT_SECONDS:g} s")) from None
        except (RuntimeError, ValueError) as error:
            raise meeting_error(env, error) from None

    def _connect(self, store: dist.Store) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # a thread has its own
        dist.init_process_group(
            "nccl" if self.device.type == "cuda" else "gloo",
            store=store,
            rank=self.environment.rank,
            world_size=self.environment.world_size,
            timeout=timeout(),
        )

    @override
    def all_reduce(self, value: Tensor) -> Tensor:
        if self.environment.world_size > 1:
            dist.all_reduce(value)
        return value

    @override
    def barrier(self) -> None:
        if self.environment.world_size > 1:
            dist.barrier()

    @override
    def close(self) -> None:
        self._answer = self._host = None
        self._release()
        # DDP's reducer holds the group. As its last holder, it would wait for the group's threads without giving up
        # Python's lock, which a thread that drops a tensor may be waiting for. It goes first; it is part of a cycle.
        gc.collect()
        if dist.is_initialized():
            dist.destroy_process_group()

    @override
    def _all_gather(self, rows: Tensor, sizes: list[int]) -> Tensor:
        longest = max(sizes)  # gloo gathers equal parts only
        padded = _padded(rows, longest)
        parts = [torch.empty_like(padded) for _ in sizes]
        on_host = rows.device.type == "cpu" and self.device.type != "cpu"  # NCCL sends from the device only
        dist.all_gather(parts, padded, group=self._host_group() if on_host else None)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @override
    def _reduce_scatter(self, rows: Tensor, sizes: list[int]) -> Tensor:
        parts = [_padded(part, max(sizes)) for part in rows.split(sizes)]
        own = torch.empty_like(parts[0])
        dist.reduce_scatter(own, parts)
        return own[: sizes[self.environment.rank]]

    def _host_group(self) -> dist.ProcessGroup | None:
        if self._host is None:
            self._host = dist.new_group(backend="gloo", timeout=timeout())
        return self._host

    @override
    def _ask(self, flag: bool) -> Callable[[], bool]:
        vote = torch.tensor([int(flag)])
        work = dist.all_reduce(vote, group=self._host_group(), async_op=True)

        def answer() -> bool:
            work.wait()
            return bool(vote.item())

        return answer


def _padded(rows: Tensor, longest: int) -> Tensor:
    """Rows [n, …] and zeros up to [longest, …]."""
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    return padded
