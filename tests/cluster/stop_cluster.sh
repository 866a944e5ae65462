#!/usr/bin/env bash
# tests/cluster/stop_cluster.sh DIR: end what start_cluster.sh DIR started, by the process ids it wrote down.
set -u
dir=$(cd "${1:?usage: stop_cluster.sh DIR}" && pwd -P) || exit 2
[ -e "$dir/pids" ] || exit 0
# A number may by now belong to another process, which does not have DIR on its command line.
ours() { tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -qF "$dir/"; }
gone() {
  case $(awk '{print $3}' "/proc/$1/stat" 2>/dev/null) in '' | Z | X) return 0 ;; *) return 1 ;; esac
}
pids=()
while read -r pid _; do
  if ours "$pid"; then
    kill -KILL "$pid" && pids+=("$pid")
  fi
done <"$dir/pids"
for _ in $(seq 500); do
  left=()
  for pid in "${pids[@]}"; do gone "$pid" || left+=("$pid"); done
  if [ ${#left[@]} = 0 ]; then
    rm -f "$dir/pids" "$dir/in"
    exit 0
  fi
  sleep 0.02
done
echo "stop_cluster: still running: ${left[*]}" >&2
exit 1
