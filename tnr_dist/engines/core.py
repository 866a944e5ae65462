"""What every engine has, whatever sends its messages: a device, a precision, and collectives made of two simple ones."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from tnr_dist.engines.allocator import keep_freed_memory, release_freed_memory
from tnr_dist.engines.base import Engine, OptimizerFactory, OptimizerState, Terms
from tnr_dist.engines.collectives import GatherRows
from tnr_dist.engines.devices import choose_device
from tnr_dist.engines.graphs import Recordable, StepGraphs
from tnr_dist.engines.precision import choose_precision
from tnr_dist.launch.environment import Environment, detect
from tnr_dist.util.hardware import cores_of_rank

TIMEOUT_SECONDS = 600.0  # of every wait for another rank


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which `fp32` or `bf16` is computed on a device."""
    return contextlib.nullcontext() if precision == "fp32" else torch.autocast(device.type, torch.bfloat16)


class EngineCore(Engine):
    """The common part of engines. Parameters stay float32; bf16 is autocast, so master weights are float32 in every engine.

    An engine's `_take` sets what a step here uses: `_runs`, `_averages_over`, and where it has them `_graphs` and `_unsent`.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(self, device: str, threads: int, terms: Terms | None = None) -> None:
        self.environment = detect()
        self.device = choose_device(device, self.environment)
        terms = terms or Terms()
        # Ranks of which some chose the CPU would wait for the others in another library.
        self._terms = dataclasses.replace(terms, settings={**terms.settings, "device": self.device.type})
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        else:
            keep_freed_memory()
            torch.set_num_threads(threads or cores_of_rank(self.environment.local_world_size))
        if on_one_machine(self.environment):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
        self._precision = "fp32"
        self._clip = 0.0
        self._answer: Callable[[], bool] | None = None  # to the last question of `any_rank`
        self._runs: nn.Module | None = None  # the module, or the engine's wrapper around it
        self._averages_over = 1  # ranks whose gradients the engine averages; 1 where it sums them
        self._graphs: StepGraphs | None = None  # recorded steps, of one rank on a GPU
        self._unsent: Callable[[], AbstractContextManager[object]] = (
            contextlib.nullcontext
        )  # keeps gradients on this rank

    @override
    def setup(
        self,
        module: nn.Module,
        optimizer: OptimizerFactory,
        *,
        precision: str,
        clip_norm: float,
        batch_size: int = 0,
        accumulate: int = 1,
    ) -> None:
        self.forget()
        self.module = module.to(self.device)
        self.use_precision(precision)
        self._clip = clip_norm
        self.optimizer = optimizer(self.module)
        self._take(optimizer, batch_size, accumulate)

    @override
    def finish(self) -> None:
        self._release()
        self.optimizer.state.clear()

    def _take(self, optimizer: OptimizerFactory, batch_size: int, accumulate: int) -> None:
        """Make the module ready to be trained by this engine."""
        raise NotImplementedError

    def _release(self) -> None:
        """Undo `_take`, if there was one; waits for no other rank."""
        raise NotImplementedError

    @override
    def forget(self) -> None:
        self._release()
        for name in ("module", "optimizer"):
            vars(self).pop(name, None)
        gc.collect()  # wrappers of modules refer to themselves
        if self.device.type == "cpu":
            release_freed_memory()

    @override
    def forward(self, *args: object) -> Any:
        if self._graphs is not None and len(args) == 1 and isinstance(args[0], Recordable):
            parts = self._graphs.run(args[0])
            if parts is not None:
                return parts
        assert self._runs is not None
        with self.autocast():
            return self._runs(*args)

    @override
    def micro_batch(self, last: bool) -> AbstractContextManager[object]:
        return contextlib.nullcontext() if last else self._unsent()

    @override
    def backward(self, loss: Tensor) -> None:
        if loss.requires_grad:  # a recorded step has added its gradients
            (loss * self._averages_over).backward()  # the shares of the ranks are to be summed

    @override
    def step(self) -> Tensor:
        return self._update()

    @override
    def use_precision(self, precision: str) -> None:
        self._precision = choose_precision(precision, self.device)

    @override
    def autocast(self) -> AbstractContextManager[object]:
        return autocast(self._precision, self.device)

    @override
    def whole(self) -> AbstractContextManager[object]:
        return contextlib.nullcontext()

    @override
    def state_dict(self) -> OptimizerState:
        return self.optimizer.state_dict()

    @override
    def load_state_dict(self, state: OptimizerState) -> None:
        self.optimizer.load_state_dict(state)

    @override
    def any_rank(self, flag: bool) -> bool:
        if self.environment.world_size == 1:
            return flag
        # Asked beside the device, so that it is not waited for, and read a step later, so that no rank is either.
        answer = self._answer() if self._answer is not None else False
        self._answer = self._ask(flag)
        return answer

    @override
    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        if self.environment.world_size == 1:
            return [values]
        # Bytes: arrays rather than objects, because those would travel as pickles. From host to host: a step with shared
        # titles begins with this, and through the device it would wait for the step before.
        data = torch.from_numpy(np.ascontiguousarray(values).view(np.uint8).reshape(-1).copy())
        ones = [1] * self.environment.world_size
        sizes = self._all_gather(torch.tensor([len(data)]), ones).tolist()
        everything = self._all_gather(data, sizes).numpy()
        ends = np.cumsum(sizes)
        return [
            everything[end - size : end].copy().view(values.dtype).reshape(-1, *values.shape[1:])
            for end, size in zip(ends, sizes, strict=True)
        ]

    @override
    def all_gather_rows(self, rows: Tensor, sizes: list[int]) -> Tensor:
        if self.environment.world_size == 1:
            return rows
        gathered: Tensor = GatherRows.apply(rows, sizes, self._all_gather, self._reduce_scatter)  # type: ignore[no-untyped-call]
        return gathered

    @override
    def all_reduce(self, value: Tensor) -> Tensor:
        raise NotImplementedError

    def _all_gather(self, rows: Tensor, sizes: list[int]) -> Tensor:
        """Every rank's rows [sizes[rank], …], in rank order; on the host if they are there, whatever the device."""
        raise NotImplementedError

    def _reduce_scatter(self, rows: Tensor, sizes: list[int]) -> Tensor:
        """This rank's rows [sizes[rank], …] of the sum over ranks of `rows` [sum of sizes, …]."""
        # A copy, because the sum is made in place: a gradient may be somebody else's too.
        own: Tensor = self.all_reduce(rows.clone()).split(sizes)[self.environment.rank]
        return own

    def _ask(self, flag: bool) -> Callable[[], bool]:
        """Start asking whether any rank's flag is set; the answer is waited for later."""
        raise NotImplementedError

    def _update(self) -> Tensor:
        """Clip the summed gradients, update, zero; returns their norm before clipping."""
        norm = self._clip_gradients()
        self.optimizer.step()
        # Recorded steps add to the gradients' own memory.
        self.optimizer.zero_grad(set_to_none=self._graphs is None or not self._graphs.used)
        return norm

    def _clip_gradients(self) -> Tensor:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        return torch.nn.utils.clip_grad_norm_(parameters, self._clip or float("inf"))


def on_one_machine(env: Environment) -> bool:
    """Whether all ranks are here, so that nothing need listen beyond loopback."""
    return env.world_size == env.local_world_size
