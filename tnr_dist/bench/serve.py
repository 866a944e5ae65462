"""`tnr bench serve`: latency at batch 1 and throughput at 256 of what `tnr export` makes, teacher and students."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tnr_dist.bench.titles import encoder_of, random_titles
from tnr_dist.export.description import GRAPHS, INT8_GRAPH, PROGRAMS
from tnr_dist.export.measure import differences, latency, our_vectors
from tnr_dist.export.runtimes import PackedRuntime, Runtime, open_runtime
from tnr_dist.export.source import Source
from tnr_dist.models.recommender import ModelSpec, build_recommender, count_parameters
from tnr_dist.models.transformer import Encoder
from tnr_dist.stages.methods import Tree
from tnr_dist.util.errors import InputError
from tnr_dist.util.progress import say

_WIDTH = 384
_BATCHES = (1, 256)
_MIB = 2**20


def run(layers: str = "6,4,2,1", seconds: float = 3.0, news: int = 512, seed: int = 0) -> dict[str, Any]:
    """Rows for MiniLM (the teacher) and its students: each format at batch 1 and 256.

    Formats: `torch` is our packed model, `torch.export` and `onnx` the exported programs over padded batches of up to 32
    titles of similar length, each with its `precision`. A request is token ids in, vectors out, on the CPU with the
    process's threads; tokenising is not part of it. `max_difference` and `min_cosine` compare all vectors with those of
    our packed model in float32. `mib`: the news encoder's file.

    Args:
        layers: depths; the first is called the teacher.
        seconds: requests are made for so long, a row.
        news: titles that requests take in turn, of 16 tokens on average.
        seed: of the heads, which are random (the PLM's layers are MiniLM's own where they are installed).
    """
    try:
        depths = [int(part) for part in layers.split(",")]
    except ValueError:
        raise InputError(f"tnr bench serve: layers={layers!r}; expected numbers such as 6,4,2,1") from None
    titles = random_titles(news)
    rows: list[dict[str, Any]] = []
    for depth in depths:
        source = _source(encoder_of(_WIDTH, depth), seed)
        expected = our_vectors(source, titles.values, titles.offsets)
        name = f"{'teacher' if depth == depths[0] else 'student'}-{depth}"
        with tempfile.TemporaryDirectory() as folder:
            for form, precision, runtime, mib in _runtimes(source, Path(folder)):
                say(f"{name}: {form} {precision}")
                facts = differences(runtime.news(titles.values, titles.offsets), expected)
                for batch in _BATCHES:
                    rows.append(
                        {
                            "model": name,
                            "layers": depth,
                            "parameters": count_parameters(source.model.news_encoder),
                            "format": form,
                            "precision": precision,
                            "batch": batch,
                            **latency(runtime, titles.values, titles.offsets, batch, seconds),
                            **facts,
                            "mib": mib,
                        }
                    )
    found: dict[str, Any] = {"rows": rows, "news": news, "tokens_per_news": len(titles.values) / news}
    if _has_onnx():
        found["onnxruntime"] = importlib.metadata.version("onnxruntime")
    return found


def _source(encoder: Encoder, seed: int) -> Source:
    """A recommender around `encoder`, as if it had been trained; it is only traced, so it needs no tokenizer."""
    torch.manual_seed(seed)
    spec = ModelSpec(encoder.config)
    model = build_recommender(spec, encoder).eval().requires_grad_(False)
    return Source("bench", model, spec, None, Tree(), {}, {}, None)  # type: ignore[arg-type]


def _runtimes(source: Source, folder: Path) -> Iterator[tuple[str, str, Runtime, float | None]]:
    """(format, precision, runtime, size in MiB of its file) of all that can run here.

    bf16 comes last: it changes the model.
    """
    from tnr_dist.export import program

    program.write(source, folder)
    threads = torch.get_num_threads()
    yield "torch", "fp32", PackedRuntime(source.model), None
    description = source.describe("torch.export")
    yield (
        "torch.export",
        "fp32",
        open_runtime(folder, description, trust=True),
        (folder / PROGRAMS[0]).stat().st_size / _MIB,
    )
    if _has_onnx():
        from tnr_dist.export import onnx

        onnx.write(source, folder)
        description = source.describe("onnx")
        for precision, name in (("fp32", GRAPHS[0]), ("int8", INT8_GRAPH)):
            runtime = open_runtime(folder, description, quantised=precision == "int8", threads=threads)
            yield "onnx", precision, runtime, (folder / name).stat().st_size / _MIB
    else:
        say("tnr bench serve: no rows of onnx: pip install 'tnr_dist[export]'")
    yield "torch", "bf16", PackedRuntime(source.model, bf16=True), None


def _has_onnx() -> bool:
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))
