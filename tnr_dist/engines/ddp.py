"""PyTorch's DistributedDataParallel (gloo on CPUs, NCCL on GPUs); with one rank, plain PyTorch."""

from __future__ import annotations

import contextlib
import datetime
import os
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from tnr_dist.engines.allocator import keep_freed_memory
from tnr_dist.engines.base import OptimizerFactory, choose_precision
from tnr_dist.engines.collectives import GatherRows
from tnr_dist.engines.environment import detect
from tnr_dist.errors import InputError

_TIMEOUT = datetime.timedelta(minutes=10)


class DDPEngine:
    """See `Engine`. Parameters stay float32; bf16 is autocast, so master weights are float32."""

    module: nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(self, device: str = "auto", threads: int = 0) -> None:
        self.environment = env = detect()
        use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        if use_cuda:
            if env.local_rank >= torch.cuda.device_count():
                raise InputError(
                    f"rank {env.rank}: local rank {env.local_rank} has no GPU ({torch.cuda.device_count()} visible); "
                    "start one rank a GPU, or set device=cpu"
                )
            self.device = torch.device("cuda", env.local_rank)
            torch.cuda.set_device(self.device)
        else:
            self.device = torch.device("cpu")
            keep_freed_memory()
            torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // env.local_world_size))
        self._clip = 0.0
        self._precision = "fp32"
        self._wrapped: nn.Module | None = None
        self._votes: dist.ProcessGroup | None = None  # for `any_rank`, with its last question and who asks
        self._vote: Tensor | None = None
        self._work: dist.Work | None = None
        if env.world_size > 1 and not dist.is_initialized():
            if env.world_size == env.local_world_size:
                os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
                os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
            # env://, not an address: under torchrun the agent already serves the store on that port.
            os.environ.update(MASTER_ADDR=env.master_addr, MASTER_PORT=str(env.master_port))
            try:
                dist.init_process_group(
                    "nccl" if use_cuda else "gloo",
                    init_method="env://",
                    rank=env.rank,
                    world_size=env.world_size,
                    timeout=_TIMEOUT,
                )
            except (RuntimeError, ValueError) as error:
                line = str(error).strip().splitlines()[0]
                raise InputError(
                    f"rank {env.rank} of {env.world_size}: the ranks did not meet at {env.master_addr}:{env.master_port} ({line})"
                ) from None

    def setup(self, module: nn.Module, optimizer: OptimizerFactory, *, precision: str, clip_norm: float) -> None:
        """See `Engine`."""
        self.module = module.to(self.device)
        self.use_precision(precision)
        self._clip = clip_norm
        if self.environment.world_size > 1:
            # Frozen parameters are no part of the reduction; unused ones would be a fault, so they are not searched for.
            # The modules have no buffers, so nothing but gradients is ever sent.
            self._wrapped = nn.parallel.DistributedDataParallel(
                self.module, device_ids=[self.device] if self.device.type == "cuda" else None
            )
        else:
            self._wrapped = self.module
        self.optimizer = optimizer(self.module)

    def use_precision(self, precision: str) -> None:
        """See `Engine`."""
        self._precision = choose_precision(precision, self.device)

    def forward(self, *args: Any) -> Any:
        """See `Engine`."""
        assert self._wrapped is not None
        with self.autocast():
            return self._wrapped(*args)

    def autocast(self) -> AbstractContextManager[Any]:
        """See `Engine`."""
        if self._precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

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
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self._clip or float("inf"))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def all_reduce(self, value: Tensor) -> Tensor:
        """See `Engine`."""
        if self.environment.world_size > 1:
            dist.all_reduce(value)
        return value

    def any_rank(self, flag: bool) -> bool:
        """See `Engine`."""
        if self.environment.world_size == 1:
            return flag
        # Over gloo, so that no device is waited for, and read a step later, so that no rank is either.
        if self._votes is None:
            self._votes = dist.new_group(backend="gloo", timeout=_TIMEOUT)
        before, self._vote = self._vote, torch.tensor([int(flag)])
        work, self._work = self._work, dist.all_reduce(self._vote, group=self._votes, async_op=True)
        if work is None or before is None:
            return False
        work.wait()
        return bool(before.item())

    def gather(self, values: np.ndarray) -> list[np.ndarray]:
        """See `Engine`."""
        if self.environment.world_size == 1:
            return [values]
        # Bytes padded to the longest; arrays rather than objects, because those would travel as pickles.
        data = torch.from_numpy(np.ascontiguousarray(values).view(np.uint8).reshape(-1).copy()).to(self.device)
        sizes = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.environment.world_size)]
        dist.all_gather(sizes, torch.tensor([len(data)], device=self.device))
        longest = max(int(size) for size in sizes)
        padded = torch.zeros(longest, dtype=torch.uint8, device=self.device)
        padded[: len(data)] = data
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return [
            part[: int(size)].cpu().numpy().view(values.dtype).reshape(-1, *values.shape[1:])
            for part, size in zip(parts, sizes, strict=True)
        ]

    def all_gather_rows(self, rows: Tensor, sizes: list[int]) -> Tensor:
        """See `Engine`."""
        if self.environment.world_size == 1:
            return rows
        return GatherRows.apply(rows, sizes, self.environment.rank)

    def barrier(self) -> None:
        """See `Engine`."""
        if self.environment.world_size > 1:
            dist.barrier()

    def state_dict(self) -> dict[str, Any]:
        """See `Engine`."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Engine`."""
        self.optimizer.load_state_dict(state)

    def close(self) -> None:
        """See `Engine`."""
        if self.environment.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()
