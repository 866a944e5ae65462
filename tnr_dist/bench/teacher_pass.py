"""`tnr bench teacher-pass`: encoding every title with a teacher, beside transformers on the same weights."""

from __future__ import annotations

from typing import Any

from tnr_dist.bench.encoding import matmul_tflops, packed_pass, transformers_pass
from tnr_dist.bench.titles import best_seconds, encoder_of, random_titles
from tnr_dist.models.flops import encoder_flops
from tnr_dist.util.memory import TreePeak


def run(news: int = 2048, width: int = 384, layers: int = 6, repeats: int = 3) -> dict[str, Any]:
    """News a second of the packed bf16 pass, of transformers padded to 30 in float32, and of transformers sorted in bf16.

    Best of `repeats` passes or more over `news` titles of 16 tokens on average, the forms in turn (`best_seconds`).
    """
    titles, encoder = random_titles(news), encoder_of(width, layers)
    with TreePeak(every=0.05) as memory:
        forms = {
            "ours": packed_pass(encoder, titles),
            "sorted": transformers_pass(encoder, titles, bf16=True, sort=True),
            "padded": transformers_pass(encoder, titles, bf16=False, sort=False),
        }
        best = best_seconds(forms, repeats)
    ours, sorted_bf16, padded_fp32 = (news / best[name] for name in forms)
    ceiling = matmul_tflops()
    flops = encoder_flops(encoder, titles.lengths) / news
    return {
        "news_per_s": ours,
        "padded_fp32_news_per_s": padded_fp32,
        "sorted_bf16_news_per_s": sorted_bf16,
        "ratio_padded": ours / padded_fp32,
        "ratio_sorted": ours / sorted_bf16,
        "model": f"BERT {layers} x {width}",
        "news": news,
        "tokens_per_news": len(titles.values) / news,
        "matmul_tflops": ceiling,
        "flops_utilisation": ours * flops / (ceiling * 1e12),
        "peak_gib": memory.gib,
    }
