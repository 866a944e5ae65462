"""Runs of a study side by side on this machine: each worker process makes one run at a time, inputs first."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch

from tnr_dist.config.schema import Config
from tnr_dist.engines.make import make_engine
from tnr_dist.kernels.dispatch import use_kernels
from tnr_dist.launch.local import die_with
from tnr_dist.reproduce.plan import Work
from tnr_dist.util import preemption
from tnr_dist.util.errors import Preempted
from tnr_dist.util.hardware import cores
from tnr_dist.util.progress import Bar, say

_STOP_SECONDS = 120.0  # a worker that was asked to stop writes a checkpoint first


@dataclass
class Outcome:
    """The outcome of the runs: the failed ones with their error, and those left out because they need one of them."""

    failed: dict[Path, str] = field(default_factory=dict)
    left_out: list[Path] = field(default_factory=list)


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    work: Work | None = None
    since: float = 0.0


def run_works(works: Sequence[Work], config: Config, jobs: int, logs: Path, title: str) -> Outcome:
    """Make all runs, `jobs` at a time; a failed run does not stop those that do not need it.

    Workers write what they would show to `logs`/worker-N.log. Raises Preempted, with checkpoints written, when this
    process is asked to stop.
    """
    outcome = Outcome()
    waiting = {work.key: work for work in works if not work.is_complete()}
    finished = {work.key for work in works} - set(waiting)
    if finished:
        say(f"{title}: {len(finished)} of {len(works)} runs are complete")
    workers: list[_Worker] = []
    logs.mkdir(parents=True, exist_ok=True)
    try:
        with preemption.listening(), Bar(title, len(works), "runs") as bar:
            bar.skip(len(finished))
            while waiting or any(worker.work for worker in workers):
                _leave_out(waiting, outcome, bar)
                ready = [work for work in waiting.values() if finished.issuperset(work.needs)]
                for number in range(jobs):
                    if not ready:
                        break
                    if number == len(workers):
                        workers.append(_start(number, jobs, config, logs))
                    worker = workers[number]
                    if worker.work is None:
                        work = ready.pop(0)
                        try:
                            worker.connection.send(work)
                        except OSError:  # it was killed while it had nothing to do
                            worker.connection.close()
                            worker = workers[number] = _start(number, jobs, config, logs)
                            worker.connection.send(work)
                        worker.work, worker.since = work, time.monotonic()
                        del waiting[work.key]
                # A worker alone may have been asked to stop: its run has a checkpoint and is resumed.
                for work in _collect(
                    workers, finished, outcome, bar, lambda number: _start(number, jobs, config, logs)
                ):
                    waiting[work.key] = work
                if preemption.stop_requested():
                    _stop(workers)
                    raise Preempted(f"{title}: stopped after checkpoints; run it again to resume")
    finally:
        for worker in workers:
            worker.connection.close()
            if worker.process.is_alive():
                worker.process.terminate()
    return outcome


def visible_gpus() -> list[str]:
    """The GPUs of this process as CUDA_VISIBLE_DEVICES names them; does not start CUDA."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    return [str(number) for number in range(torch.cuda.device_count())]


def _leave_out(waiting: dict[Path, Work], outcome: Outcome, bar: Bar) -> None:
    bad = {*outcome.failed, *outcome.left_out}
    for key, work in list(waiting.items()):  # inputs come before what needs them
        if bad.intersection(work.needs):
            bad.add(key)
            outcome.left_out.append(key)
            del waiting[key]
            bar.advance(1)


def _collect(
    workers: list[_Worker], finished: set[Path], outcome: Outcome, bar: Bar, start: Callable[[int], _Worker]
) -> list[Work]:
    """Wait a moment for workers to finish; one that failed, died or was asked to stop is replaced.

    Returns:
        The runs whose workers were asked to stop.
    """
    stopped = []
    busy = [worker for worker in workers if worker.work]
    found = multiprocessing.connection.wait([worker.connection for worker in busy], timeout=0.5)
    for number, worker in enumerate(workers):
        if worker.work is None or worker.connection not in found:
            continue
        try:
            end, message = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            worker.process.join(10)
            end, message = "failed", f"its process ended with exit code {worker.process.exitcode}"
        work, seconds = worker.work, time.monotonic() - worker.since
        name = f"{work.key.name}, seed {work.seed}"
        worker.work = None
        if end == "done":
            finished.add(work.key)
            bar.advance(1, name)
            say(f"{bar.title}: {bar.done} of {bar.total}: {name}: {seconds:.0f} s")
            continue
        if end == "failed":
            outcome.failed[work.key] = message
            bar.advance(1, name)
            say(f"{bar.title}: {name} FAILED: {message}")
        else:
            stopped.append(work)
        worker.connection.close()
        workers[number] = start(number)
    return stopped


def _stop(workers: list[_Worker]) -> None:
    busy = [worker for worker in workers if worker.work and worker.process.is_alive()]
    for worker in busy:
        assert worker.process.pid is not None
        os.kill(worker.process.pid, signal.SIGUSR1)
    until = time.monotonic() + _STOP_SECONDS
    for worker in busy:
        worker.connection.poll(max(until - time.monotonic(), 0.0))


def _start(number: int, jobs: int, config: Config, logs: Path) -> _Worker:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(
        target=_serve, args=(theirs, number, jobs, config, logs / f"worker-{number}.log", os.getpid()), daemon=True
    )
    process.start()
    theirs.close()
    return _Worker(process, mine)


def _serve(connection: Connection, number: int, jobs: int, config: Config, log: Path, parent: int) -> None:
    """A worker: make the runs that come through the connection, until it closes or one of them fails."""
    if ask := die_with(parent):
        ask()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    preemption.listen()
    with log.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if gpus := visible_gpus():
        # CUDA reads it at its first use, which is later.
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
    threads = config.threads or max(1, cores() // jobs)
    engine = make_engine(config.engine, config.device, threads, config.deepspeed, config.horovod)
    with use_kernels(config.kernels):
        while True:
            try:
                work: Work = connection.recv()
            except EOFError:
                break
            say(f"--- {work.key}")
            end = "done", ""
            try:
                work.run(engine)
            except Preempted as stop:
                end = "preempted", str(stop)
            except Exception as error:
                traceback.print_exc()
                end = "failed", f"{type(error).__name__}: {error}"
            sys.stderr.flush()
            connection.send(end)
            if end[0] != "done":
                break
    engine.close()
