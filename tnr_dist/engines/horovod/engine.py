"""Horovod 0.28.1: gradients and every other message by its named collectives (gloo on CPUs; NCCL and MPI where built).

Each message has a name: unnamed ones are numbered by each rank for itself, and ranks that have counted differently wait
for each other for ever. No optimiser state is broadcast: on a fresh optimiser Horovod would make a step to have some.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from typing_extensions import override

from tnr_dist.config.schema import HorovodConfig
from tnr_dist.engines.base import OptimizerFactory, Terms
from tnr_dist.engines.core import EngineCore
from tnr_dist.engines.horovod.gradients import GradientSum
from tnr_dist.engines.horovod.start import Meeting, load_horovod
from tnr_dist.util.errors import InputError


class HorovodEngine(EngineCore):
    """Data parallelism by Horovod."""

    def __init__(
        self,
        device: str = "auto",
        threads: int = 0,
        settings: HorovodConfig | None = None,
        terms: Terms | None = None,
    ) -> None:
        self.settings = settings or HorovodConfig()
        self._hvd = hvd = load_horovod()
        super().__init__(device, threads, terms)
        if self.device.type == "cuda" and not hvd.nccl_built():
            raise InputError(
                "engine=horovod: this Horovod was built without NCCL; build it with HOROVOD_NCCL=1 launch/install_horovod.sh, "
                "or set device=cpu"
            )
        self._meeting = Meeting(self.environment, hvd, self._terms)
        self._gradients: GradientSum | None = None

    @override
    def _take(self, optimizer: OptimizerFactory, batch_size: int, accumulate: int) -> None:
        self._runs = self.module
        if self.environment.world_size > 1:
            named = list(self.module.named_parameters())
            self._hvd.broadcast_parameters([(f"parameters.{name}", p.data) for name, p in named], root_rank=0)
            trained = [p for _, p in named if p.requires_grad]
            self._gradients = GradientSum(self._hvd, trained, self.settings.compression)

    @override
    def micro_batch(self, last: bool) -> AbstractContextManager[object]:
        return self._micro_batch(last)

    @contextlib.contextmanager
    def _micro_batch(self, last: bool) -> Generator[None]:
        if self._gradients is not None:
            self._gradients.sending = last
        try:
            yield
        finally:
            if self._gradients is not None:
                self._gradients.sending = True

    @override
    def step(self) -> Tensor:
        if self._gradients is not None:
            self._gradients.wait()
        return self._update()

    @override
    def all_reduce(self, value: Tensor) -> Tensor:
        """Horovod knows no bf16: such values travel, and are added, as float32."""
        if self.environment.world_size == 1:
            return value
        sent = value.float() if value.dtype == torch.bfloat16 else value
        summed = self._hvd.allreduce(sent.reshape(-1), op=self._hvd.Sum, name="sum").view_as(value)
        return value.copy_(summed)

    @override
    def barrier(self) -> None:
        if self.environment.world_size > 1:
            # Its own barrier takes no name.
            self._hvd.allreduce(torch.zeros(1), op=self._hvd.Sum, name="barrier")

    @override
    def _release(self) -> None:
        self._runs = None
        if self._gradients is not None:
            self._gradients.remove()
            self._gradients = None

    @override
    def close(self) -> None:
        self._answer = None
        self._release()
        self._meeting.leave()

    @override
    def _all_gather(self, rows: Tensor, sizes: list[int]) -> Tensor:
        gathered: Tensor = self._hvd.allgather(rows, name="rows")
        return gathered

    @override
    def _ask(self, flag: bool) -> Callable[[], bool]:
        handle = self._hvd.allreduce_async(torch.tensor([int(flag)]), op=self._hvd.Sum, name="any_rank")
        return lambda: bool(self._hvd.synchronize(handle).item())
