"""`tnr bench inference`: parameters and news a second of teachers and students (the paper's Fig. 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch

from tnr_dist.bench.encoding import device, matmul_tflops, packed_pass, transformers_pass
from tnr_dist.bench.titles import BODY, PADDED, best_seconds, encoder_of, random_bodies, random_titles
from tnr_dist.data.tokens import RaggedTable
from tnr_dist.kernels.dispatch import Choice, use_kernels
from tnr_dist.models.flops import encoder_flops
from tnr_dist.models.recommender import NewsEncoder, count_parameters
from tnr_dist.models.transformer import Encoder
from tnr_dist.util.progress import say

_DEPTHS = (12, 4, 2, 1)
_BODY_DEPTHS = (12, 4)
_WIDTHS = (768, 384)
_COMPILED_FORMS = ("sorted", "padded")


def run(news: int = 0, repeats: int = 2, compiled: bool = True, kernels: str = "auto") -> dict[str, Any]:
    """Rows for 12, 4, 2 and 1 layers of width 768 and 384 on titles of 16 tokens on average; `bodies`: the same rows for the
    12 and 4 layers that post-training and stage 1 run on bodies of up to 512 tokens, without the compiled form.

    A row's `news_per_s` is ours (packed, bf16) and `speedup` that over the deepest model of its width. Beside it stand
    transformers on the same weights, each with our speed over theirs: padded to 30 in float32, sorted by length in
    bf16, and in bf16 under torch.compile in the form (`compiled_form`) that is best for one layer of that width: sorted
    with dynamic shapes, or padded to 30 with static ones. `mfu`: model FLOPs of our pass over the bf16 matrix product
    measured in the same run (`matmul_tflops`).

    Args:
        news: titles a pass; 0: 16,384 on a GPU, 512 without one. The slow float32 passes take an eighth of them.
        repeats: passes timed, at least, the forms in turn (`best_seconds`); the best counts.
        compiled: whether to measure the compiled forms (most of the run's time).
        kernels: which kernels ours uses, as in the configuration.
    """
    news = news or (16_384 if device().type == "cuda" else 512)
    titles, few = random_titles(news), random_titles(max(news // 8, 1))
    tokens, ceiling = len(titles.values), matmul_tflops()
    work = _Work(repeats, cast(Choice, kernels), ceiling)
    rows: list[dict[str, Any]] = []
    for width in _WIDTHS:
        form = _best_compiled_form(width, few) if compiled else ""
        rows += work.rows(width, _DEPTHS, titles, few, PADDED, form)
    bodies, few = random_bodies(max(news // 16, 1)), random_bodies(max(news // 128, 1))
    long = [row for width in _WIDTHS for row in work.rows(width, _BODY_DEPTHS, bodies, few, BODY, "")]
    found = {"rows": rows, "news": news, "tokens_per_news": tokens / news, "matmul_tflops": ceiling}
    found |= {"bodies": long, "tokens_per_body": len(bodies.values) / len(bodies)}
    return found | {"kernels": kernels}


@dataclass(frozen=True)
class _Work:
    """What all rows share."""

    repeats: int
    kernels: Choice
    ceiling: float  # TFLOP/s

    def rows(
        self, width: int, depths: tuple[int, ...], texts: RaggedTable, few: RaggedTable, pad: int, compiled_form: str
    ) -> list[dict[str, Any]]:
        """A row for each depth, the deepest first; the padded form has `few` texts."""
        found: list[dict[str, Any]] = []
        for layers in depths:
            say(f"BERT {layers} x {width}, up to {pad} tokens")
            encoder = encoder_of(width, layers)
            forms: dict[str, Callable[[], Any]] = {
                "ours": use_kernels(self.kernels)(packed_pass(encoder, texts)),
                "padded_fp32": transformers_pass(encoder, few, bf16=False, sort=False, pad=pad),
                "sorted_bf16": transformers_pass(encoder, texts, bf16=True, sort=True, pad=pad),
            }
            if compiled_form:
                forms["compiled_bf16"] = _compiled(encoder, texts, compiled_form)
            best = best_seconds(forms, self.repeats)
            others = {name: len(few if name == "padded_fp32" else texts) / seconds for name, seconds in best.items()}
            rate = others.pop("ours")
            flops = rate * encoder_flops(encoder, texts.lengths) / len(texts)
            found.append(
                {
                    "model": f"BERT {layers} x {width}",
                    "layers": layers,
                    "width": width,
                    "parameters": count_parameters(NewsEncoder(encoder)),
                    "news_per_s": rate,
                    "speedup": rate / (found[0]["news_per_s"] if found else rate),
                    "mfu": flops / (self.ceiling * 1e12),
                    **{f"{name}_news_per_s": other for name, other in others.items()},
                    **{f"ratio_{name}": rate / other for name, other in others.items()},
                    "compiled_form": compiled_form or None,
                }
            )
        return found


def _compiled(encoder: Encoder, titles: RaggedTable, form: str) -> Callable[[], Any]:
    """A pass of transformers in bf16 under torch.compile, which then knows of no other model."""
    torch.compiler.reset()
    return transformers_pass(encoder, titles, bf16=True, sort=form == "sorted", compiled=True)


def _best_compiled_form(width: int, titles: RaggedTable) -> str:
    """Which compiled form is faster with one layer: compiling both for every depth would take minutes more."""
    best = best_seconds({form: _compiled(encoder_of(width, 1), titles, form) for form in _COMPILED_FORMS}, 2)
    return min(best, key=lambda form: best[form])
