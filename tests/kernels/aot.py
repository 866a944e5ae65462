"""Compile every kernel for sm_90 without a GPU and read what it needs from the binary: `python -m tests.kernels.aot`.

A kernel that keeps part of its registers in memory (spills) is many times slower, and nothing but this shows it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.kernels.aot_signatures import SIGNATURES
from tnr_dist.kernels.launch import interpreted
from tnr_dist.util.errors import InputError

#: Compute capability and threads of a warp of the target.
TARGET = (90, 32)
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


@dataclass(frozen=True)
class Report:
    """What one compiled kernel needs.

    Attributes:
        kernel: module and function.
        variant: its types, constants and warps.
        registers: per thread.
        stack: bytes of local memory per thread: 0 unless registers spill.
        shared: bytes of shared memory per block.
        seconds: time to compile (about 0 from Triton's cache).
    """

    kernel: str
    variant: str
    registers: int
    stack: int
    shared: int
    seconds: float


def compile_all(modules: Iterable[str] = tuple(SIGNATURES)) -> list[Report]:
    """Compile every kernel of `modules`.

    A signature's types are Triton's ("*bf16", "i32"; "i32:16" = divisible by 16); pointers are taken as aligned to 16.

    Raises:
        InputError: Triton or its bundled tools are missing, or Triton interprets.
    """
    if interpreted():
        raise InputError("aot: TRITON_INTERPRET is set, so nothing is compiled; unset it and start again")
    tool = bundled("cuobjdump")
    reports = []
    for name in modules:
        for function, signature, constants, warps, stages in SIGNATURES[name]():
            reports.append(_compile(tool, name, function, signature, constants, warps, stages))
    return reports


def bundled(name: str) -> Path:
    """The path of one of the CUDA tools inside Triton's wheel.

    Raises:
        InputError: Triton is not installed, or comes without the tool.
    """
    try:
        import triton.backends.nvidia as backend
    except ImportError:
        raise InputError("aot: Triton is not installed; pip install triton") from None
    tool = Path(backend.__path__[0]) / "bin" / name
    if not os.access(tool, os.X_OK):
        raise InputError(f"aot: this Triton comes without {name} ({tool}); install Triton's own wheel from PyPI")
    return tool


def _compile(
    tool: Path,
    module: str,
    function: Any,
    signature: dict[str, str],
    constants: dict[str, Any],
    warps: int,
    stages: int,
) -> Report:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(function.arg_names)
    unknown = (set(signature) | set(constants)) - set(names)
    missing = set(names) - set(signature) - set(constants)
    assert not unknown and not missing, f"{module}.{function.__name__}: signature lacks {missing}, has {unknown}"
    types = {name: signature.get(name, "constexpr") for name in names}
    aligned = [i for i, name in enumerate(names) if types[name].startswith("*") or types[name].endswith(":16")]
    source = ASTSource(
        fn=function,
        signature={name: kind.removesuffix(":16") for name, kind in types.items()},
        constexprs=constants,
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    began = time.perf_counter()
    options = {"num_warps": warps, "num_stages": stages}
    kernel = triton.compile(source, target=GPUTarget("cuda", *TARGET), options=options)
    seconds = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.cubin"
        binary.write_bytes(kernel.asm["cubin"])
        command = [str(tool), "--dump-resource-usage", str(binary)]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = _USAGE.search(usage)
    assert found, f"cuobjdump printed no resource usage: {usage!r}"
    registers, stack, _, local = map(int, found.groups())
    pointers = sorted({kind for kind in types.values() if kind.startswith("*")})
    variant = " ".join([*pointers, *(f"{key}={value}" for key, value in constants.items()), f"warps={warps}"])
    name = f"{module}.{function.__name__}"
    return Report(name, variant, registers, max(stack, local), int(kernel.metadata.shared), round(seconds, 2))


def main(modules: list[str]) -> int:
    """Print one JSON object a kernel for `modules` (none = all); exit code 1 if one spills, 2 if none can be compiled."""
    try:
        reports = compile_all(modules or tuple(SIGNATURES))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for report in reports:
        print(json.dumps(asdict(report)))
    return int(any(report.stack for report in reports))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
