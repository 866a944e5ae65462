"""`tnr doctor`: what can be known to be wrong before hours are spent: software, devices, ranks, disk, data and cache."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tnr_dist import __version__
from tnr_dist.config.schema import Config
from tnr_dist.data.dataset import DataSet
from tnr_dist.data.prepare.raw_files import find_splits
from tnr_dist.data.prepare.verify import Finding, verify_prepared
from tnr_dist.data.shards import read_index
from tnr_dist.data.teacher_cache import TeacherCache
from tnr_dist.engines.base import Terms
from tnr_dist.engines.core import on_one_machine
from tnr_dist.engines.devices import gpu_fault
from tnr_dist.engines.meeting import differences, open_store, word_of
from tnr_dist.engines.waiting import Wait
from tnr_dist.launch.environment import Environment, detect
from tnr_dist.models.plm import load_plm
from tnr_dist.runs.finished import DONE, damage, read_done
from tnr_dist.stages import cache
from tnr_dist.stages.parts.terms import terms_of
from tnr_dist.stages.targets import each_seed
from tnr_dist.util.digests import digest
from tnr_dist.util.errors import InputError, PortTaken, RankLost
from tnr_dist.util.hardware import cores

_OPTIONAL = ("deepspeed", "horovod", "triton", "wandb", "webdataset")
_MIB = 16  # what the timed all-reduce sends: about the gradients of one trained layer
_REPEATS = 5


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
        findings += _ranks(place, _uses_cuda(config), limit, output, faults, terms)
    if place.rank != 0:
        return [finding for finding in findings if finding.level == "error"]
    findings += _disk(output, need_gib)
    if config is not None:
        findings += _data(config)
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


# Ranks ----------------------------------------------------------------------------------------------------------------


def _ranks(
    place: Environment, cuda: bool, limit: float, output: Path, faults: list[str], terms: Terms
) -> list[Finding]:
    """Let the ranks meet, look at each other, see the same files and time an all-reduce.

    `faults` are this rank's own; rank 0 learns of them here.
    """
    if on_one_machine(place):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    try:
        store = dist.PrefixStore("doctor", open_store(place, Wait(limit, lambda: False)))
    except (InputError, PortTaken) as error:
        return [Finding("error", "port", str(error))]
    except (RankLost, RuntimeError, ValueError, OSError) as error:
        message = f"rank {place.rank}: {_line(error)}"
        return [Finding("error", "ranks", message, "is rank 0 running, and do the nodes reach each other's ports?")]
    meeting = _Meeting(store, place, limit)
    probe = _shared_probe(output) if place.rank == 0 else None
    try:
        facts = {
            "host": socket.gethostname(),
            "device": torch.cuda.get_device_name(place.local_rank) if cuda and not faults else "cpu",
            "versions": f"torch {torch.__version__}, tnr_dist {__version__}",
            "faults": faults,
            "run": word_of(place, terms),
        }
        if probe is not None:
            facts["probe"] = str(probe)
        everyone = meeting.exchange("here", json.dumps(facts))
        if isinstance(everyone, Finding):
            return [everyone]
        people = [json.loads(text) for text in everyone]
        findings = _compare(people)
        if "probe" in people[0]:
            sees = meeting.exchange("sees", str(int(Path(people[0]["probe"]).exists())))
            if isinstance(sees, Finding):
                return [*findings, sees]
            if blind := [people[rank]["host"] for rank, text in enumerate(sees) if text == "0"]:
                message = f"{Path(people[0]['probe']).parent} is not the same folder on {', '.join(sorted(set(blind)))}"
                advice = "put output= on a file system that all nodes share"
                findings.append(Finding("error", "shared folder", message, advice))
        if any(one["faults"] for one in people):
            return findings
        return [*findings, _timed_all_reduce(meeting, place, cuda, limit)]
    finally:
        if probe is not None:
            probe.unlink(missing_ok=True)


class _Meeting:
    """Ranks that exchange words through a store, waiting `limit` seconds at most."""

    def __init__(self, store: dist.Store, place: Environment, limit: float) -> None:
        self.store, self.place, self.limit = store, place, limit

    def exchange(self, topic: str, word: str) -> list[str] | Finding:
        """Every rank's word, or the finding that names the ranks without one."""
        world = range(self.place.world_size)
        try:
            self.store.set(f"{topic}/{self.place.rank}", word)
            end = time.monotonic() + self.limit
            while missing := [rank for rank in world if not self.store.check([f"{topic}/{rank}"])]:
                if time.monotonic() > end:
                    return self._missing(topic, missing)
                time.sleep(0.05)
            words = [self.store.get(f"{topic}/{rank}").decode() for rank in world]
            self._leave_last(topic)
            return words
        except (RuntimeError, ValueError) as error:  # a DistStoreError is one
            return Finding("error", "ranks", f"rank {self.place.rank} lost rank 0 at {topic!r} ({_line(error)})")

    def _leave_last(self, topic: str) -> None:
        """Rank 0 serves the store, so it must not go on to its end before the others have read."""
        self.store.add(f"{topic}-read", 1)
        end = time.monotonic() + self.limit
        while self.place.rank == 0 and self.store.add(f"{topic}-read", 0) < self.place.world_size:
            if time.monotonic() > end:
                return
            time.sleep(0.01)

    def _missing(self, topic: str, missing: list[int]) -> Finding:
        hosts = []
        for rank in range(self.place.world_size):
            if rank not in missing and topic == "here":
                hosts.append(f"{rank} on {json.loads(self.store.get(f'here/{rank}').decode())['host']}")
        names = ", ".join(map(str, missing))
        message = f"{'rank' if len(missing) == 1 else 'ranks'} {names} of {self.place.world_size} missing after {self.limit:g} s"
        if hosts:
            message += f"; there are {', '.join(hosts)}"
        return Finding("error", "ranks", message, "look at the missing ranks' logs and nodes")


def _compare(people: list[dict[str, Any]]) -> list[Finding]:
    findings = []
    for rank, one in enumerate(people):
        if rank:  # rank 0's own stand in its table already
            findings += [Finding("error", f"rank {rank}", f"on {one['host']}: {fault}") for fault in one["faults"]]
        if one["versions"] != people[0]["versions"]:
            message = f"on {one['host']} {one['versions']}, rank 0 has {people[0]['versions']}"
            findings.append(Finding("error", f"rank {rank}", message, "use one environment on all nodes"))
        if names := differences(people[0]["run"], one["run"]):
            message = f"on {one['host']} with another configuration (differs in: {', '.join(names)})"
            findings.append(Finding("error", f"rank {rank}", message, "start all ranks with one command"))
        if one["device"] != people[0]["device"]:
            message = f"on {one['host']} {one['device']}, rank 0 has {people[0]['device']}: the slowest sets the pace"
            findings.append(Finding("warning", f"rank {rank}", message))
    hosts = sorted({one["host"] for one in people})
    findings.append(Finding("ok", "ranks", f"{len(people)} met, on {', '.join(hosts)}"))
    return findings


def _timed_all_reduce(meeting: _Meeting, place: Environment, cuda: bool, limit: float) -> Finding:
    """Sum a tensor over the ranks a few times, check the sum, and say how fast it was."""
    backend = "nccl" if cuda else "gloo"
    device = torch.device("cuda", place.local_rank) if cuda else torch.device("cpu")
    value = torch.full((_MIB << 18,), float(place.rank + 1), device=device)
    best = float("inf")
    fault = ""
    try:
        dist.init_process_group(
            backend,
            store=dist.PrefixStore("group", meeting.store),
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
        fault = _line(error)
    words = meeting.exchange("reduced", fault)
    if isinstance(words, Finding):
        return words
    if bad := {rank: text for rank, text in enumerate(words) if text}:
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


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


# Disk, data and cache -------------------------------------------------------------------------------------------------


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
    level: Any = "error" if free < need_gib else "ok"
    advice = (
        ""
        if level == "ok"
        else f"{need_gib:g} GiB are needed for checkpoints (--need-gib): make room or choose output="
    )
    yield Finding(level, "disk", f"{free:,.1f} GiB free at {folder}", advice)


def _guarded(where: str, advice: str, look: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """What `look` finds; an InputError becomes a finding like the others."""
    try:
        return list(look())
    except InputError as error:
        return [Finding("error", where, str(error), advice)]


def _data(config: Config) -> list[Finding]:
    folder = Path(config.data.dir)
    if not (folder / "manifest.json").is_file():
        made = f"from {config.data.input}" if config.data.input else "from generated files"
        prepared_later = Finding("warning", "data", f"{folder}: not prepared yet; `tnr run` makes it {made}")
        return [prepared_later, *_guarded("splits", "see data.input", lambda: _raw_splits(config))]
    found = verify_prepared(folder)
    bad = [finding for finding in found if finding.level != "ok"]
    if any(finding.level == "error" for finding in bad):
        return bad
    findings = [*bad, Finding("ok", "data", f"{folder}: {len(found) - len(bad)} parts checked, all intact")]
    plm = _guarded("plm", "see plm.name", lambda: _plm(config))
    data = DataSet.open(config)
    findings += [*plm, *_splits(config, data)]
    if any(finding.level == "error" for finding in plm):
        return findings  # which runs are there to look at depends on what the PLM is
    for one in (config, *each_seed(config)):
        if (cache.run_folder(one, data).path / "cache.json").is_file():
            findings += _guarded("cache", "", lambda one=one: _cache(one))  # type: ignore[misc]
    findings += _runs(Path(config.output))
    return findings


_NO_DEV = "prepare it with data.dev_split=last-days:1 (or random:0.1), which takes it from train, or name another evaluate.split"


def _splits(config: Config, data: DataSet) -> Iterator[Finding]:
    """The splits that are trained and scored are there, with labels."""
    there = data.manifest["counts"].get("splits", {})
    if not there:
        yield Finding("warning", "splits", f"{data.folder}: a corpus alone, for post-train and stage1")
        return
    fine = True
    for split, use in (("train", "trained on"), (config.evaluate.split, "scored (evaluate.split)")):
        if split not in there:
            message = f"{data.folder}: no {split} split, which is {use}; there is {', '.join(there)}"
            yield Finding(
                "error", "splits", message, _NO_DEV if split != "train" else "prepare data with a train split"
            )
        elif not read_index(data.folder, split).labelled:
            message = f"{data.folder}: the {split} split, which is {use}, has no labels"
            yield Finding("error", "splits", message, "take a split whose candidates end in -0 and -1")
        else:
            continue
        fine = False
    if fine:
        yield Finding("ok", "splits", f"{', '.join(there)}; {config.evaluate.split} is scored")


def _raw_splits(config: Config) -> Iterator[Finding]:
    """The same of files that are not prepared yet, as far as their names tell."""
    if not config.data.input:
        return
    there = set(find_splits(config.data.input))
    made = {"dev": config.data.dev_split, "test": config.data.test_split}
    there |= {split for split, rule in made.items() if rule}
    for split in ("train", config.evaluate.split):
        if split not in there:
            message = f"{config.data.input}: no {split} split; there is {', '.join(sorted(there))}"
            yield Finding("error", "splits", message, _NO_DEV if split != "train" else "training needs one")


def _plm(config: Config) -> Iterator[Finding]:
    data = DataSet.open(config)
    data.check_tokenizer_name(config.plm.name)
    encoder, _ = load_plm(config.plm.name, config.plm.layers or None)  # as training does
    layers = len(encoder.layers)
    if said := data.changed_plm(config.plm.name):
        yield Finding("warning", "plm", f"{config.plm.name}: {said}", "if you did not replace it, copy it again")
    else:
        yield Finding("ok", "plm", f"{config.plm.name}: {layers} layers, its tokenizer is the data's")


def _cache(config: Config) -> Iterator[Finding]:
    """The cache fits the data and the teachers, and every file of it has its digest."""
    data = DataSet.open(config)
    folder = cache.run_folder(config, data).path
    stored = TeacherCache(folder, cache.expected(config, data))
    stored.news_vectors()
    shards = [
        (folder / split / name, sha256)
        for split, names in stored.facts["splits"].items()
        for name, sha256 in names.items()
    ]
    for path, sha256 in shards:
        if not path.is_file() or digest(path, again=True) != sha256:
            raise InputError(
                f"{path}: {'damaged' if path.is_file() else 'missing'}; delete it, its .json and {folder / 'complete.json'}, then run `tnr cache`"
            )
    yield Finding("ok", "cache", f"{folder}: {stored.teachers} teachers, {len(shards)} side shards, all intact")


def _runs(output: Path) -> Iterator[Finding]:
    """The files of every finished run of the configuration have their digests, read anew."""
    runs = sorted(path.parent for pattern in (f"*/{DONE}", f"seed-*/*/{DONE}") for path in output.glob(pattern))
    intact = 0
    for run in runs:
        try:
            done = read_done(run, "training")
        except InputError as error:
            yield Finding("error", "runs", str(error))
            continue
        if not isinstance(done.get("files"), dict):
            message = f"{run}: made by an older version, which kept no digests: damage to its files would go unseen"
            yield Finding("warning", "runs", message)
            continue
        faults = {name: found for name in done["files"] if (found := damage(run, name, done, again=True))}
        for name, found in faults.items():
            advice = f"delete {run} and run {done.get('stage', 'training')} again, or copy it again from a sound copy"
            yield Finding("error", "runs", f"{run / name}: {found}", advice)
        intact += not faults
    if intact:
        yield Finding("ok", "runs", f"{output}: {intact} finished, their models, configurations and records intact")
