#!/usr/bin/env bash
# A mount on the real Parsec server (in memory) beside bare loops of requests to it, in one run: `benches/server.sh`.
#
# Upload and download of a large file, many small files from the first write until all are on the server, and a cold
# read through forwarders without and with 50 ms of delay in each direction. Needs /dev/fuse and the Python environment that
# the tests make. PARSECFS_RELEASE names the folder of the release build.
set -euo pipefail
cd "$(dirname "$0")/.."

MIB=${MIB:-256} FILES=${FILES:-1000} DELAY_MS=${DELAY_MS:-50}
release=${PARSECFS_RELEASE:-target/release}
server=${XDG_CACHE_HOME:-$HOME/.cache}/parsecfs-tests/parsec-cloud-3.9.3/bin/parsec
[ -x "$server" ] || { echo "run the tests first: they make the server's environment" >&2; exit 1; }
work=$(mktemp -d)
port=6777 line=6778
url="parsec3://127.0.0.1:$port?no_ssl=true"
line_pid=

homes=()
mountctl() { "$release/mountctl" --home "$work/$1" --quiet "${@:2}"; }
stop() {
    for home in "${homes[@]}"; do mountctl "$home" umount --all --force >/dev/null 2>&1 || true; done
    kill "$server_pid" $line_pid 2>/dev/null || true
    rm -rf "$work"
}
"$server" run --dev --host 127.0.0.1 --port "$port" --server-addr "$url" --log-level warning >"$work/log" 2>&1 &
server_pid=$!
trap stop EXIT
until curl --silent --output /dev/null "http://127.0.0.1:$port/"; do sleep 0.1; done

now() { date +%s.%N; }
rate() { awk -v amount="$1" -v from="$2" -v to="$3" 'BEGIN { printf "%.1f", amount / (to - from) }'; }

# A further device, which reaches the server at this port: name, port. A device knows its server by the link that let it in.
device() {
    homes+=("$1")
    local link token
    link=$(mountctl first invite device)
    token=$(mountctl first --json invite list | python3 -c 'import json, sys; print(json.load(sys.stdin)[-1]["token"])')
    python3 benches/introduce.py "$release/mountctl" "$work/first" "$work/$1" "$token" "${link/:$port/:$2}" "$1"
    mkdir "$work/$1.mnt"
    mountctl "$1" mount bench "$work/$1.mnt" >/dev/null
    until [ -e "$work/$1.mnt/large" ]; do sleep 0.1; done
}

echo "bare: $("$release/parsecfs-bare-server" "$url" s3cr3t --mib "$MIB" --vlobs "$FILES")"

homes+=(first)
echo s3cr3t >"$work/token"
mountctl first org create Bench --backend "$url" --admin-token-file "$work/token" --email a@example.com --name A \
    --auth keyfile >/dev/null
mountctl first workspace create bench >/dev/null
mkdir "$work/first.mnt"
mountctl first mount bench "$work/first.mnt" >/dev/null
head -c "${MIB}M" /dev/urandom >"$work/large"
cp "$work/large" "$work/first.mnt/large"
from=$(now); mountctl first sync bench >/dev/null; to=$(now)
echo "upload: $(rate "$MIB" "$from" "$to") MiB/s"

mkdir "$work/first.mnt/small"
from=$(now)
python3 - "$work" "$FILES" <<'PY'
import sys
work, files = sys.argv[1], int(sys.argv[2])
with open(f"{work}/large", "rb") as large:
    for number in range(files):
        with open(f"{work}/first.mnt/small/{number}", "wb") as small:
            small.write(large.read(4096))
PY
written=$(now)
mountctl first wait bench --synced --timeout 300 >/dev/null
to=$(now)
echo "small files: $(rate "$FILES" "$from" "$to") files/s; $(rate "$FILES" "$from" "$written") while they were written"

# Name of a new device, port, what is told.
read_cold() {
    device "$1" "$2"
    from=$(now); dd if="$work/$1.mnt/large" of=/dev/null bs=1M status=none; to=$(now)
    echo "$3: $(rate "$MIB" "$from" "$to") MiB/s"
    cmp "$work/$1.mnt/large" "$work/large"
    mountctl "$1" umount --all --force >/dev/null
}
# The same through a forwarder with this delay: name, ms.
read_delayed() {
    "$release/parsecfs-delay" "$line" "$port" "$2" &
    line_pid=$!
    read_cold "$1" "$line" "read cold, $2 ms each way"
    kill "$line_pid"; wait "$line_pid" 2>/dev/null || true
    line_pid=
}
read_cold second "$port" download
read_delayed third 0
read_delayed fourth "$DELAY_MS"
