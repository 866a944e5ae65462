"""The table of a folder that benchmarks/gpu.sh has written: python benchmarks/gpu_table.py FOLDER NAME [FAILED]...

Exit code 1 if a part failed, or a kernel inside one.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

EPOCH = 3_383_656  # samples of MINDlarge's training split


def number(value: float | None, digits: int = 3) -> str:
    """To `digits` digits, whole above 1,000."""
    return "-" if value is None else f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"


def table(head: list[str], rows: list[list[str]]) -> None:
    """Columns of equal width."""
    rows = [head, *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()


def kernels(found: dict[str, Any]) -> list[str]:
    """A row for each kernel; returns those that could not run."""
    rows, failed = [], []
    for row in found["rows"]:
        forms = {"triton": row["ms"], "torch": row["torch_ms"], "compiled": row["compiled_ms"]}
        fastest = min(forms, key=lambda form: float("inf") if forms[form] is None else forms[form])
        rows.append([row["kernel"], row["shape"], *map(number, forms.values()), number(row["max_error"], 2), fastest])
        if "error" in row:
            failed.append(f"kernels: {row['kernel']} {row['shape']}: {row['error']}")
    table(["kernel", "shape", "triton ms", "torch ms", "compiled ms", "max error", "fastest"], rows)
    return failed


def encoders(auto: dict[str, Any] | None, triton: dict[str, Any] | None) -> None:
    """A row for each encoder, with the kernels that `auto` takes and with Triton's."""
    both = [found for found in (auto, triton) if found]
    if not both:
        return
    of_auto, of_triton = ({row["model"]: row for row in found["rows"]} if found else {} for found in (auto, triton))
    rows = []
    for row in both[0]["rows"]:
        ours, fused = of_auto.get(row["model"], {}), of_triton.get(row["model"], {})
        rows.append(
            [row["model"], number(row["parameters"] / 1e6), number(ours.get("news_per_s")), number(ours.get("mfu"), 2),
             number(fused.get("news_per_s")), number(fused.get("mfu"), 2), number(row["padded_fp32_news_per_s"]),
             number(row["sorted_bf16_news_per_s"]), number(row.get("compiled_bf16_news_per_s"))]
        )  # fmt: skip
    head = ["encoder", "M parameters", "news/s auto", "mfu", "news/s triton", "mfu"]
    table([*head, "padded fp32", "sorted bf16", "compiled bf16"], rows)
    print(f"matrix product: {', '.join(number(found['matmul_tflops']) for found in both)} TFLOP/s")


def steps(folder: Path, name: str) -> None:
    """The step beside other forms, and ours at every size."""
    path = folder / "step.json"
    if path.is_file():
        one = json.loads(path.read_text(encoding="utf-8"))
        print(
            f"stage-2 step, {one['model']}, batch {one['batch']}: {number(one['samples_per_s'])} samples/s, "
            f"{number(one['ratio_paper'])} x paper form, {number(one['ratio_stock'])} x stock form, "
            f"{number(one.get('ratio_distinct'))} x distinct form; with kernels=triton "
            f"{number(one.get('triton_samples_per_s'))}, as a CUDA graph {number(one.get('graph_samples_per_s'))}"
        )
        epoch = {
            "samples": EPOCH,
            "samples_per_s": one["samples_per_s"],
            "seconds": EPOCH / one["samples_per_s"],
            "model": one["model"],
            "batch": one["batch"],
            "gpu": name,
            "commit": one.get("commit"),
            "note": "one GPU, the measured step times the steps of an epoch; without loader, start, frozen layers' pass",
        }
        (folder / "epoch.json").write_text(json.dumps(epoch, indent=2) + "\n", encoding="utf-8")
        print(f"full-MIND stage-2 epoch, projected: {number(epoch['seconds'])} s")
    sizes = sorted(
        (int(found[1]), bool(found[2]), path)
        for path in folder.glob("step-*.json")
        if (found := re.fullmatch(r"step-(\d+)(-user)?\.json", path.name))
    )
    rows = []
    for size, grouped, path in sizes:
        one = json.loads(path.read_text(encoding="utf-8"))
        rows.append(
            [number(size), "user" if grouped else "none", number(one["samples_per_s"]),
             number(one.get("graph_samples_per_s")), number(one["distinct_titles"]), number(one["flops_utilisation"], 2)]
        )  # fmt: skip
    if rows:
        table(["batch", "group", "samples/s", "as a graph", "distinct titles", "of the peak"], rows)


def pipelines(folder: Path) -> None:
    """Each run's stages."""
    for name in ("pipeline", "stages-unilm", "stages-bodies"):
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        print(f"{name}: {number(found['seconds'])} s, {found['model']}, all of MIND {number(found['mind_hours'])} h")
        table(
            ["stage", "seconds", "published s", "ratio", "share of the floor", "MIND s"],
            [
                [row["stage"], *map(number, (row["seconds"], row["published_s"], row["ratio_published"])),
                 number(row["floor_share"], 2), number(row["mind_s"])]
                for row in found["rows"]
            ],
        )  # fmt: skip


def shares(folder: Path) -> None:
    """Classes of operations, and tiers of the frozen states."""
    for path in sorted(folder.glob("profile-*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        parts = ", ".join(f"{row['class']} {100 * row['share']:.0f} %" for row in found["rows"])
        print(f"{path.stem}: {found['model']}, batch {found['batch']}, {number(found['ms'])} ms: {parts}")
    path = folder / "tiers.json"
    if path.is_file():
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        print("frozen states: " + ", ".join(f"{row['frozen_cache']} {number(row['samples_per_s'])}" for row in rows))


def main(folder: Path, name: str, failed: list[str]) -> int:
    """Print what there is."""

    def read(part: str) -> dict[str, Any] | None:
        path = folder / f"{part}.json"
        found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        return found

    tests = folder / "tests.txt"
    print(f"\n{name}   kernels' tests: {tests.read_text(encoding='utf-8').strip() if tests.is_file() else 'not run'}\n")
    if found := read("kernels"):
        failed = [*failed, *kernels(found)]
    encoders(read("inference"), read("inference-triton"))
    if teacher := read("teacher-pass"):
        print(
            f"teacher pass, {teacher['model']}: {number(teacher['news_per_s'])} news/s, "
            f"{number(teacher['ratio_padded'])} x padded fp32, {number(teacher['ratio_sorted'])} x sorted bf16"
        )
    steps(folder, name)
    shares(folder)
    pipelines(folder)
    for part in failed:
        print(f"FAILED: {part}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
