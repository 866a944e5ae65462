"""What a run is made with and on: RUN/environment.json, for people who read it later."""

from __future__ import annotations

import platform
from typing import Any

import torch
import transformers

from tnr_dist import __version__
from tnr_dist.engines.base import Engine
from tnr_dist.hardware import cpu_name


def surroundings(engine: Engine) -> dict[str, Any]:
    """Versions, device and ranks."""
    environment = engine.environment
    facts: dict[str, Any] = {
        "tnr_dist": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "ranks": environment.world_size,
        "ranks a node": environment.local_world_size,
        "threads": torch.get_num_threads(),
    }
    if engine.device.type == "cuda":
        return facts | {"device": torch.cuda.get_device_name(engine.device), "cuda": torch.version.cuda}
    return facts | {"device": cpu_name()}
