#!/bin/bash
# usage: print.sh NODE_LUA [LUAJIT] [ROUNDS]
# Three million lines of `print` into a pipe, by both in turn; prints the medians, in seconds, and
# that of the ratios within the rounds.
node_lua=${1:?usage: print.sh NODE_LUA [LUAJIT] [ROUNDS]} luajit=${2:-luajit} rounds=${3:-15}
TIMEFORMAT=%R
seconds() { { time "$1" -e 'for i = 1, 3e6 do print(i) end' | cat >/dev/null; } 2>&1; }
results=$(for ((round = 0; round < rounds; round++)); do
  ours=$(seconds "$node_lua") theirs=$(seconds "$luajit")
  awk -v ours="$ours" -v theirs="$theirs" 'BEGIN { print ours, theirs, ours / theirs }'
done)
median() { cut -d' ' -f"$1" <<<"$results" | sort -n | sed -n "$(((rounds + 1) / 2))p"; }
echo "node-lua $(median 1), luajit $(median 2), ratio $(median 3)"
