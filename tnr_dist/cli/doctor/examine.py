"""`tnr doctor`: what can be known to be wrong before hours are spent: software, devices, ranks, disk, data and cache."""

from __future__ import annotations

import importlib.metadata
import shutil
import socket
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist

from tnr_dist import __version__
from tnr_dist.cli.doctor.files import check_data
from tnr_dist.cli.doctor.ranks import check_ranks
from tnr_dist.config.schema import Config
from tnr_dist.data.prepare.verify import Finding
from tnr_dist.engines.base import Terms
from tnr_dist.engines.devices import gpu_fault
from tnr_dist.launch.environment import Environment, detect
from tnr_dist.stages.parts.terms import terms_of
from tnr_dist.util.errors import InputError
from tnr_dist.util.hardware import cores

_OPTIONAL = ("deepspeed", "horovod", "triton", "wandb", "webdataset")


def examine(config: Config | None, limit: float, need_gib: float) -> list[Finding]:
    """Look at everything; findings on rank 0, only faults of their own on the others.

    All ranks call it. No wait lasts longer than `limit` seconds, and a rank that is missing is named.
    """
    if not limit > 0 or not need_gib >= 0:
        raise InputError(f"--limit {limit:g}, --need-gib {need_gib:g}: seconds above 0 and a size of 0 or more")
    place = detect()
    findings = [*_software(config), *_device(config, place)]
    output = Path(config.output if config else ".")
    if place.world_size > 1:
        faults = [f"{finding.where}: {finding.message}" for finding in findings if finding.level == "error"]
        terms = terms_of(config, "doctor") if config else Terms()
        probe = _shared_probe(output) if place.rank == 0 else None
        try:
            findings += check_ranks(place, _uses_cuda(config), limit, probe, faults, terms)
        finally:
            if probe is not None:
                probe.unlink(missing_ok=True)
    if place.rank != 0:
        return [finding for finding in findings if finding.level == "error"]
    findings += _disk(output, need_gib)
    if config is not None:
        findings += check_data(config)
    return findings


def show(findings: list[Finding]) -> None:
    """Print the table of findings on stdout."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("", "what", "found"):
        table.add_column(title, overflow="fold")
    colours = {"ok": "green", "warning": "yellow", "error": "red"}
    for finding in findings:
        message = finding.message + (f" - {finding.advice}" if finding.advice else "")
        table.add_row(Text(finding.level, style=colours[finding.level]), Text(finding.where), Text(message))
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    console.print(table)


# Software and devices -------------------------------------------------------------------------------------------------


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _software(config: Config | None) -> Iterator[Finding]:
    versions = {"tnr_dist": __version__, "python": sys.version.split()[0], "torch": torch.__version__}
    yield Finding("ok", "versions", ", ".join(f"{name} {version}" for name, version in versions.items()))
    found = {name: _version(name) for name in _OPTIONAL}
    yield Finding(
        "ok", "optional", ", ".join(f"{name} {version or 'not installed'}" for name, version in found.items())
    )
    engine = config.engine if config else "ddp"
    if engine in found and not found[engine]:
        advice = {"horovod": "run launch/install_horovod.sh", "deepspeed": "pip install deepspeed"}.get(engine, "")
        yield Finding("error", "engine", f"engine={engine}, which is not installed", f"{advice}, or take engine=ddp")
    elif engine == "horovod":
        import horovod.torch as hvd

        # Horovod's import succeeds without its compiled part; what is missing then is everything else.
        if not hasattr(hvd, "init"):
            advice = "run launch/install_horovod.sh again: it was built for another torch"
            yield Finding("error", "engine", "horovod is installed and its extension does not load", advice)


def _uses_cuda(config: Config | None) -> bool:
    device = config.device if config else "auto"
    return device == "cuda" or (device == "auto" and torch.cuda.is_available())


def _device(config: Config | None, place: Environment) -> Iterator[Finding]:
    yield Finding("ok", "launcher", place.describe())
    if fault := gpu_fault(config.device if config else "auto"):
        yield Finding("error", "device", fault)
        return
    if not _uses_cuda(config):
        yield Finding("ok", "device", f"cpu, {cores()} cores, {torch.get_num_threads()} threads; backend gloo")
        return
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if place.local_rank >= count:
        message = f"rank {place.rank} is local rank {place.local_rank}, and {count} GPUs are visible on {socket.gethostname()}"
        yield Finding("error", "device", message, "start one rank per GPU, or set device=cpu")
        return
    free, total = torch.cuda.mem_get_info(place.local_rank)
    name = torch.cuda.get_device_name(place.local_rank)
    backend = "backend nccl" if dist.is_nccl_available() else ""
    yield Finding("ok", "device", f"{count} x {name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free; {backend}")
    if free < 0.8 * total:
        advice = "see nvidia-smi for what else runs there"
        yield Finding("warning", "device", f"GPU {place.local_rank} is in use: {free / 2**30:.1f} GiB free", advice)
    if place.world_size > 1 and not dist.is_nccl_available():
        yield Finding("error", "backend", "this torch has no NCCL", "install torch's CUDA build")


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _shared_probe(output: Path) -> Path | None:
    probe = _existing(output) / f".tnr-doctor-{uuid.uuid4().hex}.tmp"
    try:
        probe.write_text("")
    except OSError:
        return None  # `_disk` says so
    return probe


def _disk(output: Path, need_gib: float) -> Iterator[Finding]:
    folder = _existing(output)
    probe = _shared_probe(output)
    if probe is None:
        yield Finding("error", "disk", f"{folder} cannot be written to", "choose another output=")
        return
    probe.unlink()
    free = shutil.disk_usage(folder).free / 2**30
    level: Literal["ok", "error"] = "error" if free < need_gib else "ok"
    advice = (
        ""
        if level == "ok"
        else f"{need_gib:g} GiB are needed for checkpoints (--need-gib): make room or choose output="
    )
    yield Finding(level, "disk", f"{free:,.1f} GiB free at {folder}", advice)
