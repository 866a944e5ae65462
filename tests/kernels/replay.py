"""A stand-in for CUDA graphs on a CPU: records the operations of a step, and replays them on the memory they used.

What a graph cannot do is refused while recording, as CUDA refuses it: reading a value on the host, output sizes that
depend on values, and memory made on the host. All else that Python did is not done again by a replay, so that a number
taken from the recorded batch's lengths would show in the next batch's gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from tnr_dist.engines import graphs
from tnr_dist.kernels.launch import Kernel

aten = torch.ops.aten
_REFUSED = {
    aten._local_scalar_dense: "a value is read on the host",
    aten.nonzero: "the output's size depends on values",
    aten.masked_select: "the output's size depends on values",
    aten._unique2: "the output's size depends on values",
    aten.repeat_interleave: "the output's size depends on values",
    aten.lift_fresh: "a tensor is made from the host's memory",
}


class Graph:
    """`torch.cuda.CUDAGraph`: a list of calls and the tensors they left their results in."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    def pool(self) -> object:
        """Memory is not shared between these graphs."""
        return None

    @torch.no_grad()
    def replay(self) -> None:
        """Do it all again, results into the same memory."""
        self.replays += 1
        for function, args, kwargs, results in self.calls:
            again = function(*args, **kwargs)
            for new, old in zip(tensors(again), results, strict=True):
                if old is not None and new.untyped_storage().data_ptr() != old.untyped_storage().data_ptr():
                    old.copy_(new)


def tensors(value: Any) -> list[Tensor]:
    """All tensors of nested arguments."""
    return [part for part in tree_flatten(value)[0] if isinstance(part, Tensor)]


class Recorder(TorchDispatchMode):
    """Adds what runs inside to a graph."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph, self.paused = graph, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        why = _REFUSED.get(func.overloadpacket)
        if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_):
            masks = [part for part in tensors(args[1]) if part.dtype in (torch.bool, torch.uint8)]
            why = "the output's size depends on values" if masks else None
        if why:
            raise RuntimeError(f"{func}: {why}, while a graph is recorded")
        given = {part.untyped_storage().data_ptr() for part in tensors((args, kwargs))}
        out = func(*args, **kwargs)
        # A view, or a change in place, has its memory already.
        kept = [None if part.untyped_storage().data_ptr() in given else part.detach() for part in tensors(out)]
        if func.overloadpacket not in (aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty):
            self.graph.calls.append((func, args, kwargs, kept))
        return out

    def launch(self, launcher: Any, args: Any, kwargs: Any) -> None:
        """A Triton kernel: its interpreter's own operations are not recorded one by one."""
        self.paused = True
        launcher(*args, **kwargs)
        self.paused = False
        self.graph.calls.append((launcher, args, kwargs, []))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Lets `StepGraphs` work on CPU tensors; the graphs made."""
    made: list[Graph] = []
    recorders: list[Recorder] = []

    def graph() -> Graph:
        made.append(Graph())
        return made[-1]

    @contextlib.contextmanager
    def record(into: Graph, pool: object, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        recorders.append(Recorder(into))
        with recorders[-1]:
            yield
        recorders.pop()

    plain = Kernel.__getitem__

    def launcher(kernel: Kernel, grid: tuple[int, ...]) -> Any:
        launch = plain(kernel, grid)
        if not recorders:
            return launch
        return lambda *args, **kwargs: recorders[-1].launch(launch, args, kwargs)

    monkeypatch.setattr(Kernel, "__getitem__", launcher)
    stream = SimpleNamespace(wait_stream=lambda other: None)
    cuda = SimpleNamespace(
        CUDAGraph=graph,
        graph=record,
        Stream=lambda: stream,
        current_stream=lambda: stream,
        stream=lambda other: contextlib.nullcontext(),
        get_rng_state=torch.get_rng_state,
        set_rng_state=torch.set_rng_state,
    )
    monkeypatch.setattr(graphs, "_WARM_UP", 1)  # interpreted kernels are slow, and nothing is chosen or compiled here
    # Only what `graphs` itself sees: torch.cuda is asked for elsewhere whether there is a GPU.
    names = {name: getattr(torch, name) for name in ("zeros_like", "_foreach_copy_")}
    monkeypatch.setattr(graphs, "torch", SimpleNamespace(cuda=cuda, **names))
    return made
