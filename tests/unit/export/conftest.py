"""A finished run of a tiny model, and its exports, each made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tnr_dist.data.manifest import manifest_hash
from tnr_dist.export.command import export
from tnr_dist.export.measure import our_vectors
from tnr_dist.export.source import Source
from tnr_dist.util.files import write_json

from .cases import TITLES, need, write_run


@pytest.fixture(scope="session")
def run(tiny_plm: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("export") / "student", tiny_plm, prepared)
    made_from = {"run": "abc", "data": manifest_hash(prepared), "split": "dev"}
    results = {"split": "dev", "auc": 0.7021, "impressions": 150, "seed": 3, "made_from": made_from}
    write_json(folder / "results.json", results)
    return folder


@pytest.fixture(scope="session")
def source(run: Path) -> Source:
    return Source.open(run)


@pytest.fixture(scope="session")
def exports(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The export of a format, made when first asked for."""
    out = tmp_path_factory.mktemp("exports")

    def of(form: str) -> Path:
        need(*{"onnx": ("onnx", "onnxruntime", "onnxscript"), "vectors": ("faiss",)}.get(form, ()))
        return export(run, [form], out, speed=False)[0]

    return of


@pytest.fixture(scope="session")
def expected(source: Source) -> np.ndarray:
    """Vectors of TITLES by the run's own model."""
    return our_vectors(source, *source.tokenizer.encode_batch(TITLES, source.title_tokens))
