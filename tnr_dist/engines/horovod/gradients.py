"""The sum of gradients over ranks by Horovod, in buckets that are sent while backward still runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import ModuleType
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

_BUCKET_BYTES = 16 << 20


class GradientSum:
    """Sums the gradients of `parameters` over ranks.

    Horovod itself would fuse whatever happens to be ready, and with three ranks or more the order of a sum depends on a
    value's place in the buffer: two runs would differ in the last bit. Here buckets are fixed (and its fusion is off).

    A parameter without a gradient on this rank counts as 0.
    """

    def __init__(self, hvd: ModuleType, parameters: list[nn.Parameter], compression: str) -> None:
        self.sending = True  # off in all but a step's last micro-batch
        self._codec = _CODECS[compression](hvd)
        self._buckets = _buckets(parameters)
        self._bucket_of = {p: number for number, bucket in enumerate(self._buckets) for p in bucket}
        self._hooks = [p.register_post_accumulate_grad_hook(self._ready) for p in parameters]
        self._handles: list[_Sent | None] = []
        self._reset()

    def wait(self) -> None:
        """Send what is left, wait for all, and put the sums in the parameters' gradients."""
        for number in range(len(self._buckets)):
            self._send(number)
        sent = [self._codec.between(one, f"gradients.{n}") for n, one in enumerate(self._handles) if one is not None]
        for bucket, one in zip(self._buckets, sent, strict=True):
            parts = self._codec.receive(one).split([p.numel() for p in bucket])
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


@dataclass(frozen=True)
class _Sent:
    """A message on its way: Horovod's handle, the bucket's gradients, and what Horovod's compression restores them by."""

    handle: int
    flat: Tensor
    restore: object = None


class _Codec(Protocol):
    """How a bucket travels; the three steps of all buckets go side by side."""

    def __init__(self, hvd: ModuleType) -> None: ...

    def send(self, flat: Tensor, name: str) -> _Sent:
        """Start."""

    def between(self, sent: _Sent, name: str) -> _Sent:
        """Wait for the first message and start a second, where there is one."""

    def receive(self, sent: _Sent) -> Tensor:
        """The sum, float32."""


class _Plain(_Codec):
    """As they are."""

    def __init__(self, hvd: ModuleType) -> None:
        self.hvd = hvd

    @override
    def send(self, flat: Tensor, name: str) -> _Sent:
        return _Sent(self.hvd.allreduce_async_(flat, op=self.hvd.Sum, name=name), flat)

    @override
    def between(self, sent: _Sent, name: str) -> _Sent:
        return sent

    @override
    def receive(self, sent: _Sent) -> Tensor:
        summed: Tensor = self.hvd.synchronize(sent.handle)
        return summed


class _Half(_Plain):
    """As float16, in which Horovod also adds: half the bytes."""

    @override
    def send(self, flat: Tensor, name: str) -> _Sent:
        half, restore = self.hvd.Compression.fp16.compress(flat)
        return replace(super().send(half, name), restore=restore)

    @override
    def receive(self, sent: _Sent) -> Tensor:
        restored: Tensor = self.hvd.Compression.fp16.decompress(super().receive(sent), sent.restore)
        return restored


class _BFloat(_Codec):
    """As bf16, which Horovod does not know: it carries the bytes, and the adding is done here, in float32.

    Each rank gets everybody's numbers for its own part (all-to-all), adds them, and sends the sums round (all-gather):
    the bytes of an all-reduce in bf16.
    """

    def __init__(self, hvd: ModuleType) -> None:
        self.hvd = hvd

    @override
    def send(self, flat: Tensor, name: str) -> _Sent:
        world = self.hvd.size()
        padded = F.pad(flat, (0, -len(flat) % world)).to(torch.bfloat16)
        return _Sent(self.hvd.alltoall_async(padded.view(torch.uint8), name=f"{name}.parts"), flat)

    @override
    def between(self, sent: _Sent, name: str) -> _Sent:
        got = self.hvd.synchronize(sent.handle)
        parts = (got[0] if isinstance(got, tuple) else got).view(torch.bfloat16).view(self.hvd.size(), -1)
        mine = parts.float().sum(0).to(torch.bfloat16)
        return replace(sent, handle=self.hvd.allgather_async(mine.view(torch.uint8), name=f"{name}.sums"))

    @override
    def receive(self, sent: _Sent) -> Tensor:
        flat = sent.flat
        summed: Tensor = self.hvd.synchronize(sent.handle).view(torch.bfloat16)[: len(flat)].to(flat.dtype)
        return summed


_CODECS: dict[str, type[_Codec]] = {"none": _Plain, "fp16": _Half, "bf16": _BFloat}
