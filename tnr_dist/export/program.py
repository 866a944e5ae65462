"""`torch.export`: news and user encoder as .pt2 programs with dynamic shapes, which need torch alone."""

from __future__ import annotations

from pathlib import Path

import torch

from tnr_dist.export.description import PROGRAMS
from tnr_dist.export.padded import Graph, news_graph, user_graph
from tnr_dist.export.source import Source


def write(source: Source, folder: Path) -> None:
    """Write both programs into `folder`; their inputs and outputs are those of `padded.news_graph` and `user_graph`."""
    for graph, name in zip((news_graph(source), user_graph(source)), PROGRAMS, strict=True):
        _write(graph, folder / name)


def _write(graph: Graph, path: Path) -> None:
    with torch.no_grad():
        program = torch.export.export(graph.module, graph.sample, dynamic_shapes=graph.shapes, strict=False)
    torch.export.save(program, path)
