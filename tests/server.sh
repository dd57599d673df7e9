#!/usr/bin/env bash
# The tests that need a Parsec server, on one that keeps everything in PostgreSQL instead of in memory.
#
# Needs PostgreSQL (Debian: postgresql), Python 3.12 and cargo-nextest. Leaves nothing running.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1 || true)
[ -n "$bin" ] || { echo "SKIP: there is no PostgreSQL here" >&2; exit 0; }
folder=$(mktemp -d)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')

# PostgreSQL does not run as root.
as_owner=()
if [ "$(id -u)" = 0 ]; then
    chown postgres "$folder"
    as_owner=(runuser -u postgres --)
fi
stop() {
    (cd / && "${as_owner[@]}" "$bin/pg_ctl" --pgdata "$folder/data" --mode immediate stop >/dev/null 2>&1) || true
    rm -rf "$folder"
}
trap stop EXIT
cd /
"${as_owner[@]}" "$bin/initdb" --pgdata "$folder/data" --auth trust --username tests >"$folder.log" 2>&1 || { cat "$folder.log"; exit 1; }
rm -f "$folder.log"
"${as_owner[@]}" "$bin/pg_ctl" --pgdata "$folder/data" --wait --log "$folder/log" \
    --options "-p $port -h 127.0.0.1 -k $folder -c fsync=off -c max_connections=200" start >/dev/null
cd - >/dev/null

# One server after the other: each takes its time to make its tables.
PARSECFS_POSTGRES="postgresql://tests@127.0.0.1:$port" \
    cargo nextest run --package parsecfs-tests --test-threads 2 \
    --test parsec_server --test cli_server --test bad_server --test server_states --test shared_recovery \
    --test return_by_shares --test sequester --test left_to_itself "$@"
