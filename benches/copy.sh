#!/usr/bin/env bash
# Whether memory stays flat during a long copy: GIB GiB through a mount whose local store is bounded to CACHE, into a
# directory store; how much the agent keeps resident is looked at each second.
#
#   benches/copy.sh GIB [CACHE] [DIR]
#
# CACHE: 1G. DIR: where store and mount lie; needs GIB and CACHE free there. Whoever is faster than the upload is held
# up by a full store, and goes on where it was. PARSECFS_RELEASE names a folder of release builds.
set -euo pipefail
cd "$(dirname "$0")/.."

gib=$1 cache=${2:-1G} dir=${3:-${TMPDIR:-/tmp}}
release=${PARSECFS_RELEASE:-target/release}
base=$(mktemp -d "$dir/parsecfs-copy.XXXXXX")
mountctl() { "$release/mountctl" --quiet --home "$base/home" "$@"; }
agent() { mountctl --json status | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["agent"]["pid"])'; }
clean_up() {
    mountctl umount --all --force >/dev/null 2>&1 || true
    if mountpoint -q "$base/mnt"; then echo "still mounted: $base/mnt" >&2; return; fi
    rm -rf "$base"
}
trap clean_up EXIT

mkdir "$base/mnt"
mountctl quickstart --at "$base/store" --mount "$base/mnt" >/dev/null
mountctl umount "$base/mnt" >/dev/null
mountctl mount quickstart "$base/mnt" -o "cache=$cache" >/dev/null
python3 - "$base/mnt/large" "$gib" "$(agent)" <<'END_OF_COPY'
import errno, os, sys, threading, time

path, gib, pid = sys.argv[1], int(sys.argv[2]), sys.argv[3]
samples, held_up, done = [], 0, threading.Event()

def resident():
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS"))

def watch():
    while not done.wait(1):
        samples.append((written, resident()))

piece = os.urandom(1 << 20)
written, synced, start = 0, 0, time.monotonic()
threading.Thread(target=watch).start()
with open(path, "wb", buffering=0) as file:
    while written < gib << 30:
        try:
            # No two alike, so that nothing is stored once for many.
            file.write(written.to_bytes(16, "little") + piece[16:])
            written += len(piece)
            if written % (64 << 20) == 0:
                os.fsync(file.fileno())
                synced = written
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            held_up += 1
            written = synced
            file.seek(written)
            time.sleep(0.2)
done.set()
took = time.monotonic() - start
print(f"{gib} GiB in {took:.0f} s, {gib * 1024 / took:.0f} MiB/s; held up {held_up} times by a full store")
for quarter in range(4):
    part = [kept for place, kept in samples if quarter * gib << 28 <= place < (quarter + 1) * gib << 28]
    if part:
        print(f"quarter {quarter + 1}: resident {min(part)} to {max(part)} MB, {part[-1]} at its end")
print(f"afterwards: {resident()} MB")
END_OF_COPY
from=$(date +%s)
# Not `wait`, which reports that writes were held up.
until mountctl --json status | python3 -c 'import json, sys; sys.exit(not json.load(sys.stdin)[0]["synced"])'; do sleep 1; done
echo "until stored: $(($(date +%s) - from)) s; resident then: $(awk '$1 == "VmRSS:" { print int($2 / 1024) }' "/proc/$(agent)/status") MB"
echo "the store holds $(du -sm "$base/store" | cut -f1) MiB"
