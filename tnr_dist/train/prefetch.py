"""Batches on the device one step before they are needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

from tnr_dist.util.threads import run_ahead

B = TypeVar("B")
I = TypeVar("I")  # noqa: E741  (inputs)
_AHEAD = 2


def prefetch(batches: Iterator[B], to_device: Callable[[B], I], device: torch.device) -> Generator[tuple[B, I]]:
    """Yield every batch with its device inputs, made in a thread; on a GPU the copies have a stream of their own.

    `to_device` must not draw random numbers nor talk to other ranks: the thread has no place among their collectives.
    """
    if device.type != "cuda":
        yield from run_ahead(lambda: ((batch, to_device(batch)) for batch in batches), _AHEAD, "prefetch")
        return
    stream = torch.cuda.Stream(device)
    # Inputs are gathered from what was computed before the first step, such as the frozen layers' states.
    stream.wait_stream(torch.cuda.current_stream(device))

    def make() -> Iterator[tuple[B, I, torch.cuda.Event]]:
        with torch.cuda.stream(stream):
            for batch in batches:
                inputs, ready = to_device(batch), torch.cuda.Event()
                ready.record(stream)
                yield batch, inputs, ready

    for batch, inputs, ready in run_ahead(make, _AHEAD, "prefetch"):
        now = torch.cuda.current_stream(device)
        now.wait_event(ready)  # the device waits, the host does not
        for tensor in tensors_of(inputs):
            tensor.record_stream(now)
        yield batch, inputs


def replace_tensors(value: Any, tensors: Iterator[Tensor]) -> Any:
    """The same structure around other tensors, which are taken in the order of `tensors_of`."""
    if isinstance(value, Tensor):
        return next(tensors)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: replace_tensors(part, tensors) for name, part in parts.items()})
    if isinstance(value, dict):
        return {name: replace_tensors(part, tensors) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(replace_tensors(part, tensors) for part in value)
    return value


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors inside dataclasses, dicts and lists."""
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors_of(getattr(value, field.name))
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_of(item)
