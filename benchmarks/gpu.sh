#!/usr/bin/env bash
# Everything that needs a GPU, in parts of under eight minutes each:
#
#   kernels   the kernels' tests compiled on the device, and each kernel beside its plain form and torch.compile of it
#   encoding  news a second of teachers and students, and the teachers' pass
#   step      a stage-2 step beside other forms, then ours alone at 128 to 8,192 samples, with and without CUDA graphs, grouped or not
#   profile   the time of a step by class of operation
#   tiers     a step with the frozen layers' states on the device, in host memory, on disk, and not kept
#   stages    every stage's rate with UniLMv2's form and with bodies of 512 tokens
#   pipeline  the wall clock of a whole run with the shipped recipe, beside its published form
#
#   benchmarks/gpu.sh                  # all parts; on a machine with torch, triton and transformers; nothing is installed
#   benchmarks/gpu.sh step profile     # some of them
#   OUT=/tmp/gpu PYTHON=.venv/bin/python benchmarks/gpu.sh
#
# Writes JSON files and a log for each part to $OUT (default: benchmarks/results/gpu-NAME), each with the commit it ran at, and prints
# a table of all that lies there last. Exit code: 0 if every part succeeded, 1 if one failed or ran out of its time, 2 without a
# GPU or for an unknown part.

set -uo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
unset TRITON_INTERPRET
PYTHON=${PYTHON:-python3}
PARTS=(kernels encoding step profile tiers stages pipeline)

for asked in "$@"; do
    if [[ " ${PARTS[*]} " != *" $asked "* ]]; then
        echo "gpu.sh: $asked: unknown part; one of ${PARTS[*]}" >&2
        exit 2
    fi
done
if (($#)); then PARTS=("$@"); fi
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
failed=()

# run FILE SECONDS COMMAND...: its output goes to the part's log.
run() {
    local file=$1 limit=$2 began=$SECONDS code=0
    shift 2
    echo "== $file: $*" >>"$log"
    timeout -k 5 "$limit" "$@" >>"$log" 2>&1 || code=$?
    if ((code == 124 || code == 137)); then
        failed+=("$file (over $limit s)")
    elif ((code)); then
        failed+=("$file (exit code $code)")
    fi
    echo "$file: $((SECONDS - began)) s$( ((code)) && echo ", failed: exit code $code")"
    if ((code)); then tail -n 15 "$log"; fi
}

# bench FILE SECONDS NAME [KEY=VALUE]...
bench() {
    local file=$1 limit=$2
    shift 2
    rm -f "$OUT/$file.json"
    run "$file" "$limit" "$PYTHON" -m tnr_dist.cli.app bench "$@" --json --save "$OUT/$file.json"
}

# A process a file: most of the time is Triton compiling, on one core each. On an interrupt pytest still says what failed.
kernel_tests() {
    local logs file code=0 pids=()
    logs=$(mktemp -d)
    for file in tests/kernels/test_*.py; do
        case $file in */test_aot.py | */test_bench.py | */test_gpu_script.py) continue ;; esac # need no GPU: run elsewhere
        timeout -s INT -k 5 90 "$PYTHON" -m pytest -p no:cacheprovider -o addopts="" --import-mode=importlib -q --tb=short \
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

kernels() {
    local began=$SECONDS
    tests="skipped: pytest is not installed"
    if "$PYTHON" -c 'import pytest' 2>/dev/null; then
        kernel_tests >>"$log" 2>&1 || failed+=("tests (see ${log##*/})")
    fi
    echo "$tests" >"$OUT/tests.txt"
    echo "tests: $((SECONDS - began)) s, $tests"
    bench kernels 240 kernels
}

encoding() {
    bench teacher-pass 60 teacher-pass news=8192 width=768 layers=12
    bench inference-triton 60 inference compiled=false kernels=triton
    bench inference 240 inference
}

step() {
    bench step 120 step samples=1024 layers=4 width=768 repeats=10
    local samples
    for samples in 128 512 1024 2048 4096 8192; do
        bench "step-$samples" 25 step "samples=$samples" layers=4 width=768 repeats=5 forms=false
        bench "step-$samples-user" 25 step "samples=$samples" layers=4 width=768 repeats=5 forms=false group=user
    done
}

profile() {
    bench profile-1024 60 profile samples=1024 layers=4 width=768
    bench profile-4096 90 profile samples=4096 layers=4 width=768
    bench profile-teacher 90 profile samples=1024 layers=12 width=768
}

tiers() { bench tiers 240 tiers samples=1024 layers=4 width=768 repeats=5; }

stages() {
    bench stages-unilm 230 pipeline plm=random:12x768:unilm news=30000 impressions=60000 articles=10000 body_tokens=128 teachers=1 \
        compare=false
    bench stages-bodies 230 pipeline plm=random:12x768 news=5000 impressions=10000 articles=5000 body_tokens=512 teachers=1 compare=false
}

pipeline() {
    bench pipeline 470 pipeline plm=random:12x768 news=60000 impressions=150000 articles=50000 body_tokens=128 teachers=4
}

echo "$name -> $OUT"
for part in "${PARTS[@]}"; do
    log="$OUT/$part.txt"
    : >"$log"
    "$part"
done
"$PYTHON" benchmarks/gpu_table.py "$OUT" "$name" "${failed[@]}" | tee "$OUT/table.txt"
exit "${PIPESTATUS[0]}"
