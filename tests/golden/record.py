"""Record the golden curves anew: `python -m tests.golden.record` trains the set-up on 1 and on 2 ranks, a minute or two.

It prints what moved, and writes nothing when 2 ranks do not make the curves of 1.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.golden.curves import GOLDEN, Lane, compare, digest, golden, prepare_inputs, table, train


def main() -> int:
    """Record; 1 when the ranks do not agree."""
    os.environ["WANDB_MODE"] = "disabled"
    with tempfile.TemporaryDirectory(prefix="golden-") as name:
        folder = Path(name)
        inputs = prepare_inputs(folder / "inputs")
        one, two = (train(Lane(ranks=ranks), inputs, folder / str(ranks)) for ranks in (1, 2))
        seen = digest(folder / "inputs")
    plain = {curve: values for curve, values in one.items() if not curve.endswith(", dropout")}
    apart = compare({curve: two[curve] for curve in plain}, plain)
    print(f"2 ranks against 1:\n{table(apart)}\n")
    if any(difference.above for difference in apart):
        print("not recorded: 2 ranks do not make the curves of 1", file=sys.stderr)
        return 1
    if GOLDEN.is_file():
        print(f"against what was recorded:\n{table(compare(one, golden(1)))}\n")
    recorded = {
        "inputs": seen,
        "torch": torch.__version__,
        "curves": plain,
        "dropout": {
            str(ranks): {curve: values for curve, values in curves.items() if curve not in plain}
            for ranks, curves in ((1, one), (2, two))
        },
    }
    GOLDEN.write_text(_one_line_a_curve(recorded) + "\n", encoding="utf-8")
    print(f"recorded in {GOLDEN}; what moved belongs into CHANGELOG.md")
    return 0


def _one_line_a_curve(recorded: dict[str, Any]) -> str:
    """JSON with every list of numbers on a line, rounded to what float32 holds."""
    lists: list[str] = []

    def place(value: object) -> object:
        if isinstance(value, dict):
            return {key: place(one) for key, one in value.items()}
        if isinstance(value, list):
            lists.append(json.dumps([float(f"{number:.8g}") for number in value]))
            return f"list {len(lists) - 1}"
        return value

    text = json.dumps(place(recorded), indent=1)
    for number, values in enumerate(lists):
        text = text.replace(f'"list {number}"', values)
    return text


if __name__ == "__main__":
    sys.exit(main())
