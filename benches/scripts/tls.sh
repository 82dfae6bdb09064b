#!/bin/sh
# TLS in node-lua and in nginx, in turn: see "TLS" in benches/README.md. From the repository's root:
#
#     benches/scripts/tls.sh [NODE_LUA [ROUNDS [SECONDS]]]

set -e
node_lua=${1:-target/release/node-lua} rounds=${2:-5} seconds=${3:-2}
script=benches/scripts/tls.lua
folder=$(mktemp -d)
trap 'kill $pids 2>/dev/null; rm -rf "$folder"' EXIT

cat >"$folder/nginx.conf" <<END
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid $folder/pid; error_log $folder/log;
events { worker_connections 2000; }
stream {
    ssl_certificate $PWD/examples/localhost.pem;
    ssl_certificate_key $PWD/examples/localhost.pem;
    ssl_protocols TLSv1.3;
    ssl_session_cache shared:tls:10m;
    server { listen 127.0.0.1:7453 ssl; tcp_nodelay on; proxy_pass 127.0.0.1:7450; }
    server { listen 127.0.0.1:7454 ssl; return x; }
}
END

start() {
    "$@" &
    pids="$pids $!"
    pid=$!
}
start "$node_lua" $script plain 7450
start "$node_lua" --workers 1 $script echo 7451
echo_pid=$pid
start "$node_lua" --workers 1 $script proxy 7452 7450
proxy_pid=$pid
start nginx -e "$folder/log" -c "$folder/nginx.conf"
nginx_pid=$pid
start "$node_lua" --workers 1 $script hello 7455
hello_pid=$pid
sleep 1

ask() {
    printf '%-22s ' "$1"
    shift
    "$node_lua" $script "$@"
}
echo 'what, count, seconds, CPU seconds of the server, count per CPU second'
for _ in $(seq "$rounds"); do
    for connections in 1 50; do
        ask "echo x $connections" load 7451 "$echo_pid" "$seconds" $connections 16384
        ask "proxy x $connections" load 7452 "$proxy_pid" "$seconds" $connections 16384
        ask "nginx proxy x $connections" load 7453 "$nginx_pid" "$seconds" $connections 16384
    done
    for kind in new resumed; do
        ask "node-lua $kind" handshakes 7455 "$hello_pid" "$seconds" $kind
        ask "nginx $kind" handshakes 7454 "$nginx_pid" "$seconds" $kind
    done
done
