"""GPU figures cannot be made again by everyone who changes the code: where it has changed, the text names their commit."""

import json
import re
from pathlib import Path

import pytest

from tnr_dist.bench.common import code_digest

ROOT = Path(__file__).parents[3]
RESULTS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((ROOT / "benchmarks" / "results" / "gpu-h200").glob("*.json"))
    if path.stem != "epoch"  # made of the step's
}
PAGES = [ROOT / "README.md", *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "log.md")]
_FIGURE = re.compile(r"\d[\d,.]* ?(k|M|s|ms|samples/s|titles/s|TFLOP/s|min|h)\b")
_COMMIT = re.compile(r"`[0-9a-f]{7,12}`|commits? [0-9a-f]{7,12}")


def benchmark_of(stem: str) -> str:
    """The benchmark whose result a file holds."""
    return re.sub(r"-(\d+(-user)?|teacher|triton)$", "", stem)


def is_current(stem: str, found: dict) -> bool:
    return found.get("code") == code_digest(benchmark_of(stem))


def unnamed(text: str) -> list[str]:
    """Headings of sections that quote a figure of the GPU and name no commit."""
    sections = re.split(r"(?m)^(?=##+ )", text)
    return [
        one.split("\n", 1)[0] for one in sections if "H200" in one and _FIGURE.search(one) and not _COMMIT.search(one)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_old_gpu_figures_name_their_commit(page):
    if all(is_current(stem, found) for stem, found in RESULTS.items()):
        return
    assert unnamed(page.read_text(encoding="utf-8")) == []


def test_a_figure_without_a_commit_is_found():
    assert unnamed("# A\ntext\n## B\nOn one H200 94 s.\n## C\nOn one H200 94 s (commit 20d1f18).\n") == ["## B"]


def test_results_name_their_commit():
    assert all(found["commit"] for found in RESULTS.values())


def test_the_digest_is_of_the_code():
    assert code_digest("step") == code_digest("step") != code_digest("kernels")
