"""torch.distributed's process group (gloo on CPUs, NCCL on GPUs), for the engines that talk through it."""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
import socket
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from tnr_dist.engines import core
from tnr_dist.engines.core import EngineCore, on_one_machine
from tnr_dist.engines.environment import Environment
from tnr_dist.errors import RankLost

LOOPBACK = "127.0.0.1"


class ProcessGroupEngine(EngineCore):
    """Collectives over the default process group; `alone`: have one even where there is one rank."""

    def __init__(self, device: str, threads: int, *, alone: bool = False) -> None:
        super().__init__(device, threads)
        self._host: dist.ProcessGroup | None = None  # for messages that never touch the device
        env = self.environment
        if (env.world_size > 1 or alone) and not dist.is_initialized():
            store = meet(env)
            try:
                dist.init_process_group(
                    "nccl" if self.device.type == "cuda" else "gloo",
                    store=store,
                    rank=env.rank,
                    world_size=env.world_size,
                    timeout=timeout(),
                )
            except (RuntimeError, ValueError) as error:
                raise did_not_meet(env, error) from None

    def all_reduce(self, value: Tensor) -> Tensor:
        """See `Engine`."""
        if self.environment.world_size > 1:
            dist.all_reduce(value)
        return value

    def barrier(self) -> None:
        """See `Engine`."""
        if self.environment.world_size > 1:
            dist.barrier()

    def close(self) -> None:
        """See `Engine`."""
        self._answer = self._host = None
        if dist.is_initialized():
            dist.destroy_process_group()

    def _all_gather(self, rows: Tensor, sizes: list[int]) -> Tensor:
        longest = max(sizes)  # gloo gathers equal parts only
        padded = _padded(rows, longest)
        parts = [torch.empty_like(padded) for _ in sizes]
        on_host = rows.device.type == "cpu" and self.device.type != "cpu"  # NCCL sends from the device only
        dist.all_gather(parts, padded, group=self._host_group() if on_host else None)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def _reduce_scatter(self, rows: Tensor, sizes: list[int]) -> Tensor:
        parts = [_padded(part, max(sizes)) for part in rows.split(sizes)]
        own = torch.empty_like(parts[0])
        dist.reduce_scatter(own, parts)
        return own[: sizes[self.environment.rank]]

    def _host_group(self) -> dist.ProcessGroup | None:
        if self._host is None:
            self._host = dist.new_group(backend="gloo", timeout=timeout())
        return self._host

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


@contextlib.contextmanager
def groups_with_our_timeout() -> Iterator[None]:
    """Groups that a library makes inside wait as long as `timeout`; left alone they would wait for half an hour."""
    new_group = dist.new_group
    dist.new_group = functools.partial(new_group, timeout=timeout())
    try:
        yield
    finally:
        dist.new_group = new_group


def timeout() -> datetime.timedelta:
    """How long a rank waits for another."""
    return datetime.timedelta(seconds=core.TIMEOUT_SECONDS)


def meet(env: Environment) -> dist.Store:
    """The key-value store through which the ranks find each other; on one machine it listens on loopback only.

    Raises RankLost when they do not find it in time.
    """
    if env.world_size == 1:
        return dist.HashStore()
    try:
        # Under torchrun the agent already serves a store on that port; between nodes torch's own is the one to use.
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" or not on_one_machine(env):
            os.environ.update(MASTER_ADDR=env.master_addr, MASTER_PORT=str(env.master_port))
            store, _, _ = next(dist.rendezvous("env://", rank=env.rank, world_size=env.world_size, timeout=timeout()))
            return store
        return loopback_store(env, timeout())
    except (RuntimeError, ValueError, OSError) as error:
        raise did_not_meet(env, error) from None


def loopback_store(env: Environment, limit: datetime.timedelta) -> dist.Store:
    """The store of ranks that are all on this machine, served by rank 0; `limit`: of every wait."""
    if env.rank != 0:
        return dist.TCPStore(LOOPBACK, env.master_port, env.world_size, False, limit, wait_for_workers=False)
    # torch's own server would listen on every interface.
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, env.master_port))
        listener.listen(128)
        return dist.TCPStore(
            LOOPBACK,
            env.master_port,
            env.world_size,
            True,
            limit,
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )


def did_not_meet(env: Environment, error: Exception) -> RankLost:
    """One line that names the rank and where it waited."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return RankLost(
        f"rank {env.rank} of {env.world_size}: the ranks did not meet at {env.master_addr}:{env.master_port} ({line})"
    )
