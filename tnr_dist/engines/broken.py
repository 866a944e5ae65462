"""Errors of libraries that send messages: which of them say that another rank, or the way to it, is gone."""

from __future__ import annotations

import re

import torch.distributed as dist

_GLOO = re.compile(r"gloo/(transport|rendezvous|context|common)|Connection (closed|reset) by peer|Application timeout")
_PLACE = re.compile(r"^\[[^\]]*\.(cc|cpp|h):\d+\]\s*")  # the line of a library's source that gloo begins with


def is_broken(error: BaseException) -> bool:
    """Whether an error means that a message to or from another rank did not get through (gloo, NCCL, Horovod)."""
    return (
        isinstance(error, dist.DistError)
        or type(error).__name__ == "HorovodInternalError"
        or (isinstance(error, RuntimeError) and _GLOO.search(str(error)) is not None)
    )


def reason(error: BaseException) -> str:
    """What such an error says first, without the place in the library's source."""
    lines = str(error).strip().splitlines()
    text = _PLACE.sub("", lines[0]) if lines else ""
    return text.split(". ")[0] or type(error).__name__  # what gloo adds is advice, and a joke
