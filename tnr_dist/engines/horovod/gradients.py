"""The sum of gradients over ranks by Horovod, in buckets that are sent while backward still runs."""

from __future__ import annotations

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_BUCKET_BYTES = 16 << 20


class GradientSum:
    """Sums the gradients of `parameters` over ranks.

    Horovod itself would fuse whatever happens to be ready, and with three ranks or more the order of a sum depends on a
    value's place in the buffer: two runs would differ in the last bit. Here buckets are fixed (and its fusion is off).

    A parameter without a gradient on this rank counts as 0.
    """

    def __init__(self, hvd: Any, parameters: list[nn.Parameter], compression: str) -> None:
        self.sending = True  # off in all but a step's last micro-batch
        self._codec = _CODECS[compression](hvd)
        self._buckets = _buckets(parameters)
        self._bucket_of = {p: number for number, bucket in enumerate(self._buckets) for p in bucket}
        self._hooks = [p.register_post_accumulate_grad_hook(self._ready) for p in parameters]
        self._handles: list[Any] = []
        self._reset()

    def wait(self) -> None:
        """Send what is left, wait for all, and put the sums in the parameters' gradients."""
        for number in range(len(self._buckets)):
            self._send(number)
        handles = [self._codec.between(handle, f"gradients.{n}") for n, handle in enumerate(self._handles)]
        for bucket, handle in zip(self._buckets, handles, strict=True):
            parts = self._codec.receive(handle).split([p.numel() for p in bucket])
            for parameter, part in zip(bucket, parts, strict=True):
                parameter.grad = part.view_as(parameter)
        self._reset()

    def remove(self) -> None:
        """Leave the parameters as they were."""
        for hook in self._hooks:
            hook.remove()

    def _reset(self) -> None:
        self._handles = [None] * len(self._buckets)
        self._missing = [len(bucket) for bucket in self._buckets]

    def _ready(self, parameter: Tensor) -> None:
        if not self.sending:
            return
        number = self._bucket_of[parameter]  # type: ignore[index]
        self._missing[number] -= 1
        if self._missing[number] == 0:
            self._send(number)

    def _send(self, number: int) -> None:
        if self._handles[number] is None:
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._buckets[number]]
            flat = torch.cat([grad.reshape(-1) for grad in grads])
            self._handles[number] = self._codec.send(flat, f"gradients.{number}")


def _buckets(parameters: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters in the order of backward, about 16 MiB together, of one dtype."""
    buckets: list[list[nn.Parameter]] = []
    size = 0
    for parameter in reversed(parameters):
        if not buckets or size >= _BUCKET_BYTES or buckets[-1][0].dtype != parameter.dtype:
            buckets.append([])
            size = 0
        buckets[-1].append(parameter)
        size += parameter.numel() * parameter.element_size()
    return buckets


class _Codec(Protocol):
    """How a bucket travels; the three steps of all buckets go side by side."""

    def __init__(self, hvd: Any) -> None: ...

    def send(self, flat: Tensor, name: str) -> Any:
        """Start."""

    def between(self, handle: Any, name: str) -> Any:
        """Wait for the first message and start a second, where there is one."""

    def receive(self, handle: Any) -> Tensor:
        """The sum, float32."""


class _Plain:
    """As they are."""

    def __init__(self, hvd: Any) -> None:
        self.hvd = hvd

    def send(self, flat: Tensor, name: str) -> Any:
        return self.hvd.allreduce_async_(flat, op=self.hvd.Sum, name=name)

    def between(self, handle: Any, name: str) -> Any:
        return handle

    def receive(self, handle: Any) -> Tensor:
        return self.hvd.synchronize(handle)


class _Half(_Plain):
    """As float16, in which Horovod also adds: half the bytes."""

    def send(self, flat: Tensor, name: str) -> Any:
        sent, restore = self.hvd.Compression.fp16.compress(flat)
        return super().send(sent, name), restore

    def receive(self, handle: Any) -> Tensor:
        handle, restore = handle
        return self.hvd.Compression.fp16.decompress(super().receive(handle), restore)


class _BFloat:
    """As bf16, which Horovod does not know: it carries the bytes, and the adding is done here, in float32.

    Each rank gets everybody's numbers for its own part (all-to-all), adds them, and sends the sums round (all-gather):
    the bytes of an all-reduce in bf16.
    """

    def __init__(self, hvd: Any) -> None:
        self.hvd = hvd

    def send(self, flat: Tensor, name: str) -> Any:
        world = self.hvd.size()
        padded = F.pad(flat, (0, -len(flat) % world)).to(torch.bfloat16)
        return self.hvd.alltoall_async(padded.view(torch.uint8), name=f"{name}.parts"), flat

    def between(self, handle: Any, name: str) -> Any:
        sent, flat = handle
        got = self.hvd.synchronize(sent)
        parts = (got[0] if isinstance(got, tuple) else got).view(torch.bfloat16).view(self.hvd.size(), -1)
        mine = parts.float().sum(0).to(torch.bfloat16)
        return self.hvd.allgather_async(mine.view(torch.uint8), name=f"{name}.sums"), flat

    def receive(self, handle: Any) -> Tensor:
        sent, flat = handle
        return self.hvd.synchronize(sent).view(torch.bfloat16)[: len(flat)].to(flat.dtype)


_CODECS: dict[str, type[_Codec]] = {"none": _Plain, "fp16": _Half, "bf16": _BFloat}
