#!/usr/bin/env bash
# What must not grow: stat, create, rename and a synced write of 4 KiB in a small and a large workspace, folder and
# file, by turns; beside it what an agent of the large workspace keeps in memory and how fast it mounts.
#
#   benches/growth.sh [--files N] [--folder N] [--gib N] [--rounds N] [--store DIR]
#
# N files in the large workspace (100,000) and folder (100,000), GiB of the large, sparse file (100); stores, homes and
# mounts below DIR (/dev/shm). Root: the kernel is told to forget names. A million files take some 12 minutes.
# PARSECFS_RELEASE names a folder of release builds; without it they are made.
set -euo pipefail
cd "$(dirname "$0")/.."

files=100000 folder=100000 gib=100 rounds=5 store=/dev/shm
while [ $# -gt 0 ]; do
    case "$1" in
        --files) files=$2 ;;
        --folder) folder=$2 ;;
        --gib) gib=$2 ;;
        --rounds) rounds=$2 ;;
        --store) store=$2 ;;
        *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift 2
done
release=${PARSECFS_RELEASE:-}
[ -n "$release" ] || cargo build --release --quiet --package parsecfs-benches --package mountctl --bins
release=${release:-${CARGO_TARGET_DIR:-target}/release}
base=$(mktemp -d "$store/parsecfs-growth.XXXXXX")
systems=(small large other)

mountctl() { "$release/mountctl" --quiet --home "$base/$1.home" "${@:2}"; }
attach() { mountctl "$1" quickstart --at "$base/$1.store" --mount "$base/$1" >/dev/null; }
detach() {
    local pid
    pid=$(agent "$1")
    mountctl "$1" umount --all --force >/dev/null
    kill "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
}
clean_up() {
    for system in "${systems[@]}"; do detach "$system" 2>/dev/null || true; done
    for system in "${systems[@]}"; do
        # Never delete through a mount that stayed.
        if mountpoint -q "$base/$system"; then echo "still mounted: $base/$system" >&2; return; fi
    done
    rm -rf "$base"
}
trap clean_up EXIT

now() { date +%s.%N; }
since() { awk -v from="$1" -v to="$(now)" 'BEGIN { printf "%.2f s", to - from }'; }
agent() { mountctl "$1" --json status | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["agent"]["pid"])'; }
memory() { awk -v what="$2:" '$1 == what { printf "%d MB", $2 / 1024 }' "/proc/$(agent "$1")/status"; }

for system in "${systems[@]}"; do mkdir "$base/$system"; attach "$system"; done
"$release/parsecfs-growth" fill "$base/small" 1000

echo "| a workspace of $files files of 100 bytes | figure |"
echo "|---|---|"
from=$(now); "$release/parsecfs-growth" fill "$base/large" "$files"; made=$(since "$from")
echo "| making them; agent resident then | $made; $(memory large VmRSS) |"
from=$(now); mountctl large wait --synced >/dev/null; stored=$(since "$from")
echo "| until stored; agent resident then, highest | $stored; $(memory large VmRSS), $(memory large VmHWM) |"
echo "| the store, without the files' mount | $(du -sm "$base/large.store" | cut -f1) MB |"
detach large
from=$(now); attach large; mounted=$(since "$from")
from=$(now); ls "$base/large" >/dev/null; echo "| a fresh agent: mount, first ls | $mounted, $(since "$from") |"
mounted=$(memory large VmRSS)
from=$(now); find "$base/large" | wc -l >/dev/null; found=$(since "$from")
mountctl large wait --synced >/dev/null
echo "| find over all | $found |"
echo "| a fresh agent resident: mounted, after find, highest | $mounted, $(memory large VmRSS), $(memory large VmHWM) |"

"$release/parsecfs-growth" fill --flat "$base/other/ten" 10
"$release/parsecfs-growth" fill --flat "$base/other/many" "$folder"
"$release/parsecfs-growth" sparse "$base/other/short" $((1 << 20))
"$release/parsecfs-growth" sparse "$base/other/long" $((gib << 30))

echo
echo "| microseconds | small | large | large / small |"
echo "|---|---|---|---|"
compare() {
    "$release/parsecfs-growth" compare "${@:2}" --rounds "$rounds" \
        --settle "for s in $1; do \"$release/mountctl\" -q --home \"$base/\$s.home\" wait --synced >/dev/null || exit; done"
}
compare "small large" "workspace:$base/small:1000" "workspace:$base/large:$files"
compare other "folder:$base/other/ten:10" "folder:$base/other/many:$folder"
compare other "file:$base/other/short" "file:$base/other/long"
