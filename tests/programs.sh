#!/usr/bin/env bash
# Real programs on a mounted workspace, each with its own check: `tests/programs.sh [--on FOLDER] [NAME...]`.
#
# Without names all of them, in CI the light ones (`tests/programs.sh light`). The workspace is made for this run and
# mounted by `mountctl` (PARSECFS_MOUNTCTL names the program, else the one of the release build); `--on` takes any other folder
# instead, to see that what is asked is right. A program that is not installed is a SKIP, or in CI a failure.
set -euo pipefail

LIGHT=(git git_worktree git_bisect sqlite_concurrent sqlite_crash vim nano rsync tar unzip ripgrep seeks reflink newer make)
# Minutes, the network, or root.
HEAVY=(loop cargo npm pip libreoffice postgres)

need() {
    for program in "$@"; do
        command -v "$program" >/dev/null || { echo "$program is not installed"; exit 77; }
    done
}
same() { [ "$1" = "$2" ] || { echo "expected '$2', found '$1'"; return 1; }; }
until_true() {
    for _ in $(seq 600); do "$@" && return 0; sleep 0.1; done
    echo "never true: $*"
    return 1
}

# A small tree of text and binary files, links and modes, below $1.
tree() {
    mkdir -p "$1"
    for i in $(seq 40); do
        mkdir -p "$1/d$((i % 7))/e$((i % 3))"
        seq 1 $((i * 37)) >"$1/d$((i % 7))/e$((i % 3))/f$i"
    done
    head -c 3000017 /dev/urandom >"$1/large"
    ln -s d1/e1 "$1/link"
    printf '#!/bin/sh\necho ran\n' >"$1/tool"
    chmod 750 "$1/tool"
    touch -d '2001-02-03 04:05:06.123456789' "$1/d1/e1"/*
}

repository() {
    git init -q "$1"
    git -C "$1" config user.email a@example.com
    git -C "$1" config user.name A
    for i in $(seq 30); do
        mkdir -p "$1/d$((i % 5))"
        seq 1 $((i * 20)) >"$1/d$((i % 5))/f$i"
        echo "$i" >"$1/number"
        git -C "$1" add .
        git -C "$1" commit -qm "$i"
    done
}

program_git() {
    need git
    repository "$scratch/origin"
    git clone -q --no-hardlinks "$scratch/origin" clone
    (cd clone && git gc -q --aggressive --prune=now && git fsck --full --strict 2>&1 | { ! grep -E 'error|missing|dangling'; })
    remount
    cd clone
    git fsck --full --strict
    same "$(git rev-parse HEAD)" "$(git -C "$scratch/origin" rev-parse HEAD)"
    git checkout -q HEAD~7 && git checkout -q - && same "$(git status --porcelain)" ""
    # A clone by hard links on one filesystem, or by copies where there are none.
    git clone -q . ../again && git -C ../again fsck --full
    git -c user.email=a@example.com -c user.name=A stash list
    echo changed >number && same "$(git status --porcelain)" " M number" && git checkout -q number
}

program_git_worktree() {
    need git
    repository repo
    cd repo
    git worktree add -q ../other HEAD~3
    git worktree add -q -b topic ../topic
    same "$(git worktree list | wc -l)" 3
    same "$(cat ../other/number)" 27
    (cd ../topic && echo topic >number && git commit -qam topic)
    git merge -q topic
    same "$(cat number)" topic
    mv ../other ../moved && git worktree repair ../moved
    git worktree remove ../moved && git worktree remove ../topic && git worktree prune
    same "$(git worktree list | wc -l)" 1
    git gc -q --prune=now && git fsck --full --strict
}

program_git_bisect() {
    need git
    repository repo
    cd repo
    git bisect start HEAD HEAD~25 >/dev/null
    git bisect run sh -c 'test "$(cat number)" -lt 17' >"$scratch/bisect"
    grep -q 'is the first bad commit' "$scratch/bisect"
    same "$(git show refs/bisect/bad:number)" 17
    git bisect reset >/dev/null 2>&1
    same "$(git status --porcelain)" ""
}

program_sqlite_concurrent() {
    need sqlite3
    for mode in wal delete truncate; do
        sqlite3 "$mode.db" "PRAGMA journal_mode=$mode; CREATE TABLE t(who INTEGER, n INTEGER, PRIMARY KEY(who, n));" >/dev/null
        local pids=()
        for who in 1 2 3 4; do
            (for n in $(seq 25); do
                sqlite3 -cmd '.timeout 60000' "$mode.db" "BEGIN IMMEDIATE; INSERT INTO t VALUES($who, $n); COMMIT;"
            done) &
            pids+=($!)
        done
        for pid in "${pids[@]}"; do wait "$pid"; done
        same "$(sqlite3 "$mode.db" 'SELECT count(*), count(DISTINCT who) FROM t; PRAGMA integrity_check;')" $'100|4\nok'
    done
    remount
    same "$(sqlite3 wal.db 'PRAGMA integrity_check; SELECT count(*) FROM t;')" $'ok\n100'
}

program_sqlite_crash() {
    need sqlite3
    for mode in wal delete; do
        sqlite3 "$mode.db" "PRAGMA journal_mode=$mode; CREATE TABLE t(n INTEGER PRIMARY KEY, b BLOB);" >/dev/null
        for round in 1 2 3; do
            : >"$scratch/acknowledged"
            # One process that commits and says so, killed in the middle of it.
            sqlite3 -cmd 'PRAGMA synchronous=FULL' "$mode.db" >"$scratch/acknowledged" 2>/dev/null < <(
                for n in $(seq 100000); do
                    echo "INSERT INTO t VALUES($((round * 100000 + n)), randomblob(5000)); SELECT $((round * 100000 + n));"
                done) &
            local pid=$!
            until_true test -s "$scratch/acknowledged"
            sleep 0.3
            kill -9 "$pid"
            wait "$pid" || true
            last=$(grep -E '^[0-9]+$' "$scratch/acknowledged" | head -n -1 | tail -n 1)
            same "$(sqlite3 "$mode.db" "PRAGMA integrity_check; SELECT count(*) FROM t WHERE n=${last:-0};")" $'ok\n'"$([ -n "$last" ] && echo 1 || echo 0)"
        done
    done
}

# Runs an editor on a terminal of its own; what follows the editor's command are keys.
drive() {
    local editor=$1
    shift
    local socket="$scratch/tmux"
    # Without an alternative socket it would meet the tmux of whoever runs this.
    TERM=screen tmux -S "$socket" -f /dev/null new-session -d -x 80 -y 24 "$editor"
    for keys in "$@"; do
        tmux -S "$socket" send-keys "$keys"
        sleep 0.5
    done
    until_true sh -c "! tmux -S '$socket' has-session 2>/dev/null"
}

program_vim() {
    need vim tmux
    printf 'first\nsecond\nthird\n' >text
    chmod 640 text
    for backup in yes no auto; do
        drive "vim -u NONE -N -c 'set backup backupcopy=$backup' text" "G" "o" "by vim $backup" Escape ":wq" Enter
    done
    same "$(cat text)" $'first\nsecond\nthird\nby vim yes\nby vim no\nby vim auto'
    same "$(stat -c %a text)" 640
    # A swap file is left by a crash and recovers the text.
    printf 'kept\n' >crash
    TERM=screen tmux -S "$scratch/tmux2" -f /dev/null new-session -d -x 80 -y 24 "vim -u NONE -N crash"
    until_true test -e .crash.swp
    tmux -S "$scratch/tmux2" send-keys o "not saved" Escape ":preserve" Enter
    until_true grep -q "not saved" .crash.swp
    kill -9 "$(tmux -S "$scratch/tmux2" list-panes -F '#{pane_pid}')"
    vim -u NONE -N -es -r crash -c 'w! recovered' -c 'q!' </dev/null >/dev/null 2>&1 || true
    same "$(cat recovered)" $'kept\nnot saved'
    same "$(cat crash)" kept
}

program_nano() {
    need nano tmux
    printf 'first\nsecond\n' >text
    drive "nano -I --backup text" "by nano " C-o Enter C-x
    same "$(cat text)" $'by nano first\nsecond'
    same "$(cat text~)" $'first\nsecond'
}

program_rsync() {
    need rsync
    tree "$scratch/tree"
    rsync -aHX "$scratch/tree/" copy
    same "$(rsync -aHX --itemize-changes "$scratch/tree/" copy)" ""
    remount
    same "$(rsync -aHX --checksum --itemize-changes "$scratch/tree/" copy)" ""
    printf x | dd of="$scratch/tree/large" bs=1 seek=1500000 conv=notrunc status=none
    # Without --checksum, rsync takes files of equal size and whole second for equal.
    touch -d '2002-03-04 05:06:07' "$scratch/tree/large"
    rm "$scratch/tree/d2/e0/"* && mv "$scratch/tree/d3" "$scratch/tree/moved"
    rsync -a --inplace --no-whole-file --delete "$scratch/tree/" copy
    diff -r --no-dereference "$scratch/tree" copy
    rsync -a copy/ "$scratch/back" && diff -r --no-dereference "$scratch/tree" "$scratch/back"
}

program_tar() {
    need tar
    tree "$scratch/tree"
    tar -C "$scratch" -cf - tree | tar -xf -
    tar --compare -f <(tar -C "$scratch" -cf - tree)
    tar --sparse -czf tree.tgz tree && mkdir out && tar -xzf tree.tgz -C out && diff -r --no-dereference tree out/tree
    tar --create --listed-incremental=snapshot --file=full.tar tree
    echo new >tree/new
    tar --create --listed-incremental=snapshot --file=second.tar tree
    same "$(tar -tf second.tar | grep -v '/$')" tree/new
}

program_unzip() {
    need zip unzip
    tree "$scratch/tree"
    (cd "$scratch" && zip -qry tree.zip tree)
    unzip -q "$scratch/tree.zip" && diff -r --no-dereference "$scratch/tree" tree
    zip -qry again.zip tree && unzip -tq again.zip && zip -qd again.zip 'tree/d1/*'
    mkdir out && unzip -q again.zip -d out && rm -r tree/d1 && diff -r --no-dereference tree out/tree
}

program_ripgrep() {
    need rg
    tree tree
    same "$(rg --no-ignore -c '^1369$' tree | wc -l)" "$(grep -rlx 1369 tree | wc -l)"
    same "$(rg --mmap -l '^1369$' tree | sort)" "$(grep -rlx 1369 tree | sort)"
    same "$(rg --files --hidden --no-ignore tree | sort)" "$(find tree -type f | sort)"
}

# What a player does with a film: it jumps, reads a little, appends an index and writes into the head.
program_seeks() {
    need python3
    python3 - <<'END'
import hashlib, os, random
random.seed(5)
size = 64 << 20
def piece(at): return hashlib.sha256(at.to_bytes(8, 'little')).digest() * 2048
with open('film', 'wb') as f:
    for at in range(0, size, 65536): f.write(piece(at))
    f.write(b'index' * 1000)
    f.seek(40); f.write(b'head')
want = lambda at, n: b''.join(piece(p) for p in range(at - at % 65536, at + n, 65536))[at % 65536:][:n]
with open('film', 'rb') as f:
    for _ in range(400):
        at = random.randrange(65536, size - 70000); n = random.randrange(1, 70000)
        f.seek(at); assert f.read(n) == want(at, n), at
    f.seek(-5000, os.SEEK_END); assert f.read() == b'index' * 1000
    f.seek(40); assert f.read(4) == b'head'
    os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    for at in range(size - 65536, 65536, -7 * 65536): f.seek(at); assert f.read(65536) == want(at, 65536)
END
}

program_reflink() {
    tree tree
    cp --reflink=auto tree/large copy && cmp tree/large copy
    cp -a --reflink=auto tree other && diff -r --no-dereference tree other
    printf x | dd of=copy bs=1 seek=5 conv=notrunc status=none
    same "$(cmp tree/large copy | wc -l)" 1
    cp --sparse=always tree/large sparse && cmp tree/large sparse
    truncate -s 100M hole && echo end >>hole && cp --sparse=auto hole hole2 && cmp hole hole2
    [ "$(du -k --apparent-size hole2 | cut -f1)" -ge 102400 ]
}

program_newer() {
    tree tree
    touch -d '2020-01-01 00:00:00.5' mark
    touch -d '2020-01-01 00:00:00.500000001' tree/newer
    touch -d '2020-01-01 00:00:00.499999999' tree/older
    same "$(find tree -newer mark -name newer)" tree/newer
    same "$(find tree -newer mark -name older)" ""
    same "$(find tree -newermt 2001-02-03 ! -newermt 2001-02-04 -type f | sort)" "$(find tree/d1/e1 -type f | sort)"
    remount
    same "$(find tree -newer mark -name newer)" tree/newer
    same "$(find tree -newer mark -name older)" ""
    same "$(find tree -perm 750 -type f)" tree/tool
    same "$(find tree -type l)" tree/link
    same "$(find tree -size +2M)" tree/large
}

program_make() {
    need make cc
    cat >Makefile <<'END'
OBJECTS := $(patsubst %,part%.o,1 2 3 4 5 6 7 8)
all: program
program: $(OBJECTS) main.o
	cc -o $@ $^
%.o: %.c common.h
	cc -c -o $@ $<
END
    echo '#define COMMON 5' >common.h
    for i in $(seq 8); do printf '#include "common.h"\nint part%s(void) { return COMMON + %s; }\n' "$i" "$i" >"part$i.c"; done
    { for i in $(seq 8); do echo "int part$i(void);"; done
      echo '#include <stdio.h>'
      echo 'int main(void) { printf("%d\n", part1()+part2()+part3()+part4()+part5()+part6()+part7()+part8()); return 0; }'
    } >main.c
    make -s -j4
    same "$(./program)" 76
    make -q
    same "$(make)" "make: Nothing to be done for 'all'."
    remount
    same "$(make)" "make: Nothing to be done for 'all'."
    touch part3.c
    same "$(make | grep -c -- '-c -o')" 1
    echo '#define COMMON 6' >common.h
    make -s -j4 && same "$(./program)" 84
    make -q
}

program_loop() {
    need losetup mkfs.ext4 fsck.ext4
    [ "$(id -u)" = 0 ] || { echo "only root mounts a disk image"; exit 77; }
    tree "$scratch/tree"
    truncate -s 200M image && mkfs.ext4 -q -E lazy_itable_init=0 image
    mkdir "$scratch/inner"
    local device
    device=$(losetup --find --show image)
    undo+=("umount '$scratch/inner' 2>/dev/null" "losetup -d '$device' 2>/dev/null")
    mount "$device" "$scratch/inner"
    cp -a "$scratch/tree" "$scratch/inner/" && sync -f "$scratch/inner"
    diff -r --no-dereference "$scratch/tree" "$scratch/inner/tree"
    rm -r "$scratch/inner/tree/d2" && fstrim "$scratch/inner" || true
    umount "$scratch/inner" && losetup -d "$device"
    until_true sh -c "! losetup '$device' 2>/dev/null"
    remount
    fsck.ext4 -fn image
    device=$(losetup --find --show --direct-io=on image || losetup --find --show image)
    undo+=("losetup -d '$device' 2>/dev/null")
    mount "$device" "$scratch/inner"
    rm -r "$scratch/tree/d2" && diff -r --no-dereference "$scratch/tree" "$scratch/inner/tree"
    umount "$scratch/inner" && losetup -d "$device"
    until_true sh -c "! losetup '$device' 2>/dev/null"
    fsck.ext4 -fn image
}

program_cargo() {
    need cargo cc
    cargo new -q --vcs none --name hello hello
    cd hello
    unset CARGO_TARGET_DIR RUSTFLAGS CARGO_BUILD_JOBS
    # Its cache and its locks are on the mount too.
    export CARGO_HOME="$PWD/../home"
    cargo add -q itoa@1 memchr@2
    echo 'fn main() { println!("{}", itoa::Buffer::new().format(memchr::memchr(b"c"[0], b"abc").unwrap())); }' >src/main.rs
    cargo build -q
    same "$(./target/debug/hello)" 2
    same "$(cargo build 2>&1 | grep -c Compiling)" 0 || return 1
    remount
    same "$(cargo build --offline 2>&1 | grep -c Compiling)" 0
    echo '// changed' >>src/main.rs
    same "$(cargo build --offline 2>&1 | grep -c Compiling)" 1
    cargo test -q --offline >/dev/null && cargo clean -q && [ ! -d target ]
}

program_npm() {
    need npm node
    export npm_config_cache="$PWD/cache"
    mkdir project && cd project
    npm init -y >/dev/null
    npm install --no-audit --no-fund --silent is-odd@3 left-pad@1 mkdirp@1
    same "$(node -e 'console.log(require("is-odd")(5), require("left-pad")("x", 3))')" "true   x"
    [ -L node_modules/.bin/mkdirp ]
    npm ls --silent >/dev/null
    remount
    rm -r node_modules && npm ci --prefer-offline --no-audit --no-fund
    same "$(node -e 'console.log(require("is-odd")(5))')" true
    node_modules/.bin/mkdirp one/two && [ -d one/two ]
}

program_pip() {
    need python3
    python3 -m venv env
    export PIP_CACHE_DIR="$PWD/cache" PIP_DISABLE_PIP_VERSION_CHECK=1
    env/bin/pip install -q six==1.16.0 attrs==23.2.0
    same "$(env/bin/python -c 'import six, attr; print(six.__version__, attr.__version__)')" "1.16.0 23.2.0"
    env/bin/pip check >/dev/null
    remount
    same "$(env/bin/python -c 'import six; print(six.__version__)')" "1.16.0"
    env/bin/pip uninstall -q -y six && ! env/bin/python -c 'import six' 2>/dev/null
    python3 -m compileall -q env/lib/python3*/site-packages/attr
}

program_libreoffice() {
    need soffice unzip
    printf 'name,count\na,1\nb,2\n' >table.csv
    export HOME="$scratch/home"
    mkdir -p "$HOME"
    local office=(soffice --headless --norestore --nologo "-env:UserInstallation=file://$scratch/profile")
    "${office[@]}" --convert-to ods table.csv >/dev/null 2>&1
    unzip -tq table.ods
    # A macro opens the table, changes it, and saves it where it is.
    local basic="$scratch/profile/user/basic/Standard"
    mkdir -p "$basic"
    cat >"$basic/script.xlb" <<'END'
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE library:library PUBLIC "-//OpenOffice.org//DTD OfficeDocument 1.0//EN" "library.dtd">
<library:library xmlns:library="http://openoffice.org/2000/library" library:name="Standard" library:readonly="false" library:passwordprotected="false">
 <library:element library:name="Edit"/>
</library:library>
END
    cat >"$basic/Edit.xba" <<END
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE script:module PUBLIC "-//OpenOffice.org//DTD OfficeDocument 1.0//EN" "module.dtd">
<script:module xmlns:script="http://openoffice.org/2000/script" script:name="Edit" script:language="StarBasic">Sub Run
 Dim hidden(0) As New com.sun.star.beans.PropertyValue
 hidden(0).Name = "Hidden"
 hidden(0).Value = True
 document = StarDesktop.loadComponentFromURL("file://$PWD/table.ods", "_blank", 0, hidden())
 document.Sheets(0).getCellRangeByName("A4").String = "by macro"
 document.Sheets(0).getCellRangeByName("B4").Formula = "=SUM(B2:B3)"
 document.store()
 document.close(True)
End Sub
</script:module>
END
    for _ in 1 2; do timeout 120 "${office[@]}" "macro:///Standard.Edit.Run" >/dev/null 2>&1; done
    remount
    unzip -tq table.ods
    mkdir out && "${office[@]}" --convert-to csv --outdir out table.ods >/dev/null 2>&1
    same "$(cat out/table.csv)" $'name,count\na,1\nb,2\nby macro,3'
    # Neither lock files nor temporary ones are left.
    same "$(find . -name '.~*' -o -name 'lu*' | wc -l)" 0
}

program_postgres() {
    local bin
    bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)
    [ -n "$bin" ] && id postgres >/dev/null 2>&1 || { echo "postgresql is not installed"; exit 77; }
    [ "$(id -u)" = 0 ] || { echo "only root becomes the user postgres"; exit 77; }
    mkdir "$scratch/socket" data && chown postgres data "$scratch/socket" && chmod 700 data
    local data=$PWD/data
    as_postgres() { (cd / && runuser -u postgres -- "$@"); }
    start() { as_postgres "$bin/pg_ctl" -s -w -t 120 -D "$data" -l "$scratch/socket/log" -o "-k $scratch/socket -c listen_addresses=" start || { tail -n 20 "$scratch/socket/log"; return 1; }; }
    query() { as_postgres "$bin/psql" -h "$scratch/socket" -X -A -t -q -c "$1" postgres; }
    as_postgres "$bin/initdb" -D "$data" --data-checksums -A trust >/dev/null
    start
    undo+=("runuser -u postgres -- '$bin/pg_ctl' -s -m immediate -D '$data' stop 2>/dev/null")
    as_postgres "$bin/pgbench" -h "$scratch/socket" -i -s 2 -q postgres 2>/dev/null
    as_postgres "$bin/pgbench" -h "$scratch/socket" -c 4 -j 2 -t 250 -n postgres >"$scratch/socket/bench" 2>&1
    grep -E 'tps|processed' "$scratch/socket/bench" || true
    local sums='SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history),
                (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches),
                (SELECT count(*) FROM pgbench_history)'
    same "$(query "$sums")" "t|t|1000"
    # Killed under load, it comes back with all that it acknowledged.
    as_postgres "$bin/pgbench" -h "$scratch/socket" -c 4 -j 2 -T 60 -n postgres >/dev/null 2>&1 &
    loaded() { [ "$(query 'SELECT count(*) FROM pgbench_history')" -gt 1050 ]; }
    until_true loaded
    query "CREATE TABLE acknowledged AS SELECT count(*) AS n FROM pgbench_history; CHECKPOINT; INSERT INTO acknowledged VALUES (0)"
    kill -9 "$(head -n 1 "$data/postmaster.pid")"
    wait || true
    # Its children end by themselves; who is there would keep a new one from starting.
    alone() { ! readlink /proc/[0-9]*/cwd 2>/dev/null | grep -qx "$data"; }
    until_true alone
    # Its number may be taken for a living process where nobody waits for orphans.
    rm -f "$data/postmaster.pid" "$scratch"/socket/.s.PGSQL.*
    start
    same "$(query 'SELECT count(*) FROM acknowledged; ')" 2
    same "$(query "SELECT (SELECT count(*) FROM pgbench_history) >= (SELECT max(n) FROM acknowledged)")" t
    same "$(query "${sums%,*}")" "t|t"
    query 'VACUUM FULL'
    query 'REINDEX DATABASE postgres'
    as_postgres "$bin/pg_amcheck" -h "$scratch/socket" --install-missing postgres
    as_postgres "$bin/pg_ctl" -s -w -m fast -D "$data" stop
    remount
    as_postgres "$bin/pg_checksums" --check -D "$data" | grep -q 'Bad checksums:  0'
    start && same "$(query "${sums%,*}")" "t|t"
    as_postgres "$bin/pg_ctl" -s -w -m fast -D "$data" stop
}

cd "$(dirname "$0")/.."
on=""
if [ "${1:-}" = --on ]; then on=$(realpath "$2") && shift 2; fi
names=()
for name in "$@"; do
    case "$name" in
    light) names+=("${LIGHT[@]}") ;;
    heavy) names+=("${HEAVY[@]}") ;;
    *) declare -F "program_$name" >/dev/null || { echo "no program '$name'; there are: ${LIGHT[*]} ${HEAVY[*]}" >&2; exit 2; }
       names+=("$name") ;;
    esac
done
[ "${#names[@]}" -gt 0 ] || names=("${LIGHT[@]}" "${HEAVY[@]}")
mountctl=$(realpath -m "${PARSECFS_MOUNTCTL:-${CARGO_TARGET_DIR:-target}/release/mountctl}")

world=$(mktemp -d)
# PostgreSQL runs as another user.
chmod 755 "$world"
mkdir "$world/scratch"
own() { "$mountctl" --home "$world/home" --quiet "$@"; }
mount_it() {
    mkdir -p "$world/mnt"
    if [ "$(id -u)" = 0 ]; then own mount workspace "$world/mnt" -o allow_other; else own mount workspace "$world/mnt"; fi
}
if [ -z "$on" ]; then
    own quickstart --at "$world/store" --mount "$world/mnt" --workspace workspace
    own umount --all --flush
    mount_it
    root="$world/mnt"
else
    root=$(mktemp -d -p "$on")
    chmod 755 "$root"
fi
# Unmounts and mounts again: what is seen afterwards comes from the store. The caller stays in its folder.
remount() {
    [ -z "$on" ] || return 0
    local here=$PWD
    cd /
    own umount --all --flush && mount_it
    cd "$here"
}
finish() {
    cd /
    if [ -z "$on" ]; then own umount --all --flush || own umount --all --force || true; else rm -rf "$root"; fi
    rm -rf "$world"
}
trap finish EXIT

run() (
    set -euo pipefail
    scratch="$world/scratch/$1"
    undo=()
    # What a program left mounted or running goes, also after a failure.
    trap 'cd /; for step in ${undo[@]+"${undo[@]}"}; do eval "$step" || true; done' EXIT
    mkdir "$scratch" "$root/$1"
    chmod 755 "$scratch"
    cd "$root/$1"
    "program_$1"
)

failed=()
for name in "${names[@]}"; do
    started=$SECONDS
    set +e
    run "$name" >"$world/$name.log" 2>&1
    status=$?
    set -e
    case "$status" in
    0) echo "ok   $name, $((SECONDS - started)) s" ;;
    77)
        echo "SKIP $name: $(tail -n 1 "$world/$name.log")"
        [ -z "${CI:-}" ] || failed+=("$name")
        ;;
    *)
        echo "FAIL $name"
        tail -n 30 "$world/$name.log" | sed 's/^/     /'
        failed+=("$name")
        ;;
    esac
    grep -E '^(tps|number of transactions)' "$world/$name.log" | sed 's/^/     /' || true
done
[ "${#failed[@]}" = 0 ] || { echo "failed: ${failed[*]}"; exit 1; }
