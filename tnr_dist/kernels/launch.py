"""Triton kernels that import Triton at their first launch, so that the package works with torch alone."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import torch

Options = dict[str, Any]  # a kernel's compile-time arguments, and its warps and stages


class Kernel:
    """A Triton kernel that is handed to `triton.jit` when first used; `kernel[grid](...)` launches it.

    The module of the kernel sees Triton's language as `tl` from then on, and as functions of Triton those `Kernel`s that
    this one calls.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function
        self.__name__, self.__doc__ = function.__name__, function.__doc__

    @functools.cached_property
    def jit(self) -> Any:
        """The compiled (or, with TRITON_INTERPRET=1, interpreted) function; its launcher is `jit[grid]`."""
        import triton
        import triton.language

        names = self.function.__globals__
        names["tl"] = triton.language
        for name in self.function.__code__.co_names:
            if isinstance(names.get(name), Kernel):
                names[name] = names[name].jit
        return triton.jit(self.function)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        """The launcher for `grid`; an empty grid launches nothing (Triton refuses one)."""
        launcher: Callable[..., None] = self.jit[grid] if all(grid) else _nothing
        return launcher

    def __call__(self, *_: object, **__: object) -> Any:
        """Only another kernel calls one, and that calls its Triton function."""
        raise TypeError(f"{self.__name__} is launched as {self.__name__}[grid](...)")


def _nothing(*_: object, **__: object) -> None:
    """The launch of an empty grid."""


def interpreted() -> bool:
    """Triton's kernels run in its interpreter, on CPU tensors: TRITON_INTERPRET=1 was set before the first launch.

    The interpreter multiplies bfloat16 values wrongly, so kernels widen the operands of their products there.
    """
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


def product_precision() -> str:
    """How Triton multiplies float32 matrices: as torch is set to ('tf32' only where torch may use it too)."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def power_of_two(n: int) -> int:
    """The smallest power of two >= n >= 1; the sides of Triton's blocks are such."""
    return 1 << (n - 1).bit_length()
