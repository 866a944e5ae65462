"""PyTorch's DistributedDataParallel; with one rank, plain PyTorch."""

from __future__ import annotations

import contextlib
import functools

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from typing_extensions import override

from tnr_dist.engines.base import OptimizerFactory
from tnr_dist.engines.core import autocast
from tnr_dist.engines.graphs import StepGraphs
from tnr_dist.engines.process_group import ProcessGroupEngine


class DDPEngine(ProcessGroupEngine):
    """Data parallelism by torch's DistributedDataParallel. A step is `EngineCore`'s; here is what it runs."""

    @override
    def _take(self, optimizer: OptimizerFactory, batch_size: int, accumulate: int) -> None:
        on_gpu = self.device.type == "cuda"
        if self.environment.world_size == 1:
            self._runs = self.module
            if on_gpu:
                self._graphs = StepGraphs(self.module, functools.partial(autocast, self._precision, self.device))
            return
        # Tables that no checkpoint holds are each rank's own: DDP would send them before every step.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.module, constants(self.module))
        # Frozen parameters are no part of the reduction; unused ones would be a fault, so they are not searched for.
        wrapped = DistributedDataParallel(self.module, device_ids=[self.device] if on_gpu else None)
        if not on_gpu:
            # After its first step DDP packs gradients anew, in the order in which they came, and with 3 ranks or
            # more a sum's last bit depends on its place in the pack. Packed for good now, a resumed run's first
            # step adds as an unbroken run's does.
            wrapped.reducer._push_all_rebuilt_params()
        self._runs, self._unsent, self._averages_over = wrapped, wrapped.no_sync, self.environment.world_size

    @override
    def _release(self) -> None:
        self._runs = self._graphs = None
        self._unsent = contextlib.nullcontext


def constants(module: nn.Module) -> list[str]:
    """Names of the non-persistent buffers, which every rank has filled by itself and no step changes."""
    saved = module.state_dict(keep_vars=True)
    return [name for name, _ in module.named_buffers() if name not in saved]
