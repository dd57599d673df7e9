#!/usr/bin/env bash
# Fuzzes what reads bytes from elsewhere: `tests/fuzz.sh [SECONDS [TARGET...]]`, every target for a minute by default, in a
# long run for an hour. Needs a nightly compiler and cargo-fuzz (`cargo install cargo-fuzz`). What it finds stays in
# fuzz/artifacts and fails the run; what covers more than before is minimised and kept in fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
targets=("$@")
if [ "${#targets[@]}" = 0 ]; then
    for file in fuzz/targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
nightly=${PARSECFS_NIGHTLY:-nightly}
# Programs for this machine are where cargo puts them; those of the fuzzers are elsewhere, built in another way.
build=$(realpath -m "${PARSECFS_FUZZ_TARGET_DIR:-fuzz/target}")
fuzz() { CARGO_TARGET_DIR="$build" cargo "+$nightly" fuzz "$1" --fuzz-dir fuzz --target-dir "$build" --sanitizer none "${@:2}"; }
mkdir -p fuzz/corpus
cargo build --quiet -p parsecfs-tests --bin fuzz_corpus
corpus="${CARGO_TARGET_DIR:-target}/debug/fuzz_corpus"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0
for target in "${targets[@]}"; do
    "$corpus" unpack "$target" "$work/$target"
    echo "== $target, $seconds s from $(ls "$work/$target" | wc -l) inputs"
    if ! fuzz run "$target" "$work/$target" -- -max_total_time="$seconds" -max_len=4096 -rss_limit_mb=2048 -timeout=20 \
        -print_final_stats=1 -verbosity=0 2>"$work/$target.log"; then
        tail -n 40 "$work/$target.log"
        echo "== $target FAILED"
        status=1
        continue
    fi
    grep -E 'stat::number_of_executed_units|stat::peak_rss_mb' "$work/$target.log" || true
    # The fewest inputs that reach what all reach.
    mkdir "$work/$target.min"
    fuzz run "$target" "$work/$target.min" "$work/$target" -- -merge=1 -max_len=4096 \
        >"$work/$target.log" 2>&1 || { tail -n 40 "$work/$target.log"; status=1; continue; }
    "$corpus" pack "$target" "$work/$target.min"
    echo "== $target ok, $(ls "$work/$target.min" | wc -l) inputs kept, $(stat -c %s "fuzz/corpus/$target.zst") bytes"
done
exit "$status"
