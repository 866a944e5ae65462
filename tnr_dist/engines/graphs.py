"""Forward and backward of a step as CUDA graphs: recorded once a shape, replayed without a launch by the host.

It pays where a step's kernels are short beside their launches: small batches, narrow or shallow students.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

_WARM_UP = 3
_MOST = 12  # graphs kept; a run meets a handful of shapes, and each graph keeps its activations


@runtime_checkable
class Recordable(Protocol):
    """Inputs of a module that differ from others of their shape in the values of their tensors only."""

    def shape_key(self) -> Hashable | None:
        """Equal for inputs that one recording can serve; None where none can."""

    def tensors(self) -> list[Tensor]:
        """All tensors, in an order of their own."""

    def with_tensors(self, tensors: list[Tensor]) -> Recordable:
        """The same inputs around other tensors."""


@dataclass
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: dict[str, Tensor]


class StepGraphs:
    """Records `module(inputs)` and the gradients of its loss, and replays them.

    Gradients are added to the parameters' `grad`, which must stay the same tensors: zero them in place.
    """

    def __init__(self, module: nn.Module, autocast: Callable[[], AbstractContextManager[object]]) -> None:
        self.module, self.autocast = module, autocast
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self._recordings: dict[Hashable, _Recording] = {}
        self._pool: torch.cuda._POOL_HANDLE | None = None

    @property
    def used(self) -> bool:
        """Whether anything was recorded: gradients must then be zeroed in place."""
        return bool(self._recordings)

    def run(self, inputs: Recordable) -> dict[str, Tensor] | None:
        """The module's outputs, without a graph of their own, gradients added; None where the step cannot be recorded."""
        key = inputs.shape_key()
        if key is None:
            return None
        if key not in self._recordings:
            if len(self._recordings) == _MOST:
                return None
            self._recordings[key] = self._record(inputs)
        recording = self._recordings[key]
        torch._foreach_copy_(recording.inputs, inputs.tensors())
        recording.graph.replay()
        # The next replay writes over the outputs.
        return {name: value.clone() for name, value in recording.outputs.items()}

    def _record(self, inputs: Recordable) -> _Recording:
        static = [tensor.clone() for tensor in inputs.tensors()]
        kept = inputs.with_tensors(static)
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad.clone() for parameter in self.parameters if parameter.grad is not None]
        random = torch.cuda.get_rng_state()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):  # compiles kernels and lets libraries choose theirs, which cannot be recorded
                self._step(kept)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # thread_local: the next batch is being pinned and copied by another thread, which must not end the recording.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = self._step(kept)
        self._pool = self._pool or graph.pool()
        # As if nothing had happened: what comes next is the first replay.
        torch.cuda.set_rng_state(random)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            assert parameter.grad is not None
            parameter.grad.copy_(gradient)
        return _Recording(graph, static, outputs)

    def _step(self, inputs: Recordable) -> dict[str, Tensor]:
        with self.autocast():
            parts: dict[str, Tensor] = self.module(inputs)
        parts["loss"].backward()
        return {name: value.detach() for name, value in parts.items()}
