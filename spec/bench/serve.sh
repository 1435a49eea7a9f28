#!/bin/sh
# The server against nginx and against Lua in process:  spec/bench/serve.sh BUILD_DIR OUT_DIR ROUNDS
#
# Processor time per request of the server process (user and system, from /proc) at 32 connections, interleaved with nginx
# serving a static body of the same size; create, exec and terminate over HTTP against the same from a script in process;
# 1,000 streaming execs at once.
set -eu
case $1 in /*) build=$1 ;; *) build=$PWD/$1 ;; esac
out=$2 rounds=$3
for tool in wrk nginx python3; do
  command -v "$tool" >/dev/null || { echo "serve: skipped, $tool is not installed"; exit 0; }
done
dir=$(mktemp -d)
pids=
finish() {
  # shellcheck disable=SC2086  # a list of processes
  [ -z "$pids" ] || kill $pids 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT
trap 'exit 130' INT TERM

SERVE_KEYS=$("$build/regolith" key add bench --credit 1000000 --state "$dir/state" | grep -o 'sk-[0-9a-z]*' | head -1)
"$build/regolith" serve --listen 127.0.0.1:0 --state "$dir/state" --default-image host --default-network none >"$dir/out" &
ours=$!
pids=$ours
until grep -q 'http://' "$dir/out"; do sleep 0.1; done
SERVE_URL=$(grep -o 'http://[^ ]*' "$dir/out" | head -1)
export SERVE_URL SERVE_KEYS
base=$SERVE_URL/v1/marketplace/compute/sandbox
post() { curl -sS -X POST -H "Authorization: Bearer $SERVE_KEYS" -d "$2" "$base/$1"; }
box=$(post create '{"timeout": 3600}' | sed -E 's/.*"sandbox_id":"([^"]*)".*/\1/')

mkdir "$dir/www"
curl -sS "$SERVE_URL/healthz" >"$dir/www/healthz"
post status "{\"sandbox_id\":\"$box\"}" >"$dir/www/status"
port=$((20000 + $$ % 10000))
cat >"$dir/nginx.conf" <<X
worker_processes 1; daemon off; master_process off; pid $dir/nginx.pid; error_log $dir/nginx.err;
events { worker_connections 1024; }
http { access_log off; keepalive_requests 1000000000; client_body_temp_path $dir; proxy_temp_path $dir;
  fastcgi_temp_path $dir; uwsgi_temp_path $dir; scgi_temp_path $dir; types { } default_type application/json;
  server { listen 127.0.0.1:$port; root $dir/www; } }
X
nginx -c "$dir/nginx.conf" &
nginx=$!
pids="$ours $nginx"
until curl -sSf "http://127.0.0.1:$port/healthz" >/dev/null 2>&1; do sleep 0.1; done
cat >"$dir/status.lua" <<X
wrk.method = "POST"
wrk.body = '{"sandbox_id":"$box"}'
wrk.headers["Authorization"] = "Bearer $SERVE_KEYS"
X

ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
# NAME PID URL [OPTION...]: one run; appends microseconds of processor time per request to NAME's file.
cost() {
  name=$1 pid=$2 url=$3 # the server's process
  shift 3
  before=$(ticks "$pid")
  n=$(wrk -t1 -c32 -d3s "$@" "$url" | awk '/requests in/ { print $1 } /Non-2xx/ { print "bad" > "/dev/stderr" }')
  echo "$(($(ticks "$pid") - before)) $n" | awk -v hz="$(getconf CLK_TCK)" '{ printf "%.2f\n", $1 / hz * 1e6 / $2 }' >>"$dir/$name"
}
for _ in $(seq "$rounds"); do
  cost healthz "$ours" "$SERVE_URL/healthz"
  cost nginx-healthz "$nginx" "http://127.0.0.1:$port/healthz"
  cost status "$ours" "$base/status" -s "$dir/status.lua"
  cost nginx-status "$nginx" "http://127.0.0.1:$port/status"
done
# KIND ROW FILE: a row with the numbers of FILE.
row() {
  printf '%s\t%s\n' "$1" "$2"
  sed 's/^/sample\t/' "$dir/$3"
}
{
  printf 'group\tserve_healthz\tGET /healthz, processor time of the server a request\tus\n'
  row peer "nginx, the same body" nginx-healthz
  row row "regolith serve" healthz
} >"$out/serve_healthz.tsv"
{
  printf 'group\tserve_status\tPOST /sandbox/status with its debit, processor time of the server a request\tus\n'
  row peer "nginx, a body of the same size" nginx-status
  row row "regolith serve" status
} >"$out/serve_status.tsv"

for _ in $(seq "$rounds"); do
  python3 spec/serve/load.py life 100 >>"$dir/life"
  "$build/regolith" run --trust spec/bench/life.lua -- 100 0 | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }' >>"$dir/lua"
done
{
  printf 'group\tserve_life\tCreate, exec, terminate; each sample is the median of 100\tus\n'
  row row "from Lua in process" lua
  row row "over HTTP" life
} >"$out/serve_life.tsv"
{
  printf 'group\tserve_streams\t1,000 execs of 3 s as event streams at once, each whole\tms\nrow\tfirst request to last event\n'
  python3 spec/serve/load.py streams 1000 | awk '{ print > "/dev/stderr" } / in [0-9.]+ s$/ { printf "sample\t%d\n", $(NF - 1) * 1000 }'
} >"$out/serve_streams.tsv"
