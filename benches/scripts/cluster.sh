#!/usr/bin/env bash
# Queries between two processes, and broadcasts to eight, beside others that do the same, in turn.
#   benches/scripts/cluster.sh NODE_LUA ROUNDS [SKYNET]
# NODE_LUA is a release build, SKYNET a folder in which skynet was built. Needs nats-server, Go and
# Debian's golang-github-nats-io-go-nats-dev, and Erlang.
set -euo pipefail
node_lua=$(realpath "$1") rounds=$2 skynet=${3:-}
here=$(realpath "$(dirname "$0")") peers=$(realpath "$(dirname "$0")/../contestants/cluster")
url=nats://127.0.0.1:4888
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
export RUST_LOG=error BENCH=$peers

(cd "$peers" && GO111MODULE=off GOPATH=/usr/share/gocode go build -o "$work/peer" main.go)
erlc -o "$work" "$peers/cluster_bench.erl"
nats-server -p 4888 >"$work/nats.log" 2>&1 &
server=$!
sleep 1
"$node_lua" --cluster $url "$here/cluster_ask.lua" serve >/dev/null &
"$work/peer" serve $url >/dev/null &
"$work/peer" tcp-serve 127.0.0.1:4889 >/dev/null &
(cd "$work" && exec erl -noshell -sname serve -setcookie bench -s cluster_bench serve) >/dev/null &
if [ -n "$skynet" ]; then
    (cd "$skynet" && BENCH_ROLE=serve exec ./skynet "$peers/skynet_config") >/dev/null 2>&1 &
fi
sleep 2

cpu() { awk '{print $14 + $15}' "/proc/$server/stat"; }

ask() { # count, in flight
    echo "node-lua    $("$node_lua" --cluster $url "$here/cluster_ask.lua" "$1" "$2")"
    echo "nats.go     $("$work/peer" ask $url "$1" "$2")"
    echo "go tcp      $("$work/peer" tcp-ask 127.0.0.1:4889 "$1" "$2")"
    echo "erlang      $(cd "$work" && erl -noshell -sname ask -setcookie bench \
        -run cluster_bench ask "$1" "$2")"
    if [ -n "$skynet" ]; then
        echo "skynet      $(cd "$skynet" && BENCH_ROLE=ask BENCH_COUNT=$1 BENCH_FLIGHT=$2 \
            ./skynet "$peers/skynet_config" | grep flight)"
    fi
}

broadcast() { # count, subscribers of each process
    local before listeners=()
    for number in 1 2 3 4 5 6 7 8; do
        "$node_lua" --cluster $url --node "l$number" "$here/cluster_broadcast.lua" \
            listen "$1" "$2" >/dev/null &
        listeners+=($!)
    done
    before=$(cpu)
    echo "node-lua    8 x $2: $("$node_lua" --cluster $url "$here/cluster_broadcast.lua" send "$1" 8)," \
        "server CPU $((($(cpu) - before) * 10000 / $1)) us each"
    wait "${listeners[@]}"
    before=$(cpu)
    echo "nats.go     8 x $2: $("$work/peer" broadcast $url "$3" 8 "$2")," \
        "server CPU $((($(cpu) - before) * 10000 / $3)) us each"
}

for round in $(seq "$rounds"); do
    echo "round $round, load $(cut -d' ' -f1 /proc/loadavg)"
    ask 20000 1
    ask 200000 512
    broadcast 20000 1 20000
    broadcast 4000 100 1500
done
