"""PyTorch's DistributedDataParallel; with one rank, plain PyTorch."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from tnr_dist.engines.base import OptimizerFactory
from tnr_dist.engines.process_group import ProcessGroupEngine


class DDPEngine(ProcessGroupEngine):
    """See `Engine`."""

    def __init__(self, device: str = "auto", threads: int = 0) -> None:
        super().__init__(device, threads)
        self._wrapped: nn.Module | None = None

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

    def forward(self, *args: Any) -> Any:
        """See `Engine`."""
        assert self._wrapped is not None
        with self.autocast():
            return self._wrapped(*args)

    def micro_batch(self, last: bool) -> AbstractContextManager[Any]:
        """See `Engine`."""
        if last or not isinstance(self._wrapped, nn.parallel.DistributedDataParallel):
            return contextlib.nullcontext()
        return self._wrapped.no_sync()

    def backward(self, loss: Tensor) -> None:
        """See `Engine`."""
        (loss * self.environment.world_size).backward()  # DDP averages; the shares are to be summed

    def step(self) -> Tensor:
        """See `Engine`."""
        return self._update()

    def _let_go(self) -> None:
        self._wrapped = None
