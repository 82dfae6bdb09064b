#!/bin/sh
# HTTP in node-lua and in others, in turn: see "HTTP" in benches/README.md. From the repository's
# root:
#
#     benches/scripts/http.sh [NODE_LUA [ROUNDS [SECONDS]]]
#
# Prints requests per CPU second of each server, the medians of all rounds, and × the first. `raw`
# is no server: it answers whatever comes with the same bytes, which shows what the kernel alone
# takes of it. It is part of the benchmarks' own program: cargo build --release -p node-lua-bench

set -e
node_lua=${1:-target/release/node-lua} rounds=${2:-5} seconds=${3:-2}
here=benches/contestants/http
folder=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null; rm -rf "$folder"' EXIT

cat >"$folder/nginx.conf" <<END
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
daemon off; master_process off; pid $folder/pid; error_log $folder/log;
events { worker_connections 2000; }
http {
    access_log off;
    keepalive_requests 1000000000;
    init_by_lua_block { cjson = require "cjson" }
    server {
        listen 127.0.0.1:18093 backlog=4096;
        tcp_nodelay on;
        location = / { content_by_lua_block {
            ngx.header["content-type"] = "text/plain"
            ngx.header["content-length"] = 5
            ngx.print("hello")
        } }
        location = /json { content_by_lua_block {
            local body = cjson.encode({ message = "hello", numbers = { 1, 2, 3 }, ok = true })
            ngx.header["content-type"] = "application/json"
            ngx.header["content-length"] = #body
            ngx.print(body)
        } }
    }
}
END
(cd "$here" && GO111MODULE=off go build -o "$folder/go" main.go) || true

# start NAME PORT COMMAND...: a server, unless it is missing here.
start() {
    name=$1 port=$2
    shift 2
    if ! command -v "$1" >/dev/null; then
        echo "$name: no $1 here, skipped" >&2
        return
    fi
    "$@" >"$folder/$name.log" 2>&1 &
    pids="$pids $!"
    echo "$name $port $!" >>"$folder/servers"
}
start node-lua 18090 "$node_lua" --workers 1 benches/scripts/http_hello.lua 18090
start by-hand 18091 "$node_lua" --workers 1 benches/scripts/http_by_hand.lua 18091
start raw 18092 target/release/node-lua-bench serve raw-answer 18092
start nginx+lua 18093 nginx -e "$folder/log" -c "$folder/nginx.conf"
start nodejs 18094 node "$here/server.js" 18094
start go 18095 env GOMAXPROCS=1 "$folder/go" 18095
start tarantool 18096 tarantool "$here/tarantool.lua" 18096
sleep 1

# The CPU time of a process so far, in ticks.
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }

# measure NAME PORT PID CONNECTIONS PATH
measure() {
    wrk -t1 -c"$4" -d1s "http://127.0.0.1:$2$5" >/dev/null
    before=$(ticks "$3")
    wrk -t1 -c"$4" -d"${seconds}s" "http://127.0.0.1:$2$5" >"$folder/wrk"
    after=$(ticks "$3")
    if grep -q 'Non-2xx' "$folder/wrk"; then echo "$1: not all were answered" >&2; fi
    awk -v name="$1" -v row="$5 x $4" -v ticks=$((after - before)) -v rate="$(getconf CLK_TCK)" \
        '/requests in/ { printf "%s\t%s\t%.0f\n", row, name, $1 / ticks * rate }' "$folder/wrk"
}
for _ in $(seq "$rounds"); do
    for what in "50 /" "500 /" "50 /json" "500 /json"; do
        while read -r name port pid; do
            case "$name $what" in raw*/json) continue ;; esac
            # shellcheck disable=SC2086
            measure "$name" "$port" "$pid" $what
        done <"$folder/servers"
    done
done >"$folder/all"

sort -t "$(printf '\t')" -k1,1 -k2,2 -k3,3n "$folder/all" | awk -F '\t' '
    function tell() {
        if (key == "") return
        middle = n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2
        median[key] = middle; least[key] = v[1]; most[key] = v[n]
    }
    { k = $1 FS $2
      if (k != key) { tell(); key = k; n = 0; order[++count] = k }
      v[++n] = $3 }
    END { tell()
        for (i = 1; i <= count; i++) {
            split(order[i], part, FS); ours = median[part[1] FS "node-lua"]; m = median[order[i]]
            printf "%-14s %-10s %8.0f  (%.0f to %.0f)  node-lua is x %.2f\n", \
                part[1], part[2], m, least[order[i]], most[order[i]], ours / m
        }
    }'
