#!/usr/bin/env bash
# Everything that needs a GPU, in under nine minutes: the kernels' tests compiled on the device, each kernel beside
# torch.compile of its plain form, encoding, the teacher pass, a stage-2 step, and what a full-MIND epoch of it would take.
#
#   benchmarks/gpu.sh                        # on a machine with torch, triton and transformers; nothing is installed
#   OUT=/tmp/gpu PYTHON=.venv/bin/python benchmarks/gpu.sh
#
# Writes one JSON file a part, log.txt and table.txt to $OUT (default: benchmarks/results/gpu-NAME) and prints the table
# last. Exit code: 0 if every part succeeded, 1 if one failed or ran out of its time, 2 without a GPU.

set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
unset TRITON_INTERPRET
PYTHON=${PYTHON:-python3}

if ! name=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")'); then
    echo "gpu.sh: $PYTHON cannot import torch; set PYTHON to one that can" >&2
    exit 2
fi
if [[ -z $name ]]; then
    echo "gpu.sh: no CUDA device on this machine; nothing was measured" >&2
    exit 2
fi
slug=$(tr -cs 'a-z0-9' '-' <<<"${name,,}")
OUT=${OUT:-benchmarks/results/gpu-${slug%-}}
mkdir -p "$OUT"
rm -f "$OUT"/{kernels,inference,inference-triton,step,teacher-pass,epoch}.json
: >"$OUT/log.txt"
failed=()

# part NAME SECONDS COMMAND...: its output goes to the log. The limits of all parts sum to 465 seconds, and 70 of the tests.
part() {
    local name=$1 limit=$2 began=$SECONDS code=0
    shift 2
    echo "== $name: $*" >>"$OUT/log.txt"
    timeout -k 5 "$limit" "$@" >>"$OUT/log.txt" 2>&1 || code=$?
    if ((code == 124 || code == 137)); then
        failed+=("$name (over $limit s)")
    elif ((code)); then
        failed+=("$name (exit code $code)")
    fi
    echo "$name: $((SECONDS - began)) s$( ((code)) && echo ", failed: exit code $code")"
    if ((code)); then tail -n 15 "$OUT/log.txt"; fi
}

# bench FILE SECONDS NAME [KEY=VALUE]...
bench() {
    local file=$1 limit=$2
    shift 2
    part "$file" "$limit" "$PYTHON" -m tnr_dist.cli.app bench "$@" --json --save "$OUT/$file.json"
}

echo "$name -> $OUT"
# A process a file: most of the time is Triton compiling, on one core each. On an interrupt pytest still says what failed.
kernel_tests() {
    local logs file code=0 pids=()
    logs=$(mktemp -d)
    for file in tests/kernels/test_*.py; do
        case $file in */test_aot.py | */test_bench.py | */test_gpu_script.py) continue ;; esac # need no GPU: run elsewhere
        timeout -s INT -k 5 70 "$PYTHON" -m pytest -p no:cacheprovider -o addopts="" --import-mode=importlib -q --tb=short \
            "$file" >"$logs/${file##*/}.log" 2>&1 &
        pids+=($!)
    done
    for file in "${pids[@]}"; do wait "$file" || code=1; done
    tail -n 40 "$logs"/*.log
    tests="$(grep -hoE '[0-9]+ passed' "$logs"/*.log | awk '{n += $1} END {print n + 0}') passed, $(grep -hoE '[0-9]+ failed' \
        "$logs"/*.log | awk '{n += $1} END {print n + 0}') failed"
    rm -rf "$logs"
    return $code
}

if "$PYTHON" -c 'import pytest' 2>/dev/null; then
    began=$SECONDS code=0
    kernel_tests >>"$OUT/log.txt" 2>&1 || code=$?
    ((code == 0)) || failed+=("tests (see log.txt)")
    echo "tests: $((SECONDS - began)) s, $tests"
else
    tests="skipped: pytest is not installed"
    echo "tests: $tests"
fi
bench kernels 160 kernels
bench step 95 step samples=1024 layers=4 width=768 repeats=10
bench teacher-pass 40 teacher-pass news=8192 width=768 layers=12
bench inference-triton 35 inference compiled=false kernels=triton
bench inference 135 inference

"$PYTHON" - "$OUT" "$name" "$tests" "${failed[@]}" <<'PYTHON_END' | tee "$OUT/table.txt"
import json
import sys
from pathlib import Path

out, name, tests, *failed = sys.argv[1:]
EPOCH = 3_383_656  # samples of MINDlarge's training split


def read(part):
    path = Path(out) / f"{part}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def number(value, digits=3):
    return "-" if value is None else f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"


def table(head, rows):
    rows = [head, *rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print()


print(f"\n{name}   kernels' tests: {tests}\n")
if kernels := read("kernels"):
    rows = []
    for row in kernels["rows"]:
        forms = {"triton": row["ms"], "torch": row["torch_ms"], "compiled": row["compiled_ms"]}
        fastest = min(forms, key=lambda form: float("inf") if forms[form] is None else forms[form])
        rows.append([row["kernel"], row["shape"], *map(number, forms.values()), number(row["max_error"], 2), fastest])
        if "error" in row:
            failed.append(f"kernels: {row['kernel']} {row['shape']}: {row['error']}")
    table(["kernel", "shape", "triton ms", "torch ms", "compiled ms", "max error", "fastest"], rows)
auto, fused = read("inference"), read("inference-triton")
if both := [found for found in (auto, fused) if found]:
    of_auto, of_fused = ({row["model"]: row for row in found["rows"]} if found else {} for found in (auto, fused))
    rows = []
    for row in both[0]["rows"]:
        ours, triton = of_auto.get(row["model"], {}), of_fused.get(row["model"], {})
        rows.append(
            [row["model"], number(row["parameters"] / 1e6), number(ours.get("news_per_s")), number(ours.get("mfu"), 2),
             number(triton.get("news_per_s")), number(triton.get("mfu"), 2), number(row["padded_fp32_news_per_s"]),
             number(row["sorted_bf16_news_per_s"]), number(row.get("compiled_bf16_news_per_s"))]
        )  # fmt: skip
    head = ["encoder", "M parameters", "news/s auto", "mfu", "news/s triton", "mfu"]
    table([*head, "padded fp32", "sorted bf16", "compiled bf16"], rows)
    print(f"matrix product: {', '.join(number(found['matmul_tflops']) for found in both)} TFLOP/s")
if teacher := read("teacher-pass"):
    print(
        f"teacher pass, {teacher['model']}: {number(teacher['news_per_s'])} news/s, "
        f"{number(teacher['ratio_padded'])} x padded fp32, {number(teacher['ratio_sorted'])} x sorted bf16"
    )
if step := read("step"):
    print(
        f"stage-2 step, {step['model']}, batch {step['batch']}: {number(step['samples_per_s'])} samples/s, "
        f"{number(step['ratio_paper'])} x paper form, {number(step['ratio_stock'])} x stock form; "
        f"with kernels=triton {number(step.get('triton_samples_per_s'))}, as a CUDA graph "
        f"{number(step.get('graph_samples_per_s'))}; " + ", ".join(
            f"batch {row['batch']}: {number(row['samples_per_s'])}, graph {number(row['graph_samples_per_s'])}"
            for row in step.get("graphs", [])
        )
    )
    epoch = {
        "samples": EPOCH,
        "samples_per_s": step["samples_per_s"],
        "seconds": EPOCH / step["samples_per_s"],
        "model": step["model"],
        "batch": step["batch"],
        "gpu": name,
        "note": "one GPU, the measured step times the steps of an epoch; without loader, start, frozen layers' pass",
    }
    (Path(out) / "epoch.json").write_text(json.dumps(epoch, indent=2) + "\n")
    print(f"full-MIND stage-2 epoch, projected: {number(epoch['seconds'])} s")
for part in failed:
    print(f"FAILED: {part}")
sys.exit(bool(failed))
PYTHON_END
