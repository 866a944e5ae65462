"""Worker processes for a list of like jobs, with a progress bar."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import TypeVar

from tnr_dist.util.progress import Bar

T = TypeVar("T")
R = TypeVar("R")
_WORTH_PROCESSES = 50_000  # units of work: less is done before the processes have started


class Processes:
    """Spawned processes (fork is unsafe after Arrow's threads start), started when first needed and kept to the end."""

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self._executor: ProcessPoolExecutor | None = None

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)

    def map(self, work: Callable[[T], R], jobs: list[T], weights: list[int], title: str, unit: str) -> Iterator[R]:
        """Results of `work` on each job, in any order; `weights` are the jobs' sizes in `unit`s."""
        with Bar(title, sum(weights), unit) as bar:
            if self.processes == 1 or len(jobs) == 1 or sum(weights) < _WORTH_PROCESSES:
                for job, weight in zip(jobs, weights, strict=True):
                    result = work(job)
                    bar.advance(weight)
                    yield result
                return
            if self._executor is None:
                context = multiprocessing.get_context("spawn")
                self._executor = ProcessPoolExecutor(self.processes, context)
            futures = {self._executor.submit(work, job): weight for job, weight in zip(jobs, weights, strict=True)}
            try:
                for future in as_completed(futures):
                    result = future.result()
                    bar.advance(futures[future])
                    yield result
            except BrokenProcessPool:
                raise RuntimeError(
                    f"{title}: a worker process was killed (out of memory?); run the command again to resume"
                ) from None
            finally:
                for future in futures:
                    future.cancel()
