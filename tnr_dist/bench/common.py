"""What every benchmark reports beside its figures: where and with what they were measured."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
import os
import platform
import time
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tnr_dist.util.errors import InputError
from tnr_dist.util.hardware import cpu_name
from tnr_dist.util.revision import commit

NAMES = (
    "pipeline",
    "prepare",
    "loader",
    "cache",
    "metrics",
    "teacher-pass",
    "inference",
    "step",
    "matching",
    "profile",
    "tiers",
    "kernels",
    "engines",
    "serve",
)


# Settings of which 0 means something though it is not the default.
_MAY_BE_ZERO = ("corpus_articles",)
_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


# What a benchmark's figures depend on, beside its own file: folders of the package. Of those that are not here: all of them.
_ENCODING = ("kernels", "models")
_MEASURES = {
    "kernels": ("kernels", "losses"),
    "inference": _ENCODING,
    "teacher-pass": _ENCODING,
    "matching": (*_ENCODING, "losses", "stages/post_train.py", "stages/stage1.py"),
    **dict.fromkeys(
        ("step", "profile", "tiers"), (*_ENCODING, "losses", "engines", "stages/parts", "stages/stage2.py")
    ),
}


def code_digest(name: str) -> str:
    """Of the source that a benchmark measures: a result whose `code` is another was measured on other code."""
    package = Path(__file__).parents[1]
    own = [package / "bench" / f"{name.replace('-', '_')}.py"]
    parts = [package / part for part in _MEASURES.get(name, (".",))]
    files = {path for part in parts for path in (part.rglob("*.py") if part.is_dir() else [part])}
    digest = hashlib.sha256()
    for path in sorted(files | set(own)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def run_of(name: str) -> Any:
    """The function `tnr_dist.bench.NAME.run`; its parameters are the benchmark's settings.

    Raises InputError for an unknown benchmark.
    """
    if name not in NAMES:
        raise InputError(f"tnr bench {name}: unknown; one of {', '.join(NAMES)}")
    return importlib.import_module(f"tnr_dist.bench.{name.replace('-', '_')}").run


def described_settings(name: str) -> str:
    """A benchmark's settings with their defaults, as on the command line; in brackets what has none."""
    parameters = inspect.signature(run_of(name)).parameters.values()
    return " ".join(f"[{one.name}=...]" if one.default is None else f"{one.name}={one.default}" for one in parameters)


def read_settings(name: str, settings: Sequence[str]) -> dict[str, Any]:
    """The values of `key=value` settings.

    Raises InputError for an unknown benchmark, an unknown setting, a value of the wrong type or out of range.
    """
    run = run_of(name)
    hints = typing.get_type_hints(run)
    parameters = inspect.signature(run).parameters
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or key not in parameters:
            known = ", ".join(parameters)
            raise InputError(f"tnr bench {name}: unknown setting {setting!r}; {known} can be set as key=value")
        kind = next(one for one in typing.get_args(hints[key]) or (hints[key],) if one is not type(None))
        try:
            value = values[key] = _TRUTH[text.lower()] if kind is bool else kind(text)
        except (KeyError, ValueError):
            raise InputError(f"tnr bench {name}: {key}={text!r} is not {kind.__name__}") from None
        if kind in (int, float):
            zero = parameters[key].default == 0 or key in _MAY_BE_ZERO
            if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
                raise InputError(f"tnr bench {name}: {key}={text}: must be {'0 or more' if zero else 'greater than 0'}")
    return values


def run_benchmark(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """A benchmark's figures and the machine they were measured in; `values` are of `read_settings`."""
    from tnr_dist.engines.allocator import keep_freed_memory  # brings torch: not for `tnr --help`

    run = run_of(name)
    where = describe_machine()
    keep_freed_memory()  # for all that is compared alike
    return {**run(**values), **where, "code": code_digest(name)}


def describe_machine() -> dict[str, Any]:
    """Hardware, threads, versions and commit."""
    import torch

    where: dict[str, Any] = {
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        where["gpu"] = torch.cuda.get_device_name()
    return where
