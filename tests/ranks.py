"""Run a function on n gloo ranks, forked from a server that has imported everything: a tenth of what spawning takes.

A server and not this process, because this one has had threads (Arrow's, tokenizers'), which a fork does not survive.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

import torch


def _rank(
    rank: int, world: int, port: int, patience: float, work: Callable[..., Any], arguments: tuple[Any, ...], out: Any
) -> None:
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        LOCAL_WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(patience, exit=True)  # a rank that hangs says where
    try:
        out.put((rank, "ok", work(*arguments)))
    except BaseException:
        out.put((rank, "error", traceback.format_exc()))


def on_ranks(world: int, work: Callable[..., Any], *arguments: Any, timeout: float = 120) -> list[Any]:
    """What `work(*arguments)` returns on each rank, in rank order; an error of any rank fails the test."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.ranks", "tnr_dist.stages.pipeline", "torch._dynamo"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out = context.Queue()
    patience = timeout / 2
    processes = [
        context.Process(target=_rank, args=(r, world, port, patience, work, arguments, out)) for r in range(world)
    ]
    for process in processes:
        process.start()
    results = {}
    try:
        for _ in processes:
            rank, state, value = out.get(timeout=timeout)
            assert state == "ok", f"rank {rank}:\n{value}"
            results[rank] = value
    finally:
        for process in processes:
            process.join(5)
            if process.is_alive():
                process.kill()
    return [results[rank] for rank in range(world)]
