"""Does `tnr data prepare` grow linearly, and does its memory not grow? Writes benchmarks/results/prepare-growth.md.

Command:  .venv/bin/python benchmarks/growth.py            (about 15 minutes on two cores, 12 GB of temporary disk)
Measures: 1/8, 1/4, 1/2 and 1 of MINDlarge's train split with all 130,379 news; corpora of 25,000 to 200,000 articles with
          bodies of about 512 tokens; then MINDlarge whole. Each in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def bench(*settings: str) -> dict:
    command = [sys.executable, "-m", "tnr_dist.cli", "bench", "prepare", "--json", *settings]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def main() -> None:
    rows = []
    for scale in (0.125, 0.25, 0.5, 1.0):
        rows.append(bench(f"scale={scale}", "splits=train", f"corpus_articles={int(200_000 * scale)}"))
        print(json.dumps(rows[-1]), flush=True)
    whole = bench("scale=1", "corpus_articles=0")
    lines = [
        "# tnr data prepare: growth",
        "",
        f"{whole['date']}, commit {whole['commit']}, {whole['cpu']}, {whole['cores']} cores; peak memory of the process tree.",
        "Load average at the start of each run stands beside it: above 0 the cores were shared with other work.",
        "",
        "| MINDlarge train | impressions | candidates | seconds | impressions/s | peak GiB | load |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['scale']} | {row['impressions']:,} | {row['candidates']:,} | {row['seconds']:.1f} | "
            f"{row['impressions_per_s']:,.0f} | {row['peak_gib']:.2f} | {row['load_at_start']} |"
        )
    lines += [
        "",
        f"Whole MINDlarge (train, dev, test): {whole['impressions']:,} impressions, {whole['candidates']:,} candidates in "
        f"{whole['seconds']:.1f} s, peak {whole['peak_gib']:.2f} GiB, load {whole['load_at_start']}. Every run tokenises all "
        "130,379 titles and abstracts first.",
        "",
        "| corpus articles | tokens an article | seconds | articles/s | peak GiB |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['corpus_articles']:,} | {row['corpus_tokens_per_article']:.0f} | {row['corpus_seconds']:.1f} | "
            f"{row['corpus_articles_per_s']:,.0f} | {row['corpus_peak_gib']:.2f} |"
        )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "prepare-growth.md").write_text("\n".join(lines) + "\n")
    (RESULTS / "prepare-growth.json").write_text(json.dumps({"rows": rows, "whole": whole}, indent=1) + "\n")


if __name__ == "__main__":
    main()
