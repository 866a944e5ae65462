"""The cost model counts as the program does, and its committed page is what it says of the committed results."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tnr_dist.bench import work
from tnr_dist.losses.stage2 import projection_mse
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.flops import news_encoder_flops
from tnr_dist.models.recommender import ModelSpec, build_recommender

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model():
    spec = importlib.util.spec_from_file_location("cost_model", ROOT / "benchmarks" / "cost_model.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_a_step_has_the_operations_that_training_counts(model):
    shape = model.Shape(4, 2, 48)
    encoder = build_recommender(ModelSpec(EncoderConfig(50, 48, 4, 4, 192, 32))).news_encoder
    encoder.encoder.freeze_below(2)
    lengths = np.full(300, model.TITLE_TOKENS)
    ours = work.trained(48, 2, 300, model.TITLE_TOKENS) + work.top(48, 300, model.TITLE_TOKENS)
    assert ours.flops == pytest.approx(news_encoder_flops(encoder, lengths, first=2), rel=5e-3)
    trains = sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    assert shape.trained_parameters == pytest.approx(trains + model.DIM * work.QUERY, rel=0.02)


def test_the_projections_have_the_operations_that_torch_counts(model):
    shape, batch, teachers = model.Shape(4, 2, 48), 8, 3
    rows = round(model.distinct(batch) * model.SLOTS * batch) + batch  # of news and of users
    weight = torch.randn(teachers, model.DIM, model.DIM, requires_grad=True)
    bias, student = (
        torch.zeros(teachers, model.DIM, requires_grad=True),
        torch.randn(rows, model.DIM, requires_grad=True),
    )
    vectors, share = torch.randn(rows, teachers, model.DIM), torch.rand(rows, teachers, requires_grad=True)
    with FlopCounterMode(display=False) as counted:
        projection_mse(vectors, weight, bias, student, share).backward()
    ours = model.step(shape, batch, teachers).flops - model.step(shape, batch).flops
    assert ours == pytest.approx(counted.get_total_flops(), rel=5e-3)


def test_distinct_titles_are_the_counted_ones(model):
    for batch, share in model.DISTINCT.items():
        assert model.distinct(batch) == share
    assert model.DISTINCT[512] > model.distinct(1024) > model.DISTINCT[2048]
    assert model.distinct(8) == model.DISTINCT[128] and model.distinct(10**6) == model.DISTINCT[2048]


def test_one_gpu_takes_what_was_measured_and_more_send_more(model):
    shape = model.Shape(4, 2, 768)
    found = [model.epoch(shape, 10_000.0, 1e6, ranks) for ranks in (1, 8, 64)]
    assert found[0]["epoch_s"] == pytest.approx(model.SAMPLES / 10_000.0) and found[0]["talk_s"] == 0
    assert [row["compute_s"] * row["ranks"] for row in found] == pytest.approx([found[0]["compute_s"]] * 3)
    assert found[0]["talk_s"] < found[1]["talk_s"] < found[2]["talk_s"]
    slow = model.epoch(shape, 10_000.0, 100.0, 8)  # a loader of 100 samples a second and rank
    assert slow["epoch_s"] == slow["loader_s"] == pytest.approx(model.SAMPLES / 800)


def test_the_page_has_every_stage_with_bytes_and_operations(model):
    found = json.loads((model.RESULTS / "cost-model.json").read_text())
    assert [row["ranks"] for row in found["epochs"]] == [1, 8, 64, 512]
    top = {"matmul_bf16_tflops": found["matmul_bf16_tflops"], "copy_gb_s": found["copy_gb_s"]}
    page = (model.RESULTS / "cost-model.md").read_text()
    for setup in model.setups(top):
        rows = model.roofline(setup)
        assert [row["stage"] for row in rows] == list(model.stages(setup)) and set(setup.measured) <= set(
            model.stages(setup)
        )
        assert all(row["pflop"] > 0 and row["tb"] > 0 for row in rows)
        assert all(row["share"] is None or 0 < row["share"] < 1 for row in rows)
        # Whoever commits another result writes the page again: benchmarks/cost_model.py --keep-ceilings.
        assert "\n".join(model.roofline_lines(setup)) in page
