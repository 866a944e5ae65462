"""PyTorch's DistributedDataParallel; with one rank, plain PyTorch."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from tnr_dist.engines.base import OptimizerFactory, Terms
from tnr_dist.engines.graphs import Recordable, StepGraphs
from tnr_dist.engines.process_group import ProcessGroupEngine


class DDPEngine(ProcessGroupEngine):
    """Data parallelism by torch's DistributedDataParallel."""

    def __init__(self, device: str = "auto", threads: int = 0, terms: Terms | None = None) -> None:
        super().__init__(device, threads, terms)
        self._wrapped: nn.Module | None = None
        self._graphs: StepGraphs | None = None  # of one rank on a GPU

    def _take(self, optimizer: OptimizerFactory, batch_size: int, accumulate: int) -> None:
        if self.environment.world_size > 1:
            # Frozen parameters are no part of the reduction; unused ones would be a fault, so they are not searched for.
            # The modules have no buffers, so nothing but gradients is ever sent.
            self._wrapped = nn.parallel.DistributedDataParallel(
                self.module, device_ids=[self.device] if self.device.type == "cuda" else None
            )
            if self.device.type == "cpu":
                # After its first step DDP packs gradients anew, in the order in which they came, and with 3 ranks or
                # more a sum's last bit depends on its place in the pack. Packed for good now, a resumed run's first
                # step adds as an unbroken run's does.
                self._wrapped.reducer._push_all_rebuilt_params()
        else:
            self._wrapped = self.module
            self._graphs = StepGraphs(self.module, self.autocast) if self.device.type == "cuda" else None

    @override
    def forward(self, *args: Any) -> Any:
        assert self._wrapped is not None
        if self._graphs is not None and len(args) == 1 and isinstance(args[0], Recordable):
            parts = self._graphs.run(args[0])
            if parts is not None:
                return parts
        with self.autocast():
            return self._wrapped(*args)

    @override
    def micro_batch(self, last: bool) -> AbstractContextManager[Any]:
        if last or not isinstance(self._wrapped, nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        return self._wrapped.no_sync()

    @override
    def backward(self, loss: Tensor) -> None:
        if not loss.requires_grad:
            return  # a recorded step has added its gradients
        (loss * self.environment.world_size).backward()  # DDP averages; the shares are to be summed

    @override
    def step(self) -> Tensor:
        return self._update(keep_gradients=self._graphs is not None and self._graphs.used)

    def _let_go(self) -> None:
        self._wrapped = self._graphs = None
