"""The types, constants and launches of every kernel at the real sizes, for `tests.kernels.aot`."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch

from tnr_dist.kernels import (
    additive_pooling,
    distillation,
    gather_cast,
    ragged_attention,
    residual_norm,
)

# (kernel, signature, constants, num_warps, num_stages)
Case = tuple[Any, dict[str, str], dict[str, Any], int, int]


def _additive_pooling() -> list[Case]:
    """Titles and bodies of MiniLM and BERT."""
    cases = []
    for size, block, dtype, kind in (
        (384, 32, torch.bfloat16, "*bf16"),
        (768, 64, torch.bfloat16, "*bf16"),
        (384, 512, torch.bfloat16, "*bf16"),
        (768, 512, torch.float32, "*fp32"),
    ):
        constants = additive_pooling._constants(size, 200, block, dtype)
        product = "*bf16" if dtype == torch.bfloat16 else "*fp32"
        inputs = {"x": kind, "weight": product, "bias": "*fp32", "query": "*fp32", "tokens": "i32"}
        flat = dict.fromkeys(("logits", "weights", "out", "grad_out", "grad_logits"), "*fp32") | {"offsets": "*i64"}
        out = {"grad_states": product, "grad_x": kind} | dict.fromkeys(("grad_bias", "grad_query"), "*fp32")
        for kernel, key, names, more in (
            (additive_pooling.logits_kernel, "forward", ("logits",), inputs),
            (
                additive_pooling.pool_kernel,
                "sequence",
                ("logits", "offsets", "weights", "out"),
                {"x": kind},
            ),
            (
                additive_pooling.softmax_gradient_kernel,
                "sequence",
                ("grad_out", "weights", "offsets", "grad_logits"),
                {"x": kind},
            ),
            (additive_pooling.states_gradient_kernel, "backward", ("grad_out", "grad_logits", "weights"), inputs | out),
        ):
            signature = {name: flat[name] for name in names} | more
            fixed = constants[key] | ({"WIDEN": False} if "WIDEN" in constants[key] else {})
            if kernel is additive_pooling.softmax_gradient_kernel or kernel is additive_pooling.states_gradient_kernel:
                signature["sequences"] = "*i32"
            warps, stages = fixed.pop("num_warps"), fixed.pop("num_stages")
            cases.append((kernel.jit, signature, fixed, warps, stages))
    return cases


def _distillation() -> list[Case]:
    """At the real sizes: M = 4 and 5 or 64 candidates."""
    common = {"omega": "*fp32", "weights": "*fp32", "mask": "*i1", "scale": "fp32", "temperature": "fp32"}
    sizes = ("samples", "teachers", "candidates", "logits_b", "logits_m", "logits_c")
    common |= dict.fromkeys(sizes, "i32")
    outputs = dict.fromkeys(("losses", "teacher"), "*fp32")
    gradients = dict.fromkeys(("grad_losses", "grad_teacher", "grad_omega"), "*fp32")
    cases = []
    for dtype, candidates in (("*fp32", 5), ("*bf16", 64)):
        blocks = distillation._blocks(torch.Size((128, 4, candidates)))
        inputs = {"logits": dtype, "student": dtype, **common}
        forward = {"MASKED": True, "BACKWARD": False, **blocks, **dict.fromkeys((*gradients, "grad_student"))}
        backward = {"MASKED": True, "BACKWARD": True, **blocks, **dict.fromkeys(outputs)}
        cases.append((distillation.distillation_kernel.jit, inputs | outputs, forward, 4, 1))
        cases.append(
            (distillation.distillation_kernel.jit, inputs | gradients | {"grad_student": dtype}, backward, 4, 1)
        )
    return cases


def _gather_cast() -> list[Case]:
    """Teachers' vectors [V, 4, 256], states of 384 and 768."""
    cases: list[Case] = []
    for width in (4 * 256, 384, 768):
        for source, target in (("*bf16", "*fp32"), ("*fp32", "*bf16"), ("*bf16", "*bf16")):
            types = {"table": source, "index": "*i64", "out": target, "count": "i32", "stride": "i32:16"}
            cases.append((gather_cast.gather_kernel.jit, types, gather_cast._blocks(width), 4, 1))
        types = {"grad": "*bf16", "index": "*i64", "sums": "*fp32", "count": "i32"}
        cases.append((gather_cast.scatter_kernel.jit, types, gather_cast._blocks(width), 4, 1))
    return cases


def _ragged_attention() -> list[Case]:
    """At the real sizes, with and without dropout.

    12 heads of 32 without a bias (MiniLM), of 64 without and with one, frozen or trained (BERT, UniLMv2).
    """
    forward, backward = ragged_attention.attention_kernel.jit, ragged_attention.attention_gradient_kernel.jit
    bf16, fp32 = torch.bfloat16, torch.float32
    cases = [(32, bf16, False, False), (64, bf16, False, False), (64, bf16, True, False), (64, bf16, True, True)]
    cases += [(64, fp32, True, True)]
    signatures: list[Case] = []
    for (head_dim, dtype, bias, bias_grad), closed, dropout in itertools.product(cases, (True, False), (True, False)):
        types = dict.fromkeys(["q", "k", "v", "out", "dout", "dq", "dk", "dv"], "*bf16" if dtype == bf16 else "*fp32")
        types |= dict.fromkeys(["lse", "bias", "dbias"], "*fp32")
        types |= {"tiles": "*i32", "starts": "*i32", "seed": "*i64"}
        arguments = {f"{name}_ptr": kind for name, kind in types.items()}
        arguments |= dict.fromkeys(["stride_q", "stride_k", "stride_v"], "i32:16")
        arguments |= dict.fromkeys(["origin", "stride_h", "stride_i", "stride_j", "T"], "i32")
        arguments |= dict.fromkeys(["copies", "grad_copy", "grad_h", "grad_i", "grad_j"], "i32")
        arguments |= {"scale": "fp32", "dropout_p": "fp32"}
        constants = {
            "H": 12, "D": head_dim, "WIDTH": head_dim, "BLOCK": ragged_attention.block_rows(dtype), "CLOSED": closed, "BIAS": bias,
            "DROPOUT": dropout, "UPCAST": False, "PRECISION": "ieee" if dtype == fp32 else "tf32",
        }  # fmt: skip
        for kernel, extra in ((forward, {}), (backward, {"BIAS_GRAD": bias_grad})):
            if kernel is forward and bias_grad and dtype == bf16:
                continue  # the same as without
            signature = {name: arguments[name] for name in kernel.arg_names if name in arguments}
            launch = ragged_attention._launch(dtype, closed, bias, kernel is backward)
            signatures.append((kernel, signature, constants | extra, launch["num_warps"], launch["num_stages"]))
    return signatures


def _residual_norm() -> list[Case]:
    """Widths 384 and 768, with and without dropout."""
    cases: list[Case] = []
    for width, kind, dropout in itertools.product((384, 768), ("*bf16", "*fp32"), (True, False)):
        types = dict.fromkeys(("x", "y", "out", "grad_out", "grad_x", "grad_y"), kind)
        types |= dict.fromkeys(("weight", "bias", "grad_weight", "grad_bias"), "*fp32")
        types |= {"seed": "*i64" if dropout else kind, "T": "i32"}
        types |= dict.fromkeys(("eps", "dropout_p", "scale"), "fp32")
        blocks: dict[str, Any] = residual_norm._blocks(width)
        warps = blocks.pop("num_warps")
        gradients = {"GRAD_X": True, "GRAD_Y": dropout, "GRAD_WEIGHT": True}
        for kernel, extra in (
            (residual_norm.residual_norm_kernel, {}),
            (residual_norm.residual_norm_gradient_kernel, gradients),
        ):
            names = kernel.jit.arg_names
            signature = {name: types[name] for name in names if name in types}
            cases.append((kernel.jit, signature, blocks | {"DROPOUT": dropout} | extra, warps, 1))
    return cases


SIGNATURES: dict[str, Callable[[], list[Case]]] = {
    "additive_pooling": _additive_pooling,
    "distillation": _distillation,
    "gather_cast": _gather_cast,
    "ragged_attention": _ragged_attention,
    "residual_norm": _residual_norm,
}
