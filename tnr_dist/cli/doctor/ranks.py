"""The ranks of `tnr doctor`: they meet as those of a training run do, and time an all-reduce."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import TypedDict

import torch
import torch.distributed as dist

from tnr_dist import __version__
from tnr_dist.data.prepare.verify import Finding
from tnr_dist.engines import core
from tnr_dist.engines.base import Terms
from tnr_dist.engines.core import on_one_machine
from tnr_dist.engines.meeting import meet
from tnr_dist.engines.waiting import TooLate, Wait
from tnr_dist.launch.environment import Environment
from tnr_dist.util.errors import EarlierStart, InputError, PortTaken, RankLost

_MIB = 16  # what the timed all-reduce sends: about the gradients of one trained layer
_REPEATS = 5


class Facts(TypedDict):
    """What a rank says of itself; `probe`: rank 0's file in the output folder."""

    host: str
    device: str
    versions: str
    faults: list[str]
    probe: str


def check_ranks(
    place: Environment, cuda: bool, limit: float, probe: Path | None, faults: list[str], terms: Terms
) -> list[Finding]:
    """Let the ranks meet, look at each other, see the same files and time an all-reduce.

    Args:
        place: which rank this is.
        cuda: the all-reduce is of GPUs.
        limit: seconds that the ranks wait for each other.
        probe: on rank 0 a file that it has made in the output folder, which all should see.
        faults: this rank's own; rank 0 learns of them here.
        terms: what must be the same on all ranks.
    """
    core.TIMEOUT_SECONDS = limit
    if on_one_machine(place):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    try:
        store = dist.PrefixStore("doctor", meet(place, terms, Wait(limit, lambda: False)))
    except PortTaken as error:
        return [Finding("error", "port", str(error))]
    except (InputError, EarlierStart) as error:
        return [Finding("error", "ranks", str(error))]
    except RankLost as error:
        advice = "look at the missing ranks' logs and nodes; do the nodes reach each other's ports?"
        return [Finding("error", "ranks", str(error), advice)]
    try:
        findings = _exchange_facts(store, place, cuda, limit, probe, faults)
        _wait_for_readers(store, place, Wait(limit, lambda: False))
        return findings
    except (RuntimeError, ValueError) as error:  # a DistStoreError is a RuntimeError
        return [Finding("error", "ranks", f"rank {place.rank} lost another ({_first_line(error)})")]


def _exchange_facts(
    store: dist.Store, place: Environment, cuda: bool, limit: float, probe: Path | None, faults: list[str]
) -> list[Finding]:
    facts: Facts = {
        "host": socket.gethostname(),
        "device": torch.cuda.get_device_name(place.local_rank) if cuda and not faults else "cpu",
        "versions": f"torch {torch.__version__}, tnr_dist {__version__}",
        "faults": faults,
        "probe": str(probe or ""),
    }
    people: list[Facts] = [json.loads(text) for text in _exchange(store, place, "facts", json.dumps(facts))]
    findings = _compare(people)
    if made := people[0]["probe"]:
        sees = _exchange(store, place, "sees", "yes" if Path(made).exists() else "no")
        if blind := sorted({people[rank]["host"] for rank, answer in enumerate(sees) if answer == "no"}):
            message = f"{Path(made).parent} is not the same folder on {', '.join(blind)}"
            advice = "put output= on a file system that all nodes share"
            findings.append(Finding("error", "shared folder", message, advice))
    if not any(one["faults"] for one in people):
        findings.append(_time_all_reduce(store, place, cuda, limit))
    return findings


def _exchange(store: dist.Store, place: Environment, topic: str, word: str) -> list[str]:
    """Every rank's word. Raises a RuntimeError if one says none within the limit."""
    store.set(f"{topic}/{place.rank}", word)
    return [store.get(f"{topic}/{rank}").decode() for rank in range(place.world_size)]


def _wait_for_readers(store: dist.Store, place: Environment, wait: Wait) -> None:
    """Rank 0 serves the store, so it must not end before the others have read."""
    store.add("read", 1)
    with contextlib.suppress(TooLate):
        while place.rank == 0 and store.add("read", 0) < place.world_size:
            wait.sleep()


def _compare(people: list[Facts]) -> list[Finding]:
    """What is wrong with a rank, or differs from rank 0."""
    findings = []
    for rank, one in enumerate(people):
        if rank:  # rank 0's own stand in its table already
            findings += [Finding("error", f"rank {rank}", f"on {one['host']}: {fault}") for fault in one["faults"]]
        if one["versions"] != people[0]["versions"]:
            message = f"on {one['host']} {one['versions']}, rank 0 has {people[0]['versions']}"
            findings.append(Finding("error", f"rank {rank}", message, "use one environment on all nodes"))
        if one["device"] != people[0]["device"]:
            message = f"on {one['host']} {one['device']}, rank 0 has {people[0]['device']}: the slowest sets the pace"
            findings.append(Finding("warning", f"rank {rank}", message))
    hosts = sorted({one["host"] for one in people})
    findings.append(Finding("ok", "ranks", f"{len(people)} met, on {', '.join(hosts)}"))
    return findings


def _time_all_reduce(store: dist.Store, place: Environment, cuda: bool, limit: float) -> Finding:
    """Sum a tensor over the ranks a few times, check the sum, and say how fast it was."""
    backend = "nccl" if cuda else "gloo"
    device = torch.device("cuda", place.local_rank) if cuda else torch.device("cpu")
    value = torch.full((_MIB << 18,), float(place.rank + 1), device=device)
    best = float("inf")
    fault = ""
    try:
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("group", store),
            rank=place.rank,
            world_size=place.world_size,
            timeout=timedelta(seconds=limit),
        )
        for _ in range(_REPEATS):
            mine = value.clone()
            began = time.monotonic()
            work = dist.all_reduce(mine, async_op=True)
            while not work.is_completed():
                if time.monotonic() - began > limit:
                    raise RuntimeError(f"not finished after {limit:g} s")
                time.sleep(0.0005)
            work.wait()
            if cuda:
                torch.cuda.synchronize(device)
            best = min(best, time.monotonic() - began)
        expected = place.world_size * (place.world_size + 1) / 2
        if float(mine[0]) != expected or float(mine[-1]) != expected:
            fault = f"the sum is {float(mine[0]):g}, not {expected:g}"
    except RuntimeError as error:
        fault = _first_line(error)
    if bad := {rank: text for rank, text in enumerate(_exchange(store, place, "reduced", fault)) if text}:
        rank, text = next(iter(bad.items()))
        message = f"all-reduce over {backend} failed on rank {', '.join(map(str, bad))} of {place.world_size}; rank {rank}: {text}"
        advice = "the ranks have met, so look at the data network: GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME, firewalls"
        return Finding("error", "all-reduce", message, advice)
    dist.destroy_process_group()
    rate = _MIB / 1024 / best
    return Finding(
        "ok",
        "all-reduce",
        f"{backend}, {_MIB} MiB between {place.world_size} ranks: {1000 * best:.1f} ms ({rate:.2f} GiB/s)",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
