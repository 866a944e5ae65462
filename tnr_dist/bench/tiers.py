"""`tnr bench tiers`: a stage-2 step with the frozen layers' states on the device, in host memory, on disk, and not kept."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from tnr_dist.bench.step import Scene
from tnr_dist.util.progress import say

_TIERS = ("device", "host", "disk", "none")


def run(samples: int = 128, layers: int = 4, width: int = 384, trainable: int = 2, repeats: int = 2) -> dict[str, Any]:
    """Samples a second of our step for each value of `frozen_cache`, best of `repeats` steps of one batch.

    The table holds the batch's own titles, so that files on disk are in the page cache: reading a cold disk is slower.
    """
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        scene = replace(Scene.of(samples, layers, width, trainable), place=Path(name))
        for tier in _TIERS:
            say(f"frozen_cache={tier}")
            seconds = scene.seconds(repeats, settings={"frozen_cache": tier})
            rows.append({"frozen_cache": tier, "samples_per_s": samples / seconds})
    first = rows[0]["samples_per_s"]
    return {
        "rows": [row | {"ratio_device": row["samples_per_s"] / first} for row in rows],
        "model": f"BERT {layers} x {width}, {trainable} trainable",
        "batch": samples,
    }
