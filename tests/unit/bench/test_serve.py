"""`tnr bench serve`: its rows, on a tiny model."""

from __future__ import annotations

import pytest

from tests.lanes import missing
from tnr_dist.bench import serve
from tnr_dist.bench.common import NAMES
from tnr_dist.errors import InputError
from tnr_dist.models.transformer import Encoder, EncoderConfig, encoder_from_config


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    def encoder_of(width: int, layers: int) -> Encoder:
        return encoder_from_config(EncoderConfig(30_522, 16, layers, 2, 32, 64))

    monkeypatch.setattr(serve, "encoder_of", encoder_of)


def test_rows_without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_has_onnx", lambda: False)
    found = serve.run(layers="2,1", seconds=0.02, news=9)
    rows = found["rows"]
    formats = [("torch", "fp32"), ("torch.export", "fp32"), ("torch", "bf16")]
    assert [(row["model"], row["format"], row["precision"], row["batch"]) for row in rows] == [
        (model, *form, batch) for model in ("teacher-2", "student-1") for form in formats for batch in (1, 256)
    ]
    for row in rows:
        assert 0 < row["p50_ms"] <= row["p99_ms"] and row["news_per_s"] > 0
        assert row["max_difference"] < (1e-4 if row["precision"] == "fp32" else 0.1)
    assert rows[0]["max_difference"] == 0 and rows[-1]["max_difference"] > 0


@pytest.mark.slow
def test_rows_of_onnx() -> None:
    if not serve._has_onnx():
        missing("onnx, onnxruntime or onnxscript is not installed: pip install 'tnr_dist[export]'")
    rows = serve.run(layers="1", seconds=0.02, news=9)["rows"]
    assert {(row["format"], row["precision"]) for row in rows} >= {("onnx", "fp32"), ("onnx", "int8")}
    by_precision = {row["precision"]: row for row in rows if row["format"] == "onnx"}
    assert by_precision["fp32"]["max_difference"] < 1e-4 < by_precision["int8"]["max_difference"] < 0.1
    assert by_precision["int8"]["mib"] < by_precision["fp32"]["mib"]


def test_layers_that_are_no_numbers() -> None:
    with pytest.raises(InputError, match="6,4,2,1"):
        serve.run(layers="six")


def test_is_listed() -> None:
    assert "serve" in NAMES
