"""`onnx`: the news and the user encoder as ONNX graphs with dynamic shapes, and the news encoder in INT8."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from tnr_dist.export.description import GRAPHS, INT8_GRAPH
from tnr_dist.export.padded import Graph, news_graph, user_graph
from tnr_dist.export.source import Source

_OPSET = 20  # the first with a Gelu of its own


def write(source: Source, folder: Path) -> None:
    """Write the graphs into `folder`.

    news_encoder.onnx, news_encoder.int8.onnx: input_ids, attention_mask [batch, length] int64 -> news_vector [batch, D].
    user_encoder.onnx: history [batch, length, D] float32, mask [batch, length] bool -> user_vector [batch, D].
    """
    with _quiet():
        for graph, name in zip((news_graph(source), user_graph(source)), GRAPHS, strict=True):
            _write(graph, folder / name)
        _quantise(folder / GRAPHS[0], folder / INT8_GRAPH)


def _write(graph: Graph, path: Path) -> None:
    torch.onnx.export(
        graph.module,
        graph.sample,
        path,
        input_names=list(graph.shapes),
        output_names=[graph.output],
        dynamic_shapes=graph.shapes,
        opset_version=_OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _quantise(path: Path, out: Path) -> None:
    """Dynamic quantisation: 8-bit weights of matrix products (one scale a column) and tables; activations as they come.

    The products' weights keep to 7 bits, which costs no accuracy that could be measured: with 8, processors without VNNI
    instructions overflow silently.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(path)
    # The quantiser turns Gemm's weights round, and then stumbles over the shapes that the exporter noted.
    model.graph.ClearField("value_info")
    quantize_dynamic(
        model,
        out,
        op_types_to_quantize=["MatMul", "Gemm", "Gather"],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Neither exporter nor quantiser can be told to print nothing: stdout is kept for results."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
