"""`tnr bench serve`: its rows, on a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lanes import missing
from tnr_dist.bench import serve
from tnr_dist.bench.common import NAMES
from tnr_dist.export.runtimes import PackedRuntime, Runtime
from tnr_dist.export.source import Source
from tnr_dist.models.encoder_config import EncoderConfig
from tnr_dist.models.transformer import Encoder, encoder_from_config
from tnr_dist.util.errors import InputError


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    def encoder_of(width: int, layers: int) -> Encoder:
        return encoder_from_config(EncoderConfig(30_522, 16, layers, 2, 32, 64))

    monkeypatch.setattr(serve, "encoder_of", encoder_of)


def test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def packed_only(source: Source, folder: Path) -> Iterator[tuple[str, str, Runtime, float | None]]:
        yield "torch", "fp32", PackedRuntime(source.model), None
        yield "torch", "bf16", PackedRuntime(source.model, bf16=True), 1.5

    monkeypatch.setattr(serve, "_runtimes", packed_only)
    rows = serve.run(layers="2,1", seconds=0.02, news=9)["rows"]
    assert [(row["model"], row["precision"], row["batch"]) for row in rows] == [
        (model, precision, batch)
        for model in ("teacher-2", "student-1")
        for precision in ("fp32", "bf16")
        for batch in (1, 256)
    ]
    for row in rows:
        assert 0 < row["p50_ms"] <= row["p99_ms"] and row["news_per_s"] > 0
    assert rows[0]["max_difference"] == 0 and 0 < rows[-1]["max_difference"] < 0.1
    assert rows[0]["parameters"] > rows[-1]["parameters"]


@pytest.mark.slow
def test_formats() -> None:
    if not serve._has_onnx():
        missing("onnx, onnxruntime or onnxscript is not installed: pip install 'tnr_dist[export]'")
    rows = serve.run(layers="1", seconds=0.02, news=9)["rows"]
    found = {(row["format"], row["precision"]): row for row in rows}
    assert list(found) == [
        ("torch", "fp32"),
        ("torch.export", "fp32"),
        ("onnx", "fp32"),
        ("onnx", "int8"),
        ("torch", "bf16"),
    ]
    for (_, precision), row in found.items():
        assert row["max_difference"] < (1e-4 if precision == "fp32" else 0.1)
    assert found["onnx", "int8"]["max_difference"] > 1e-4
    assert found["onnx", "int8"]["mib"] < found["onnx", "fp32"]["mib"]


def test_layers_that_are_no_numbers() -> None:
    with pytest.raises(InputError, match="6,4,2,1"):
        serve.run(layers="six")


def test_is_listed() -> None:
    assert "serve" in NAMES
