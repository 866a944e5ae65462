"""The engine that a configuration names."""

from __future__ import annotations

from tnr_dist.config.schema import DeepSpeedConfig, HorovodConfig
from tnr_dist.engines.base import Engine, Terms
from tnr_dist.util.errors import InputError


def make_engine(
    name: str,
    device: str,
    threads: int,
    deepspeed: DeepSpeedConfig | None = None,
    horovod: HorovodConfig | None = None,
    terms: Terms | None = None,
) -> Engine:
    """Start the engine that `engine=` names for this process's place among the ranks, once all of them are there.

    Raises InputError when ranks of different runs meet (`terms` says of this one what they compare), RankLost when one does
    not come in time, Preempted when one is asked to stop meanwhile.
    """
    if name == "ddp":
        from tnr_dist.engines.ddp import DDPEngine

        return DDPEngine(device, threads, terms)
    if name == "deepspeed":
        from tnr_dist.engines.deepspeed.engine import DeepSpeedEngine

        return DeepSpeedEngine(device, threads, deepspeed, terms)
    if name == "horovod":
        from tnr_dist.engines.horovod.engine import HorovodEngine

        return HorovodEngine(device, threads, horovod, terms)
    raise InputError(f"engine={name!r}: one of ddp, deepspeed, horovod")
