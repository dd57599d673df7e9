#!/usr/bin/env bash
# Suites that others wrote, on a mounted workspace: `tests/suites.sh` runs all, `tests/suites.sh SUITE...` the named ones
# of pjdfstest, fsx, stress-ng and dbench. Half an hour on two cores; needs root, for pjdfstest acts as several users.
#
# Each failure must be in the table of docs/known-failures.md and each row of the table must fail: anything else ends with 1.
# After each suite the volume syncs, unmounts with nothing wrong and mounts again with the same content.
#
# PARSECFS_MOUNTCTL   the program under test; built for release without it
# PARSECFS_SUITES     where the suites are kept once installed
# PARSECFS_FSX_OPERATIONS   fewer of them, for a short run
# PARSECFS_ON         run on this folder instead, which must be on a filesystem of at least 4 GiB: what is right elsewhere
set -euo pipefail
cd "$(dirname "$0")/.."

PJDFSTEST=0.2.2
FSX=0.3.2
SUITES=(pjdfstest fsx stress-ng dbench)
FSX_OPERATIONS=${PARSECFS_FSX_OPERATIONS:-100000}
# stress-ng's filesystem class but for what does not work on files of a given folder (bind-mount, binderfs, eventfd,
# procfs, ioprio, dup), and verity, which needs a filesystem that lies on a block device.
STRESSORS=(access chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify fallocate fanotify fcntl fiemap
    file-ioctl filename flock fpunch fsize fstat getdent handle hdd inode-flags inotify io iomix lease link locka lockf
    lockofd mknod open rename symlink sync-file touch utime xattr)
STRESS_PROCESSES=4
STRESS_SECONDS=3
DBENCH_CLIENTS=4
DBENCH_SECONDS=20

suites=("$@")
[ "${#suites[@]}" -gt 0 ] || suites=("${SUITES[@]}")
for suite in "${suites[@]}"; do
    [[ " ${SUITES[*]} " == *" $suite "* ]] || { echo "no suite '$suite'; there are: ${SUITES[*]}" >&2; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "needs root: pjdfstest acts as several users" >&2; exit 2; }

# --- what is needed ---------------------------------------------------------------------------------------------------

cache=${PARSECFS_SUITES:-${XDG_CACHE_HOME:-$HOME/.cache}/parsecfs-suites}
missing=()
for program in stress-ng dbench; do command -v "$program" >/dev/null || missing+=("$program"); done
if [ "${#missing[@]}" -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi
for crate in "pjdfstest@$PJDFSTEST" "fsx@$FSX"; do
    # Says that it is installed already where it is, and looks nothing up then.
    [ -e "$cache/$crate" ] || { cargo install --quiet --locked --root "$cache" "$crate" && touch "$cache/$crate"; }
done
if [ -z "${PARSECFS_MOUNTCTL:-}" ]; then
    cargo build --release --locked --quiet -p mountctl
    PARSECFS_MOUNTCTL=${CARGO_TARGET_DIR:-target}/release/mountctl
fi
PARSECFS_MOUNTCTL=$(realpath "$PARSECFS_MOUNTCTL")

# --- the volume -------------------------------------------------------------------------------------------------------

work=$(mktemp -d -p "${PARSECFS_ON:-/dev/shm}" suites.XXXXXX)
# Other users pass through; the home stays closed.
chmod 755 "$work"
mount=$work/mnt
mkdir "$mount"

mountctl() { "$PARSECFS_MOUNTCTL" --home "$work/home" "$@"; }

clean() {
    local status=$?
    cd /
    if [ -z "${PARSECFS_ON:-}" ]; then
        mountctl umount --all --force >/dev/null 2>&1 || true
        if mountpoint -q "$mount"; then umount --lazy "$mount" || true; fi
    fi
    rm -rf --one-file-system "$work"
    exit "$status"
}
trap clean EXIT
trap 'exit 130' INT TERM

mount_volume() { mountctl --quiet mount Suites "$mount" -o allow_other >/dev/null; }

make_volume() {
    mountctl --quiet org create Suites --backend "$work/storage" --auth keyfile \
        --email suites@example.com --name Suites --device-label suites >/dev/null
    mountctl --quiet workspace create Suites >/dev/null
    mount_volume
}

# All names, attributes and bytes.
content() {
    (cd "$mount" && find . -printf '%p %y %m %U %G %s %T@ %l\n' | sort && find . -type f -print0 | sort -z | xargs -0r sha256sum) | sha256sum
}

# After a suite: everything goes up, nothing is damaged, and a new mount shows the same.
settle() {
    local suite=$1 before outcome=ok
    [ -z "${PARSECFS_ON:-}" ] || return 0
    before=$(content)
    mountctl --quiet wait Suites --synced --timeout 600 >/dev/null || outcome=FAILED
    verdict "$suite" afterwards::syncs "$outcome"
    outcome=ok
    mountctl --quiet umount Suites --flush >/dev/null && mountctl --quiet doctor --deep >/dev/null || outcome=FAILED
    verdict "$suite" afterwards::doctor "$outcome"
    outcome=ok
    mount_volume && [ "$(content)" = "$before" ] || outcome=FAILED
    verdict "$suite" afterwards::remounts "$outcome"
}

# --- verdicts ---------------------------------------------------------------------------------------------------------

results=$work/results
: >"$results"

verdict() { # suite, test, ok | FAILED | skipped
    echo "$1 $2 $3" >>"$results"
    [ "$3" = ok ] || echo "   $1 $2 $3"
}

# "suite test" of each row of the table.
known() { awk -F'|' '/^## Suites/ { on = 1; next } /^## / { on = 0 } on && $2 ~ /`/ { gsub(/[` ]/, "", $2); gsub(/[` ]/, "", $3); print $2, $3 }' docs/known-failures.md; }

# --- the suites -------------------------------------------------------------------------------------------------------

run_pjdfstest() {
    local at=$mount/pjdfstest
    mkdir "$at"
    # Users that every Debian has, and a second filesystem for what must not cross.
    cat >"$work/pjdfstest.toml" <<'END'
[features]
posix_fallocate = {}
rename_ctime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
END
    # It fails when anything fails; what counts is which.
    "$cache/bin/pjdfstest" -c "$work/pjdfstest.toml" -p "$at" -s "$work" >"$work/pjdfstest.log" 2>&1 || true
    grep -q '^Summary:' "$work/pjdfstest.log" || verdict pjdfstest whole FAILED
    while read -r test outcome; do verdict pjdfstest "$test" "$outcome"; done \
        < <(grep -oE '^[a-z0-9_:]+ +(ok|FAILED|skipped)$' "$work/pjdfstest.log")
    rm -rf "$at"
}

run_fsx() {
    # A file of a few pages, where edges meet, and one of many slots. Maps that fsx reads it never gives back, and on a
    # small file each change looks at all of them: hence the small one in ten runs.
    local run outcome=ok
    for run in 1 2 3 4 5 6 7 8 9 10; do fsx 65536 $((FSX_OPERATIONS / 10)) "$run" || outcome=FAILED; done
    verdict fsx length_65536 "$outcome"
    outcome=ok
    fsx 4194304 "$FSX_OPERATIONS" 11 || outcome=FAILED
    verdict fsx length_4194304 "$outcome"
}

# One run with maps, holes, allocation and copies.
fsx() { # length of the file, operations, seed
    cat >"$work/fsx.toml" <<END
flen = $1
[opsize]
max = 131072
[weights]
close_open = 1
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 5
fsync = 1
fdatasync = 1
posix_fallocate = 5
punch_hole = 10
sendfile = 5
posix_fadvise = 1
copy_file_range = 10
END
    "$cache/bin/fsx" -f "$work/fsx.toml" -N "$2" -S "$3" -P "$work" "$mount/fsx-$1-$3" >"$work/fsx.log" 2>&1 && return
    tail -40 "$work/fsx.log"
    return 1
}

run_stress_ng() {
    local at=$mount/stress-ng stressor outcome
    mkdir "$at"
    for stressor in "${STRESSORS[@]}"; do
        outcome=ok
        stress-ng --"$stressor" "$STRESS_PROCESSES" --timeout "$STRESS_SECONDS" --verify --temp-path "$at" \
            >"$work/stress-ng.log" 2>&1 || { outcome=FAILED; grep -m4 -E 'fail|warn|skipping' "$work/stress-ng.log" || true; }
        verdict stress-ng "$stressor" "$outcome"
    done
    [ -z "$(ls -A "$at")" ] || verdict stress-ng leaves_nothing_behind FAILED
}

run_dbench() {
    local outcome=ok
    mkdir "$mount/dbench"
    dbench -D "$mount/dbench" -t "$DBENCH_SECONDS" "$DBENCH_CLIENTS" >"$work/dbench.log" 2>&1 || outcome=FAILED
    grep -q '^Throughput' "$work/dbench.log" && ! grep -qiE 'error|failed|denied' "$work/dbench.log" || outcome=FAILED
    verdict dbench "clients_$DBENCH_CLIENTS" "$outcome"
    [ "$outcome" = ok ] || grep -iE 'error|failed|denied' "$work/dbench.log" || tail -n 5 "$work/dbench.log"
    grep '^Throughput' "$work/dbench.log" || true
}

[ -n "${PARSECFS_ON:-}" ] || make_volume
for suite in "${suites[@]}"; do
    echo "== $suite"
    started=$SECONDS
    "run_${suite//-/_}"
    settle "$suite"
    echo "== $suite, $((SECONDS - started)) s"
done

# --- the list, both ways ----------------------------------------------------------------------------------------------

status=0
for suite in "${suites[@]}"; do
    unlisted=$(comm -23 <(awk -v s="$suite" '$1 == s && $3 == "FAILED" { print $1, $2 }' "$results" | sort) <(known | sort))
    passing=$(comm -13 <(awk -v s="$suite" '$1 == s && $3 == "FAILED" { print $1, $2 }' "$results" | sort) <(known | awk -v s="$suite" '$1 == s' | sort))
    awk -v s="$suite" '$1 == s && $2 !~ /^afterwards/ { n[$3]++ } END { printf "%s: %d passed, %d failed, %d skipped\n", s, n["ok"], n["FAILED"], n["skipped"] }' "$results"
    [ -z "$unlisted" ] || { printf 'not in docs/known-failures.md:\n%s\n' "$unlisted"; status=1; }
    [ -z "$passing" ] || { printf 'listed in docs/known-failures.md, and does not fail:\n%s\n' "$passing"; status=1; }
done
exit "$status"
