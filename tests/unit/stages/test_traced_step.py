"""One stage-2 step on a CPU, from the loader's batch to the optimiser's update, runs through a dozen of our files at most.

Counted is every file of tnr_dist of which a function is entered, in the loop's thread or in the one that lays batches out
ahead, building blocks such as the encoder's layers among them.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

import tnr_dist
from tests.click_batches import WORDS, random_batch, random_titles
from tnr_dist.data.teacher_cache import TableRows, TeacherTables
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.kernels.dispatch import use_kernels
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.recommender import AttentionUserEncoder, NewsEncoder, Recommender
from tnr_dist.models.transformer import encoder_from_config
from tnr_dist.stages.parts.click_task import ClickTask, ClickTitles
from tnr_dist.stages.stage2 import Stage2Module
from tnr_dist.stages.stage2_settings import Stage2Config
from tnr_dist.train import loop

MOST = 12
ROOT = Path(tnr_dist.__file__).parent
M, D, B, L, C, NEWS = 2, 8, 6, 5, 4, 40


class Trace:
    """Files of tnr_dist, and the functions of each that were entered."""

    def __init__(self) -> None:
        self.entered: dict[str, set[str]] = {}

    def __enter__(self) -> Trace:
        threading.setprofile(self._see)
        sys.setprofile(self._see)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _see(self, frame: FrameType, event: str, _: Any) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(ROOT):
            name = frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name
            self.entered.setdefault(str(file.relative_to(ROOT)), set()).add(name)


def one_step(tmp_path: Path, frozen_cache: str, tables: bool, accumulate: int, relative: bool) -> Trace:
    """Two steps as the loop takes them; the trace of the second."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    config = EncoderConfig(WORDS, 16, 2, 2, 32, 16, relative_buckets=8 if relative else 0)
    student = Recommender(NewsEncoder(encoder_from_config(config).freeze_below(1), D), AttentionUserEncoder(D))
    settings = Stage2Config(frozen_cache=frozen_cache, accumulate=accumulate, clip_norm=1.0)
    engine = DDPEngine("cpu", 1)
    titles = ClickTitles(random_titles(rng, NEWS, 8), 8, student.news_encoder, settings, engine, tmp_path)
    batches = [random_batch(rng, B, L, C, NEWS, M, D) for _ in range(2)]
    held = TeacherTables(torch.randn(9, M, D), torch.randn(30, M), TableRows({})) if tables else None
    for batch in batches if tables else []:
        batch["teacher_users"], batch["teacher_logits"] = rng.integers(0, 9, B), rng.integers(0, 30, (B, C))
    module = Stage2Module(student, torch.randn(NEWS, M, D), settings, D, held)
    task = ClickTask(student, module, titles, None, settings, 0, "stage2")  # type: ignore[arg-type]
    engine.setup(module, lambda m: loop.make_optimizer(task, m), precision="fp32", clip_norm=settings.clip_norm)
    task.begin(engine)
    engine.module.train()
    before = [p.detach().clone() for p in module.parameters() if p.requires_grad]

    def steps(given: list[dict[str, np.ndarray]]) -> Iterator[float]:
        for step, (_, pieces) in enumerate(loop._inputs(task, iter(given), engine.device)):
            parts, norm, texts = loop.train_step(engine, task, pieces, step, 2)
            assert len(texts) == accumulate and float(norm) > 0
            yield float(parts["loss"])

    with use_kernels("torch"):
        list(steps(batches[:1]))
        with Trace() as trace:
            losses = list(steps(batches[1:]))
    after = [p for p in module.parameters() if p.requires_grad]
    assert losses[0] > 0 and any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    return trace


@pytest.mark.parametrize(
    ("frozen_cache", "tables", "accumulate", "relative"),
    [("device", True, 1, False), ("none", False, 2, True), ("disk", False, 1, False)],
)
def test_a_step_stays_within_a_dozen_files(tmp_path, frozen_cache, tables, accumulate, relative):
    entered = one_step(tmp_path, frozen_cache, tables, accumulate, relative).entered
    # What the step is made of was seen: nothing here is satisfied by a trace that saw nothing.
    assert "train_step" in entered["train/loop.py"] and "stage2_loss" in entered["losses/stage2.py"]
    assert "EngineCore.step" in entered["engines/core.py"]
    assert "ClickTitles.inputs" in entered["stages/parts/click_task.py"]
    assert "run_ahead" in entered["util/transfer.py"] and "Layer.forward" in entered["models/transformer.py"]
    assert len(entered) <= MOST, "\n".join(f"{file}: {', '.join(sorted(names))}" for file, names in entered.items())
