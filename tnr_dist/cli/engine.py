"""How a command runs on its ranks: start them, open the engine, and end in good order when one is lost."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tnr_dist.cli.options import configure
from tnr_dist.util.progress import say_once

if TYPE_CHECKING:
    from tnr_dist.config.schema import Config
    from tnr_dist.engines.base import Engine

# Seconds: a rank that ended with a reason, such as bad input, is to be the first that its launcher sees.
_BEFORE_LOST = 5.0


def start_ranks(config: Config) -> int | None:
    """Start the local ranks that `ranks` asks for and return their exit code; None in a process that is a rank."""
    from tnr_dist.launch.environment import detect
    from tnr_dist.launch.local import launch

    if config.ranks == 1 or detect().launcher != "none":
        return None
    return launch(config.ranks, [sys.executable, "-m", "tnr_dist.cli.app", *sys.argv[1:]])


@contextlib.contextmanager
def open_engine(config: Config, command: str, *, stops: bool = True) -> Iterator[Engine]:
    """The engine and the kernels of a configuration; `stops`: the work can end with exit code 75 when asked to stop.

    `command`: what all ranks must be running.
    """
    from tnr_dist.engines import core, devices
    from tnr_dist.engines.broken import is_broken
    from tnr_dist.engines.make import make_engine
    from tnr_dist.kernels.dispatch import use_kernels
    from tnr_dist.stages.parts.terms import terms_of
    from tnr_dist.train.heartbeat import rank_lost_error
    from tnr_dist.util import memory, preemption

    if stops:
        preemption.listen()
    core.TIMEOUT_SECONDS = config.timeout
    memory.STATED_GIB = config.memory_gib
    terms = terms_of(config, command, preemption.stop_requested)
    engine = make_engine(config.engine, config.device, config.threads, config.deepspeed, config.horovod, terms)
    if engine.environment.rank == 0:
        # For a process alone an error is to be the only line.
        if engine.environment.launcher != "none" or "SLURM_JOB_ID" in os.environ:
            say_once(devices.describe(engine.environment, engine.device, config.precision))
        for warning in devices.warnings(engine.environment, engine.device, config.ranks, os.environ):
            say_once(warning)
    try:
        with use_kernels(config.kernels):
            yield engine
    except RuntimeError as error:
        if engine.environment.world_size > 1 and is_broken(error):
            preemption.wait_for_request(_BEFORE_LOST)
            raise rank_lost_error(engine.environment, error) from error
        raise
    finally:
        engine.close()


def run_with_engine(
    command: str,
    path: Path,
    overrides: list[str] | None,
    print_config: bool,
    work: Callable[[Config, Engine], object],
    *,
    stops: bool = True,
) -> None:
    """Run `work(config, engine)` on every rank, and start the local ranks that the configuration asks for.

    `command`: what all ranks must be running; `stops`: as for `open_engine`.
    """
    config = configure(path, overrides, print_config)
    code = start_ranks(config)
    if code is not None:
        raise typer.Exit(code)
    with open_engine(config, command, stops=stops) as engine:
        work(config, engine)
