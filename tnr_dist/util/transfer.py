"""From the host to the device ahead of the step: arrays as tensors, and work done in a thread of its own."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")
B = TypeVar("B")
I = TypeVar("I")  # noqa: E741  (inputs)
_AHEAD = 2  # batches that are on the device before they are needed


def to_device(values: np.ndarray | Tensor, device: torch.device | str) -> Tensor:
    """Host values on the device; pinned on the way to a GPU: a copy from pageable memory may wait for what runs there."""
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.ascontiguousarray(values))
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def to_stored(values: Tensor, dtype: str) -> np.ndarray:
    """Float32 values as they are stored: uint16 bit patterns of bf16 (rounded to nearest), or float32."""
    values = values.detach().float().cpu()
    if dtype == "bf16":
        return values.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    return values.numpy()


def from_stored(values: np.ndarray) -> Tensor:
    """The inverse of `to_stored`; bf16 stays bf16."""
    if values.dtype == np.uint16:
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(values)


def run_ahead(make: Callable[[], Iterator[T]], ahead: int, name: str) -> Generator[T]:
    """Run the iterator that `make` returns in a thread, at most `ahead` items before the consumer.

    Errors arrive where the item would have; closing the generator ends the thread.
    """
    # An item, the error that ended them, or None at their end.
    items: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(item: tuple[T] | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                items.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def run() -> None:
        try:
            made = make()
            try:
                for item in made:
                    if not put((item,)):
                        return
            finally:
                if isinstance(made, Generator):
                    made.close()
            put(None)
        except BaseException as error:  # handed to the consumer, whatever it is
            put(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        while True:
            item = items.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                return
            yield item[0]
    finally:
        stop.set()
        thread.join()


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


def replace_tensors(value: T, tensors: Iterator[Tensor]) -> T:
    """The same structure around other tensors, which are taken in the order of `tensors_of`."""
    return cast(T, _replaced(value, tensors))


def _replaced(value: object, tensors: Iterator[Tensor]) -> object:
    if isinstance(value, Tensor):
        return next(tensors)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **{name: _replaced(part, tensors) for name, part in parts.items()})
    if isinstance(value, dict):
        return {name: _replaced(part, tensors) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_replaced(part, tensors) for part in value)
    return value


def tensors_of(value: object) -> Iterator[Tensor]:
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
