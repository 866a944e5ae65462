"""What a run is made with and on, by which command and when: RUN/environment.json, for people who read it later."""

from __future__ import annotations

import datetime
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from tnr_dist import __version__
from tnr_dist.engines.base import Engine
from tnr_dist.util.errors import InputError
from tnr_dist.util.files import read_json_object, write_json
from tnr_dist.util.hardware import cores, cpu_name
from tnr_dist.util.redaction import without_secrets
from tnr_dist.util.revision import commit


def describe_environment(engine: Engine) -> dict[str, object]:
    """Versions and commit, device and host, ranks, command line."""
    environment, source = engine.environment, commit()
    facts: dict[str, object] = {
        "tnr_dist": __version__,
        "commit": source.removesuffix("+"),
        "clean": not source.endswith("+") if source else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),  # importing it takes a second
        "ranks": environment.world_size,
        "ranks a node": environment.local_world_size,
        "threads": torch.get_num_threads(),
        "host": f"{platform.system()} {platform.machine()}, {cores()} cores, {_memory_gib()} GiB",
        "command": command_line(sys.argv),
    }
    if engine.device.type == "cuda":
        return facts | {"device": torch.cuda.get_device_name(engine.device), "cuda": torch.version.cuda}
    return facts | {"device": cpu_name()}


def _memory_gib() -> int:
    return round(int(psutil.virtual_memory().total) / 2**30)


def command_line(arguments: list[str]) -> str:
    """The command that this process was started with, as a shell reads it, without keys and passwords."""
    name = Path(arguments[0]).name if arguments else ""
    return shlex.join(["tnr" if name in ("", "cli.py", "-c", "-m") else name, *map(without_secrets, arguments[1:])])


def write_environment(run: Path, engine: Engine) -> None:
    """Write RUN/environment.json; when a run is resumed, the times of its earlier starts are kept."""
    path = run / "environment.json"
    try:
        started = read_json_object(path).get("started")
    except InputError:  # none yet
        started = None
    earlier = started if isinstance(started, list) else []
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    write_json(path, {**describe_environment(engine), "started": [*earlier, now]})
