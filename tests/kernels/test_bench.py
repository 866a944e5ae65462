"""Rows of `tnr bench kernels` and `tnr bench inference`: their keys, and what becomes of a form that cannot run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tnr_dist.bench import inference, kernels, matching
from tnr_dist.kernels.dispatch import Choice, use_kernels, use_triton
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.transformer import Encoder, encoder_from_config


def _case(broken: str = "") -> kernels.Case:
    def call(form: Choice, x: Tensor) -> Tensor:
        if form == broken:
            raise RuntimeError("does not fit\nat all")
        return x * 2

    return kernels.Case("double", "N=3", "float32", (torch.ones(3, requires_grad=True),), call)


@pytest.fixture(autouse=True)
def _nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


def test_a_row_on_the_cpu_has_no_time_of_the_kernel() -> None:
    row = kernels._row(_case(), torch.device("cpu"), 2)
    assert list(row) == ["kernel", "shape", "dtype", "ms", "torch_ms", "compiled_ms", "max_error"]
    assert row["ms"] is None and row["max_error"] is None
    assert row["torch_ms"] > 0 and row["compiled_ms"] > 0


def test_a_form_that_fails_leaves_its_error() -> None:
    row = kernels._row(_case(broken="torch"), torch.device("cpu"), 2)
    assert row["torch_ms"] is None and row["error"].startswith("compiled_ms: RuntimeError: does not fit")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    def encoder_of(width: int, layers: int) -> Encoder:
        return encoder_from_config(
            EncoderConfig(
                vocab_size=30_522, hidden=width // 24, layers=layers, heads=2, intermediate=32, max_positions=512
            )
        )

    monkeypatch.setattr(inference, "encoder_of", encoder_of)
    monkeypatch.setattr(inference, "matmul_tflops", lambda: 2.0)


def test_inference_has_a_row_for_every_depth_and_width(tiny: None) -> None:
    found = inference.run(news=9, repeats=1)
    rows: list[dict[str, Any]] = found["rows"]
    assert [(row["width"], row["layers"]) for row in rows] == [(w, n) for w in (768, 384) for n in (12, 4, 2, 1)]
    for row in rows:
        assert row["mfu"] > 0 and row["parameters"] > 0 and row["compiled_form"] in ("sorted", "padded")
        for other in ("padded_fp32", "sorted_bf16", "compiled_bf16"):
            assert row[f"ratio_{other}"] == pytest.approx(row["news_per_s"] / row[f"{other}_news_per_s"])
    assert rows[0]["speedup"] == rows[4]["speedup"] == 1.0
    bodies: list[dict[str, Any]] = found["bodies"]
    assert [(row["width"], row["layers"]) for row in bodies] == [(w, n) for w in (768, 384) for n in (12, 4)]
    assert all(row.keys() == rows[0].keys() - {"compiled_bf16_news_per_s", "ratio_compiled_bf16"} for row in bodies)
    assert 30 <= found["tokens_per_body"] <= 512
    assert found["matmul_tflops"] == 2.0 and found["news"] == 9


def test_inference_takes_the_kernels_it_is_told(
    tiny: None, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    original = inference.packed_pass

    def packed_pass(*arguments: Any) -> Any:
        work = original(*arguments)

        def run() -> None:
            seen.add(use_triton(None, torch.zeros(1, device=device), "additive_pooling"))
            with use_kernels("torch"):
                work()

        return run

    monkeypatch.setattr(inference, "packed_pass", packed_pass)
    inference.run(news=2, repeats=1, compiled=False, kernels="triton")
    assert seen == {True}


def test_a_step_of_each_matching_stage(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "encoder_of", inference.encoder_of)
    monkeypatch.setattr(matching, "matmul_tflops", lambda: 2.0)
    found = matching.run(samples=3, layers=4, student=1, negatives=2, repeats=1)
    assert found["batch"] == 3 and found["titles"] == 9 and found["flops_utilisation"] > 0
    for name in ("post_train", "stage1", "stage1_with_teacher"):
        assert found[f"{name}_samples_per_s"] > 0 and found[f"{name}_cpu_seconds"] > 0
