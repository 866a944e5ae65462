"""Which form of a fused operation runs, and kernels that import Triton at their first launch.

Every operation of this package has a plain torch form (`NAME_reference`) and a Triton form that must equal it. Triton
is imported when a kernel is first launched or compiled, so that the package works with torch alone.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from tnr_dist.util.errors import InputError

Choice = Literal["auto", "triton", "torch"]

# What `kernels=auto` takes on CUDA: the kernels that were measured to beat the plain form at the real sizes
# (`tnr bench kernels`, benchmarks/results/gpu-h200; docs/performance.md says where torch.compile would do better still).
# One without an entry counts as False.
AUTO: dict[str, bool] = {
    "distillation": True,
    "projection_mse": False,  # 0.33 ms against 0.31 at 9,000 news
    "additive_pooling": True,
    "additive_pooling_padded": False,  # 1.7 ms against 0.8 at 1,024 histories
    "ragged_attention": True,
    "gather_cast": True,
    "residual_norm": True,
    "linear_gelu": True,  # not measured yet; it is cuBLASLt's, not Triton's
}

_chosen: Choice = "auto"


@contextlib.contextmanager
def use_kernels(choice: Choice) -> Iterator[None]:
    """Within this context every operation that is not told otherwise runs as `choice` says.

    A stage enters it once, around all that it computes, backward passes included: activations that are computed again
    choose again. It holds for the whole process, not for one thread: autograd runs threads of its own.

    Raises:
        InputError: for an unknown choice.
    """
    global _chosen
    before, _chosen = _chosen, _known(choice)
    try:
        yield
    finally:
        _chosen = before


def _known(choice: Choice) -> Choice:
    if choice not in get_args(Choice):
        raise InputError(f"kernels={choice!r}: unknown; one of {', '.join(get_args(Choice))}")
    return choice


def chosen(kernels: Choice | None) -> Choice:
    """A call's own choice, or for None what `use_kernels` has set."""
    return _chosen if kernels is None else _known(kernels)


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

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., Any]:
        """The launcher for `grid`; an empty grid launches nothing (Triton refuses one)."""
        return self.jit[grid] if all(grid) else _nothing

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Only another kernel calls one, and that calls its Triton function."""
        raise TypeError(f"{self.__name__} is launched as {self.__name__}[grid](...)")


def _nothing(*_: Any, **__: Any) -> None:
    """The launch of an empty grid."""


def interpreted() -> bool:
    """Triton's kernels run in its interpreter, on CPU tensors: TRITON_INTERPRET=1 was set before the first launch.

    The interpreter multiplies bfloat16 values wrongly, so kernels widen the operands of their products there.
    """
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")


def use_triton(kernels: Choice | None, tensor: Tensor, name: str) -> bool:
    """Whether the Triton form of an operation is to run on `tensor`.

    Args:
        kernels: 'torch' for the plain form, 'triton' for the kernel, 'auto' for the kernel where it is known to win
            (`AUTO`) and can run; None as for `chosen`.
        tensor: one of the operation's inputs; tells device and dtype.
        name: the operation.

    Raises:
        InputError: for an unknown choice; for 'triton' where Triton is missing, on CPU tensors without the interpreter,
            or on float64, in which no kernel computes.
    """
    choice = chosen(kernels)
    if choice == "torch":
        return False
    if choice == "auto":
        return AUTO.get(name, False) and tensor.is_cuda and tensor.dtype != torch.float64 and _has_triton()
    if not _has_triton():
        raise InputError(
            f"kernels=triton: {name} needs Triton, which is not installed; pip install triton or kernels=torch"
        )
    if not tensor.is_cuda and not interpreted():
        raise InputError(
            f"kernels=triton: {name} got tensors on {tensor.device}, but Triton needs a CUDA device; kernels=auto or torch"
            " (TRITON_INTERPRET=1 runs kernels on the CPU, slowly, to test them)"
        )
    if tensor.dtype == torch.float64:
        raise InputError(f"kernels=triton: {name} got float64, but its kernel computes in float32; kernels=torch")
    return True


@functools.cache
def _has_triton() -> bool:
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def product_dtype(*operands: Tensor) -> torch.dtype:
    """The dtype in which an operation multiplies matrices, the same in both of its forms; sums are in float32.

    Autocast's where it is on; else the narrowest of the operands', so that a bfloat16 table is not widened for the sake
    of float32 weights.
    """
    device = operands[0].device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    narrowest = operands[0].dtype  # a loop, not min(key=...): torch.compile breaks its graph there
    for operand in operands[1:]:
        narrowest = operand.dtype if operand.dtype.itemsize < narrowest.itemsize else narrowest
    return narrowest


def product_precision() -> str:
    """How Triton multiplies float32 matrices: as torch is set to ('tf32' only where torch may use it too)."""
    return "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def power_of_two(n: int) -> int:
    """The smallest power of two >= n >= 1; the sides of Triton's blocks are such."""
    return 1 << (n - 1).bit_length()
