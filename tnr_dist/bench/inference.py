"""`tnr bench inference`: parameters and news a second of teachers and students (the paper's Fig. 5)."""

from __future__ import annotations

from typing import Any

from tnr_dist.bench.encoding import encoder_flops, matmul_tflops, packed_pass, transformers_pass
from tnr_dist.bench.titles import best_seconds, encoder_of, random_titles
from tnr_dist.models.recommender import NewsEncoder, count_parameters


def run(news: int = 512, repeats: int = 2, compiled: bool = False) -> dict[str, Any]:
    """Rows for 12, 4, 2 and 1 layers of width 768 and 6, 4, 2 and 1 of width 384.

    `news_per_s` is ours (packed, bf16), `speedup` is over the deepest model of the same width; beside it stand
    transformers padded to 30 in float32 and sorted in bf16 and, with `compiled`, the latter under torch.compile.
    `flops_utilisation` is against a large bf16 matrix product measured in the same run.
    """
    titles = random_titles(news)
    ceiling = matmul_tflops()
    rows: list[dict[str, Any]] = []
    for width, depths in ((768, (12, 4, 2, 1)), (384, (6, 4, 2, 1))):
        slowest = 0.0
        for layers in depths:
            encoder = encoder_of(width, layers)
            rate = news / best_seconds(packed_pass(encoder, titles), repeats)
            slowest = slowest or rate
            flops = encoder_flops(encoder, len(titles.values), titles.lengths) / news
            row = {
                "model": f"BERT {layers} x {width}",
                "layers": layers,
                "width": width,
                "parameters": count_parameters(NewsEncoder(encoder)),
                "news_per_s": rate,
                "speedup": rate / slowest,
                "flops_utilisation": rate * flops / (ceiling * 1e12),
                "padded_fp32_news_per_s": news
                / best_seconds(transformers_pass(encoder, titles, bf16=False, sort=False), 1),
                "sorted_bf16_news_per_s": news
                / best_seconds(transformers_pass(encoder, titles, bf16=True, sort=True), repeats),
            }
            if compiled:
                work = transformers_pass(encoder, titles, bf16=True, sort=True, compiled=True)
                row["compiled_bf16_news_per_s"] = news / best_seconds(work, repeats)
            rows.append(row)
    return {"rows": rows, "news": news, "tokens_per_news": len(titles.values) / news, "matmul_tflops": ceiling}
