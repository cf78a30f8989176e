#!/bin/sh
# Where Weir spends its time in one scenario of bench/run --full --list:
#
#   bench/profile.sh SCENARIO [perf|callgrind] [SECONDS]
#
# perf samples the CPU clock with call stacks (all shards); callgrind counts instructions of one
# shard. Prints the functions that cost most and keeps the data in bench/results/profile/.
# WEIR (default build/weir), WEIR_OPTIONS (more options of weir serve).
set -eu

scenario=${1:-}
tool=${2:-perf}
seconds=${3:-5}
if [ -z "$scenario" ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
bench=$(cd "$(dirname "$0")" && pwd)
weir=${WEIR:-$bench/../build/weir}
out=$bench/results/profile
data=$(mktemp -d "${TMPDIR:-/tmp}/weir-profile.XXXXXX")
mkdir -p "$out"
rm -f "$out/callgrind.out" "$out/perf.data"
make --silent -C "$bench/load"

durability=sync
case $scenario in */os) durability=os ;; esac
set -- "$weir" serve --data "$data/data" --durability "$durability" --listen amqp=127.0.0.1:0 \
    --listen kafka=127.0.0.1:0
if [ "$tool" = callgrind ]; then
    # shellcheck disable=SC2086
    set -- valgrind --tool=callgrind --callgrind-out-file="$out/callgrind.out" "$@" --shards 1
fi
# shellcheck disable=SC2086
"$@" ${WEIR_OPTIONS:-} >"$data/stdout" &
broker=$!
trap 'kill "$broker" 2>/dev/null || true; wait "$broker" || true; rm -rf "$data"' EXIT

until grep -qx ready "$data/stdout"; do
    kill -0 "$broker" || exit 1
    sleep 0.05
done
WEIR_PORTS=$(sed -n 's/^listen face=\([a-z]*\) addr=.*:\([0-9]*\)$/\1=\2/p' "$data/stdout" | paste -sd, -)
export WEIR_PORTS

python3 "$bench/run.py" --command "$scenario" --seconds "$seconds" >"$data/commands"
sed '$d' "$data/commands" | while read -r command; do sh -c "$command" </dev/null; done
last=$(tail -n 1 "$data/commands")

if [ "$tool" = callgrind ]; then
    sh -c "$last"
    kill "$broker"
    wait "$broker" || true
    callgrind_annotate "$out/callgrind.out" | head -n 60
else
    perf record --quiet -e cpu-clock -F 499 --call-graph dwarf,8192 -p "$broker" \
        -o "$out/perf.data" -- sh -c "$last"
    perf report --stdio --no-children -g none --percent-limit 0.5 -i "$out/perf.data" 2>/dev/null |
        grep -v '^$' | head -n 70
    echo "call stacks: perf report --stdio -i $out/perf.data"
fi
