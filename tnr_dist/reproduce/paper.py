"""The paper's own numbers: Table 2 of Tiny-NewsRec, percent, means of 5 runs with their standard deviations."""

from __future__ import annotations

from tnr_dist.evaluation.metrics import NAMES

# Of its figures the paper prints no numbers.
_MIND = """
PLM-NR-12 (FT)   69.72 0.15  34.74 0.10  37.99 0.11  43.71 0.07
PLM-NR-12 (FP)   69.82 0.14  34.90 0.11  38.17 0.09  43.83 0.07
PLM-NR-12 (DP)   70.20 0.10  35.27 0.08  38.54 0.07  44.20 0.08
PLM-NR-4 (FT)    69.49 0.14  34.40 0.10  37.64 0.10  43.40 0.09
PLM-NR-2 (FT)    68.99 0.08  33.59 0.14  36.81 0.11  42.61 0.11
PLM-NR-1 (FT)    68.12 0.12  33.20 0.07  36.29 0.09  42.07 0.10
TinyBERT-4       69.77 0.13  34.83 0.09  38.02 0.11  43.69 0.09
TinyBERT-2       69.44 0.17  34.11 0.07  37.55 0.08  43.14 0.07
TinyBERT-1       68.42 0.12  33.55 0.10  36.69 0.09  42.35 0.08
NewsBERT-4       69.85 0.17  34.91 0.09  38.19 0.09  43.84 0.08
NewsBERT-2       69.62 0.09  34.67 0.12  37.86 0.11  43.54 0.11
NewsBERT-1       68.67 0.11  33.95 0.07  37.05 0.14  42.74 0.13
Tiny-NewsRec-4   70.40 0.05  35.43 0.08  38.76 0.05  44.43 0.04
Tiny-NewsRec-2   70.28 0.07  35.32 0.07  38.65 0.07  44.28 0.08
Tiny-NewsRec-1   69.85 0.03  34.93 0.08  38.21 0.09  43.84 0.09
"""
_FEEDS = """
PLM-NR-12 (FT)   67.93 0.13  34.42 0.07  37.46 0.09  45.09 0.07
PLM-NR-12 (FP)   68.11 0.11  34.49 0.12  37.58 0.07  45.11 0.08
PLM-NR-12 (DP)   68.71 0.08  35.10 0.09  38.32 0.06  45.83 0.08
PLM-NR-4 (FT)    67.46 0.12  33.71 0.11  36.69 0.08  44.36 0.09
PLM-NR-2 (FT)    67.05 0.14  33.33 0.09  36.15 0.10  43.90 0.12
PLM-NR-1 (FT)    66.26 0.10  32.55 0.12  35.22 0.07  42.99 0.09
TinyBERT-4       67.73 0.11  34.00 0.08  37.03 0.10  44.59 0.12
TinyBERT-2       67.35 0.13  33.69 0.05  36.59 0.08  44.21 0.09
TinyBERT-1       66.53 0.10  32.81 0.07  35.61 0.11  43.29 0.09
NewsBERT-4       68.34 0.13  34.58 0.06  37.69 0.09  45.27 0.08
NewsBERT-2       67.90 0.07  34.26 0.09  37.29 0.10  44.86 0.11
NewsBERT-1       67.00 0.10  33.24 0.11  36.09 0.08  43.80 0.07
Tiny-NewsRec-4   68.93 0.06  35.21 0.09  38.43 0.08  45.97 0.10
Tiny-NewsRec-2   68.58 0.03  34.82 0.07  38.02 0.09  45.57 0.07
Tiny-NewsRec-1   68.14 0.05  34.53 0.07  37.61 0.08  45.14 0.08
"""

# Mean and deviation of a metric, percent.
Figure = tuple[float, float]


def _parse(text: str) -> dict[str, dict[str, Figure]]:
    table: dict[str, dict[str, Figure]] = {}
    for line in text.strip().splitlines():
        *words, a, da, m, dm, n5, dn5, n10, dn10 = line.split()
        pairs = [(a, da), (m, dm), (n5, dn5), (n10, dn10)]
        table[" ".join(words)] = {
            name: (float(mean), float(deviation)) for name, (mean, deviation) in zip(NAMES, pairs, strict=True)
        }
    return table


TABLE2 = {"mind": _parse(_MIND), "feeds": _parse(_FEEDS)}
