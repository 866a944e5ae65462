"""`tnr bench matching`: a step of post-training and of stage 1 on titles and bodies of news, as the training loop takes it."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tnr_dist.bench.encoding import device, matmul_tflops
from tnr_dist.bench.titles import BODY, encoder_of, random_bodies, random_titles, synchronise
from tnr_dist.engines.ddp import DDPEngine
from tnr_dist.models.packed import Packed
from tnr_dist.models.recommender import Matcher, NewsEncoder
from tnr_dist.stages.parts.start_models import freeze
from tnr_dist.stages.post_train import MatchingInputs, MatchingModule, matching_texts
from tnr_dist.stages.post_train_settings import PostTrainConfig
from tnr_dist.stages.stage1 import Stage1Inputs, Stage1Module, Teachers
from tnr_dist.stages.stage1_settings import Stage1Config

_DIM = 256
_STEPS = {"cpu": 1, "cuda": 10}  # between two looks at the clock


def run(
    samples: int = 32, layers: int = 6, student: int = 2, width: int = 384, negatives: int = 9, repeats: int = 3
) -> dict[str, Any]:
    """Samples a second of three steps in bf16, best of `repeats`; a sample is a body with its title and N others.

    `post_train_samples_per_s`: the whole PLM, its last 3 layers trained. `stage1_samples_per_s`: a student whose last 2
    layers train, on kept vectors of the teacher; `stage1_with_teacher_samples_per_s`: with the teacher in every step.
    `flops_utilisation` is post-training's, over `matmul_tflops`, measured beside it. `*_cpu_seconds` are those of a step,
    of all threads: they hardly depend on what else the machine does.
    """
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    engine = DDPEngine("auto", torch.get_num_threads())
    engine.use_precision("bf16")
    bodies, titles = random_bodies(samples), random_titles(samples * (1 + negatives))
    inputs = MatchingInputs(
        Packed.gather(bodies.values, bodies.offsets, np.arange(len(bodies)), BODY).to(engine.device),
        Packed.gather(titles.values, titles.offsets, np.arange(len(titles))).to(engine.device),
        torch.from_numpy(rng.permutation(len(titles)).reshape(samples, -1)).to(engine.device),
        torch.ones(samples, device=engine.device),
        float(samples),
    )
    kept = Teachers(torch.randn(samples, 1, _DIM), torch.randn(samples, 1, 1 + negatives, _DIM))
    kept = Teachers(kept.bodies.to(engine.device), kept.titles.to(engine.device))
    teacher = NewsEncoder(encoder_of(width, layers), _DIM).to(engine.device)
    freeze(teacher, PostTrainConfig(), engine)
    found: dict[str, Any] = {"batch": samples, "titles": len(titles)}
    module: torch.nn.Module = MatchingModule(Matcher(teacher))
    found |= _measured("post_train", module, inputs, engine, repeats)
    flops = sum(text.flops() for text in matching_texts(teacher, inputs))  # before the teacher is frozen
    student_encoder = NewsEncoder(encoder_of(width, student), _DIM)
    freeze(student_encoder, Stage1Config(), engine)
    stage1 = Stage1Module(Matcher(student_encoder), Stage1Config())
    found |= _measured("stage1", stage1, Stage1Inputs(inputs, kept), engine, repeats)
    stage1.teachers = [Matcher(teacher.eval().requires_grad_(False))]
    found |= _measured("stage1_with_teacher", stage1, Stage1Inputs(inputs, None), engine, repeats)
    ceiling = matmul_tflops()
    return found | {
        "model": f"BERT {layers} x {width}, student of {student}",
        "tokens_per_body": len(bodies.values) / len(bodies),
        "tokens_per_title": len(titles.values) / len(titles),
        "matmul_tflops": ceiling,
        "flops_utilisation": flops * found["post_train_samples_per_s"] / samples / (ceiling * 1e12),
    }


def _measured(name: str, module: torch.nn.Module, inputs: Any, engine: DDPEngine, repeats: int) -> dict[str, float]:
    module = module.to(engine.device).train()
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], 0.0, fused=True)
    steps = _STEPS[device().type]

    def step() -> None:
        for _ in range(steps):
            with engine.autocast():
                loss = module(inputs)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        float(loss.detach())

    step()
    best, cpu = float("inf"), float("inf")
    for _ in range(repeats):
        seconds, used = _timed(step)
        best, cpu = min(best, seconds / steps), min(cpu, used / steps)
    batch = inputs.batch if isinstance(inputs, Stage1Inputs) else inputs
    return {f"{name}_samples_per_s": batch.count / best, f"{name}_cpu_seconds": cpu}


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """Wall clock and processor time of a call, in seconds."""
    synchronise()
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    work()
    synchronise()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
