#!/usr/bin/env bash
# The workloads on our mount, tmpfs, what FUSE allows (ceiling) and gocryptfs, interleaved in one run; prints medians and
# ratios. Figures of one run compare with each other only.
#
#   benches/compare.sh [--runs N] [--on LIST] [--store DIR] [-- ARGUMENTS OF parsecfs-bench]
#
# LIST: any of ours,tmpfs,ceiling,gocryptfs (the default), securefs,encfs,cryfs,ext4. Stores, homes and mounts are below DIR, in
# memory (/dev/shm) unless told otherwise; ext4 is a plain folder there and takes a DIR on ext4. Who cannot do a workload
# gets a dash. Root: page caches are dropped, packages installed. RAW=FILE keeps every figure of every run;
# PARSECFS_RELEASE names a folder of release builds, which are made without it.
set -euo pipefail
cd "$(dirname "$0")/.."

runs=5 systems=ours,tmpfs,ceiling,gocryptfs store=/dev/shm
while [ $# -gt 0 ]; do
    case "$1" in
        --runs) runs=$2; shift 2 ;;
        --on) systems=$2; shift 2 ;;
        --store) store=$2; shift 2 ;;
        --) shift; break ;;
        *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
bench_arguments=("$@")
IFS=, read -ra systems <<<"$systems"

for system in "${systems[@]}"; do
    case "$system" in
        ours | tmpfs | ceiling) ;;
        ext4) [ "$(findmnt -no FSTYPE --target "$store")" = ext4 ] || { echo "not on ext4: $store" >&2; exit 2; } ;;
        gocryptfs | securefs | encfs | cryfs)
            command -v "$system" >/dev/null ||
                { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$system"; } ;;
        *) echo "unknown filesystem: $system" >&2; exit 2 ;;
    esac
done
target=${PARSECFS_RELEASE:-}
if [ -z "$target" ]; then
    cargo build --release --quiet --package parsecfs-benches --package mountctl --bins
    target=${CARGO_TARGET_DIR:-target}/release
fi

# Everything below here goes away at the end.
base=$(mktemp -d "$store/parsecfs-compare.XXXXXX")
raw=${RAW:-$base/raw}
: >"$raw"
password=$base/password
echo benchmark >"$password"
# For the remount commands, which parsecfs-bench runs.
export base password target CRYFS_FRONTEND=noninteractive CRYFS_NO_UPDATE_CHECK=true

attach_ours() { "$target/mountctl" -q --home "$base/ours.home" quickstart --at "$base/ours.store" --mount "$base/ours" >/dev/null; }
detach_ours() { "$target/mountctl" -q --home "$base/ours.home" umount "$base/ours" --force >/dev/null; }

attach_tmpfs() { mount -t tmpfs tmpfs "$base/tmpfs"; }
detach_tmpfs() { umount "$base/tmpfs"; }

attach_ext4() { :; }
detach_ext4() { :; }

attach_ceiling() {
    "$target/parsecfs-ceiling" "$base/ceiling" &
    until mountpoint -q "$base/ceiling"; do
        kill -0 $! || return 1 # It ended without a mount.
        sleep 0.05
    done
}
detach_ceiling() { umount "$base/ceiling"; }

attach_gocryptfs() {
    [ -f "$base/gocryptfs.store/gocryptfs.conf" ] ||
        gocryptfs -q -init -scryptn 10 -passfile "$password" "$base/gocryptfs.store"
    gocryptfs -q -passfile "$password" "$base/gocryptfs.store" "$base/gocryptfs"
}
detach_gocryptfs() { fusermount3 -u "$base/gocryptfs"; }

attach_securefs() {
    [ -f "$base/securefs.store/.securefs.json" ] || securefs create --pass "$(cat "$password")" "$base/securefs.store" >/dev/null
    securefs mount -b --pass "$(cat "$password")" "$base/securefs.store" "$base/securefs" >/dev/null
}
detach_securefs() { umount "$base/securefs"; }

attach_encfs() { encfs --standard -S "$base/encfs.store" "$base/encfs" <"$password" >/dev/null; }
detach_encfs() { umount "$base/encfs"; }

attach_cryfs() { cryfs "$base/cryfs.store" "$base/cryfs" <"$password" >/dev/null; }
detach_cryfs() { umount "$base/cryfs"; }

clean_up() {
    for system in "${systems[@]}"; do "detach_$system" 2>/dev/null || true; done
    for system in "${systems[@]}"; do
        # Never delete through a mount that stayed.
        if mountpoint -q "$base/$system"; then echo "still mounted: $base/$system" >&2; return; fi
    done
    rm -rf "$base"
}
trap clean_up EXIT

# A script of its own, since parsecfs-bench runs it through sh, which hands no functions on.
{
    echo 'set -e'
    declare -f $(compgen -A function attach_) $(compgen -A function detach_)
    echo '"detach_$1"; "attach_$1"'
} >"$base/remount.sh"
for system in "${systems[@]}"; do
    mkdir -p "$base/$system" "$base/$system.store"
    "attach_$system"
done

for ((run = 1; run <= runs; run++)); do
    for system in "${systems[@]}"; do
        # What lives in memory only would be empty after a remount, and a folder is none; a dropped page cache must do for them.
        again=(--remount-command "bash '$base/remount.sh' $system")
        case "$system" in tmpfs | ceiling | ext4) again=() ;; esac
        echo "run $run of $runs: $system" >&2
        figures=$("$target/parsecfs-bench" "$base/$system" --json --go-on --runs 1 "${again[@]}" "${bench_arguments[@]}")
        echo "$system $figures" >>"$raw"
    done
done

python3 - "$raw" "${systems[@]}" <<'END'
import json, statistics, sys

raw, systems = sys.argv[1], sys.argv[2:]
figures, order = {}, []
for line in open(raw):
    system, text = line.split(" ", 1)
    for name, rate in json.loads(text).items():
        if name not in order:
            order.append(name)
        figures.setdefault((system, name), []).append(rate)
middle = {key: statistics.median(rates) for key, rates in figures.items()}
others = [system for system in systems if system != "ours"] if "ours" in systems else []
print("| workload |", " | ".join(systems + [f"ours / {other}" for other in others]), "| spread of ours |" if others else "|")
print("|---" * (1 + len(systems) + len(others) + bool(others)) + "|")
for name in order:
    of = lambda system: middle.get((system, name))
    row = [f"{of(system):,.0f}" if of(system) else "-" for system in systems]
    row += [f"{of('ours') / of(other):.2f}" if of("ours") and of(other) else "-" for other in others]
    if others:
        ours = figures.get(("ours", name), [0])
        row.append(f"{min(ours):,.0f} to {max(ours):,.0f}")
    print(f"| {name} |", " | ".join(row), "|")
END
