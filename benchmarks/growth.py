"""Does `tnr data prepare` grow linearly, and does its memory not grow? Writes benchmarks/results/*-growth.{md,json}.

Command:  .venv/bin/python benchmarks/growth.py prepare     (about 4 minutes on two idle cores, 8 GB of temporary disk)
          .venv/bin/python benchmarks/growth.py corpus      (about 10 minutes, most of it to generate the articles)
Measures: 1/8, 1/4, 1/2 and 1 of MINDlarge's train split with all 130,379 news; corpora of 25,000 to 200,000 articles
          with bodies of about 512 tokens. Each in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
NOTE = "Load average at the start of each run stands beside it: the cores were shared with other work where it is high."


def bench(*settings: str) -> dict:
    command = [sys.executable, "-m", "tnr_dist.cli.app", "bench", "prepare", "--json", *settings]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def report(name: str, title: str, rows: list[dict], columns: dict[str, str]) -> None:
    """Write a table of `columns` (key -> format) and the raw rows."""
    first = rows[0]
    lines = [
        f"# {title}",
        "",
        f"{first['date']}, commit {first['commit']}, {first['cpu']}, {first['cores']} cores; peak memory of the process tree.",
        NOTE,
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(format(row[key], form) for key, form in columns.items()) + " |" for row in rows),
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.md").write_text("\n".join(lines) + "\n")
    (RESULTS / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(lines))


def main(what: str) -> None:
    if what == "prepare":
        rows = [bench(f"scale={scale}", "splits=train", "corpus_articles=0") for scale in (0.125, 0.25, 0.5, 1.0)]
        columns = {"scale": "", "impressions": ",", "candidates": ",", "seconds": ".1f", "impressions_per_s": ",.0f"}
        report(
            "prepare-growth",
            "tnr data prepare: MINDlarge's train split",
            rows,
            columns | {"peak_gib": ".2f", "load_at_start": ""},
        )
    elif what == "corpus":
        sizes = (25_000, 50_000, 100_000, 200_000)
        rows = [bench("scale=0.001", "splits=train", f"corpus_articles={size}") for size in sizes]
        columns = {"corpus_articles": ",", "corpus_tokens_per_article": ".0f", "corpus_seconds": ".1f"}
        columns |= {"corpus_articles_per_s": ",.0f", "corpus_peak_gib": ".2f", "load_at_start": ""}
        report("corpus-growth", "tnr data prepare: a News corpus", rows, columns)
    else:
        raise SystemExit("usage: growth.py prepare|corpus")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) == 2 else "")
