#!/bin/bash
# bench.sh [-t SECONDS] [-r ROUNDS] [-g on|off|both] [-p] [PEER...]
#
# Measures Etherloom beside what a user would pick instead, in two network namespaces joined by a veth, with the daemons and
# the load on the same processors:
#
#     [bench-PID-a 10.9.0.1] va ======== vb [10.9.0.2 bench-PID-b]
#
# Rounds are interleaved, so that a noisy machine is unfair to all alike; the table shows medians. It holds, for each peer:
# one TCP stream and four (Mbit/s, iperf3), UDP with 64-byte payloads (thousand datagrams received per second), the
# ping round trip (µs, median of 400), idle and under one TCP stream, and the processor time for each Gbit of the one
# stream: of the whole machine, and of the daemons that carry data alone. A second table holds Etherloom against the bars of
# scripts/bars.jq, as far as their peers were measured.
#
#   -t  seconds of each load, 6            -g  segmentation and receive offload of the veth, on
#   -r  rounds, 3                          -p  install the peers that Debian has, as root
#
# PEER: etherloom etherloom-open veth vxlan wireguard-go ts-wireguard-go wireguard-go+vxlan tinc fastd openvpn nebula n2n.
# Without one: etherloom and every other whose program is installed. wireguard-go, ts-wireguard-go and nebula are built from
# their modules into $BENCH_BIN when they are named. etherloom-open is Etherloom with a switch that judges no frame
# (switch/admit_open.go), built from this tree into $BENCH_BIN: run `make build` first, so that both are of one source.
#
# The daemons' processor time is that of a cgroup of their own (v2), or, where none can be made, what /proc says of them. What
# the kernel does for a peer outside of its daemons is in the machine's time alone.
#
# Needs root. iperf3, fping, jq and, for -g off, ethtool are installed when they are missing.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
seconds=6 rounds=3 offloads=on install=
while getopts t:r:g:p o; do
  case $o in
  t) seconds=$OPTARG ;;
  r) rounds=$OPTARG ;;
  g) offloads=$OPTARG ;;
  p) install=1 ;;
  *) sed -n '2,26p' "$0" >&2; exit 2 ;;
  esac
done
shift $((OPTIND - 1))

[ "$(id -u)" = 0 ] || { echo "bench.sh needs root, for network namespaces" >&2; exit 1; }
"$here/scripts/ensure.sh" iperf3:iperf3 fping:fping jq:jq ethtool:ethtool
[ -z "$install" ] || "$here/scripts/ensure.sh" tincd:tinc fastd:fastd openvpn:openvpn edge:n2n wg:wireguard-tools openssl:openssl
[ -x "$here/bin/etherloom" ] || make -C "$here" build

BENCH_BIN=${BENCH_BIN:-$HOME/.cache/etherloom-bench/bin}
work=$(mktemp -d)
dst=
pids=() daemons=()
bed=bench-$$ # what the namespaces are called, so that two runs are in nobody's way
cgroup='' mounted=''

installed() {
  echo etherloom
  local pair
  for pair in etherloom-open:go veth:ip vxlan:ip wireguard-go:"$BENCH_BIN/wireguard-go" ts-wireguard-go:"$BENCH_BIN/ts-wireguard-go" tinc:tincd \
    fastd:fastd openvpn:openvpn nebula:"$BENCH_BIN/nebula" n2n:edge; do
    command -v "${pair#*:}" >/dev/null 2>&1 && echo "${pair%%:*}"
  done
  return 0
}

down() {
  local p ns
  for p in "${pids[@]:-}"; do [ -z "$p" ] || kill "$p" 2>/dev/null || true; done
  for p in "${pids[@]:-}"; do [ -z "$p" ] || wait "$p" 2>/dev/null || true; done
  pids=() daemons=()
  for ns in "$bed-a" "$bed-b"; do
    for p in $(ip netns pids $ns 2>/dev/null); do kill -9 "$p" 2>/dev/null || true; done
    ip netns del $ns 2>/dev/null || true
  done
}
trap 'down; close_cgroup; rm -rf "$work"' EXIT

open_cgroup() { # makes a cgroup for the daemons; $cgroup stays empty where that cannot be
  local root
  root=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts)
  if [ -z "$root" ]; then
    mounted=$(mktemp -d)
    root=$mounted
    mount -t cgroup2 none "$root" 2>/dev/null || { rmdir "$mounted"; mounted=''; return 0; }
  fi
  cgroup=$root/etherloom-bench.$$
  { mkdir "$cgroup" && grep -q '^usage_usec' "$cgroup/cpu.stat" && (echo "$BASHPID" >"$cgroup/cgroup.procs"); } 2>/dev/null ||
    { rmdir "$cgroup" 2>/dev/null || true; cgroup=''; }
}
close_cgroup() {
  [ -z "$cgroup" ] || for _ in $(seq 20); do rmdir "$cgroup" 2>/dev/null && break; sleep 0.1; done
  [ -z "$mounted" ] || { umount "$mounted" && rmdir "$mounted"; }
}
spent() { # processor time of the daemons so far, in µs
  local p
  if [ -n "$cgroup" ]; then
    awk '$1 == "usage_usec" {print $2}' "$cgroup/cpu.stat"
    return
  fi
  for p in "${daemons[@]:-}"; do [ -z "$p" ] || sed 's/.*) //' "/proc/$p/stat" 2>/dev/null || true; done |
    awk -v hz="$(getconf CLK_TCK)" '{t += $12 + $13} END {printf "%d\n", t * 1e6 / hz}' # proc_pid_stat(5): utime, stime
}

up() { # offloads
  down
  rm -rf "${work:?}"/*
  ip netns add "$bed-a"
  ip netns add "$bed-b"
  ip link add va netns "$bed-a" type veth peer name vb netns "$bed-b"
  local n
  for n in a b; do
    ip -n "$bed-$n" link set lo up
    ip -n "$bed-$n" link set v$n up
  done
  ip -n "$bed-a" addr add 10.9.0.1/24 dev va
  ip -n "$bed-b" addr add 10.9.0.2/24 dev vb
  if [ "$1" = off ]; then
    for n in a b; do
      ip netns exec "$bed-$n" ethtool -K v$n tx-udp-segmentation off tso off gso off gro off >/dev/null 2>&1 || true
    done
  fi
}

ina() { ip netns exec "$bed-a" "$@"; }
inb() { ip netns exec "$bed-b" "$@"; }
aside() { # namespace suffix, command: in the background
  local ns=$1
  shift
  ip netns exec "$bed-$ns" "$@" >"$work/$ns.$RANDOM.log" 2>&1 &
  pids+=($!)
}
daemon() { # the same for what carries data, whose processor time counts
  local ns=$1
  shift
  (
    [ -z "$cgroup" ] || echo "$BASHPID" >"$cgroup/cgroup.procs"
    exec ip netns exec "$bed-$ns" "$@"
  ) >"$work/$ns.$RANDOM.log" 2>&1 &
  pids+=($!) daemons+=($!)
}
each() { "$1" a 1 2; "$1" b 2 1; }

goprog() { # NAME MODULE@VERSION PACKAGE: builds a program from its module
  [ -x "$BENCH_BIN/$1" ] && return
  mkdir -p "$BENCH_BIN" "$work/mod-$1"
  (
    cd "$work/mod-$1"
    go mod init x && go get "$2"
    src=$(go list -m -f '{{.Dir}}' "${2%@*}")
    cp -r "$src" src && chmod -R u+w src && cd src && go build -o "$BENCH_BIN/$1" "$3"
  ) >/dev/null 2>&1
}

peer_etherloom() { loom_up "$here/bin/etherloom"; }
peer_etherloom-open() {
  mkdir -p "$BENCH_BIN"
  go build -C "$here" -trimpath -ldflags '-s -w' -tags openswitch -o "$BENCH_BIN/etherloom-open" ./cmd/etherloom >&2 || return
  loom_up "$BENCH_BIN/etherloom-open"
}
loom_up() { # program of the nodes
  local loom=$1 admin=$work/controller/admin.json n token
  aside b "$here/bin/etherloom-controller" --data-dir "$work/controller" --listen 10.9.0.2:443 --advertise https://10.9.0.2
  for _ in $(seq 100); do [ -s "$admin" ] && inb "$loom" grant list --admin "$admin" >/dev/null 2>&1 && break; sleep 0.1; done
  for n in a b; do
    token=$(inb "$loom" token create --label bench=1 --admin "$admin" 2>/dev/null)
    ip netns exec "$bed-$n" "$loom" join "$token" --name $n --state-dir "$work/state-$n" >/dev/null
    daemon $n "$loom" run --state-dir "$work/state-$n" --dns-resolver off --log-level warn
  done
  inb "$loom" grant add --from label:bench=1 --to segment:lan --admin "$admin" >/dev/null
  for _ in $(seq 100); do
    dst=$(inb "$loom" names --state-dir "$work/state-b" --json 2>/dev/null |
      jq -r '.names[]|select(.name|startswith("b."))|.addresses[]|select(contains("."))' || true)
    [ -n "$dst" ] && break
    sleep 0.1
  done
  for _ in $(seq 100); do
    ina fping -q -t 300 -r 0 "$dst" >/dev/null 2>&1 || true
    ina "$loom" peers --state-dir "$work/state-a" | grep -q ' direct ' && return
    sleep 0.2
  done
  return 1
}

peer_veth() { each veth_one; }
veth_one() { ip -n "$bed-$1" addr add 10.20.0."$2"/24 dev v"$1"; }

peer_vxlan() { each vxlan_one; }
vxlan_one() {
  ip -n "$bed-$1" link add vx type vxlan id 7 dstport 4789 local 10.9.0."$2" remote 10.9.0."$3" dev v"$1"
  ip -n "$bed-$1" addr add 10.20.0."$2"/24 dev vx
  ip -n "$bed-$1" link set vx up
}

wg_keys() { (umask 077; wg genkey >"$work/ka"; wg genkey >"$work/kb"); }
wg_up() { # program, network
  local net=${2:-10.20.0}
  command -v wg >/dev/null
  wg_keys
  daemon a "$1" -f wga
  daemon b "$1" -f wgb
  sleep 1
  ina wg set wga listen-port 51820 private-key "$work/ka" peer "$(wg pubkey <"$work/kb")" allowed-ips "$net.2/32" endpoint 10.9.0.2:51820
  inb wg set wgb listen-port 51820 private-key "$work/kb" peer "$(wg pubkey <"$work/ka")" allowed-ips "$net.1/32" endpoint 10.9.0.1:51820
  ip -n "$bed-a" addr add "$net.1/24" dev wga
  ip -n "$bed-b" addr add "$net.2/24" dev wgb
  ip -n "$bed-a" link set wga mtu 1420 up
  ip -n "$bed-b" link set wgb mtu 1420 up
}
peer_wireguard-go() {
  goprog wireguard-go golang.zx2c4.com/wireguard@latest .
  wg_up "$BENCH_BIN/wireguard-go"
}
peer_ts-wireguard-go() {
  goprog ts-wireguard-go github.com/tailscale/wireguard-go@v0.0.0-20260928213032-417aef361226 .
  wg_up "$BENCH_BIN/ts-wireguard-go"
}
peer_wireguard-go+vxlan() {
  goprog wireguard-go golang.zx2c4.com/wireguard@latest .
  wg_up "$BENCH_BIN/wireguard-go" 10.30.0
  each wgvx_one
}
wgvx_one() {
  ip -n "$bed-$1" link add vx type vxlan id 7 dstport 4789 local 10.30.0."$2" remote 10.30.0."$3" dev wg"$1"
  ip -n "$bed-$1" addr add 10.20.0."$2"/24 dev vx
  ip -n "$bed-$1" link set vx mtu 1370 up
}

peer_tinc() {
  local n
  for n in a b; do
    mkdir -p "$work/tinc/$n/hosts"
    printf 'Name=%s\nMode=switch\nInterface=tinc0\nDeviceType=tap\nAddressFamily=ipv4\n' $n >"$work/tinc/$n/tinc.conf"
    printf 'Address=10.9.0.%s\nCipher=aes-256-cbc\n' "$([ $n = a ] && echo 1 || echo 2)" >"$work/tinc/$n/hosts/$n"
    printf '\n\n' | tincd -c "$work/tinc/$n" -K 2048 >/dev/null 2>&1
  done
  echo ConnectTo=b >>"$work/tinc/a/tinc.conf"
  cp "$work/tinc/a/hosts/a" "$work/tinc/b/hosts/"
  cp "$work/tinc/b/hosts/b" "$work/tinc/a/hosts/"
  each tinc_one
  sleep 2
}
tinc_one() {
  printf '#!/bin/sh\nip addr add 10.20.0.%s/24 dev tinc0\nip link set tinc0 up\n' "$2" >"$work/tinc/$1/tinc-up"
  chmod +x "$work/tinc/$1/tinc-up"
  daemon "$1" tincd -c "$work/tinc/$1" --pidfile="$work/tinc-$1.pid" -D
}

peer_fastd() {
  local n
  for n in a b; do
    fastd --generate-key --machine-readable >"$work/fd$n.sec"
    echo "secret \"$(cat "$work/fd$n.sec")\";" >"$work/fd$n.k"
  done
  each fastd_one
  sleep 2
}
fastd_one() {
  local o
  o=$([ "$1" = a ] && echo b || echo a)
  cat >"$work/fd$1.conf" <<C
mode tap; interface "fd0"; method "aes128-ctr+umac"; bind 10.9.0.$2:10000; mtu 1426;
secret "$(cat "$work/fd$1.sec")";
peer "$o" { key "$(fastd --show-key --machine-readable -c "$work/fd$o.k")"; remote 10.9.0.$3:10000; }
on up "ip addr add 10.20.0.$2/24 dev fd0; ip link set fd0 up";
C
  daemon "$1" fastd -c "$work/fd$1.conf"
}

peer_openvpn() {
  local n
  for n in a b; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$work/ov$n.key" -out "$work/ov$n.crt" \
      -days 2 -subj /CN=$n 2>/dev/null
  done
  daemon b openvpn --dev tap0 --dev-type tap --tls-server --dh none --cert "$work/ovb.crt" --key "$work/ovb.key" \
    --peer-fingerprint "$(fingerprint a)" --local 10.9.0.2 --data-ciphers AES-256-GCM --sndbuf 2000000 --rcvbuf 2000000
  daemon a openvpn --dev tap0 --dev-type tap --tls-client --cert "$work/ova.crt" --key "$work/ova.key" \
    --peer-fingerprint "$(fingerprint b)" --remote 10.9.0.2 --data-ciphers AES-256-GCM --sndbuf 2000000 --rcvbuf 2000000
  sleep 5
  each openvpn_one
}
fingerprint() { openssl x509 -in "$work/ov$1.crt" -noout -fingerprint -sha256 | cut -d= -f2; }
openvpn_one() {
  ip -n "$bed-$1" addr add 10.20.0."$2"/24 dev tap0
  ip -n "$bed-$1" link set tap0 up
}

peer_nebula() {
  [ -x "$BENCH_BIN/nebula" ] ||
    GOBIN=$BENCH_BIN go install github.com/slackhq/nebula/cmd/nebula@v1.11.0 github.com/slackhq/nebula/cmd/nebula-cert@v1.11.0
  (
    cd "$work"
    "$BENCH_BIN/nebula-cert" ca -name bench
    "$BENCH_BIN/nebula-cert" sign -name a -ip 10.20.0.1/24
    "$BENCH_BIN/nebula-cert" sign -name b -ip 10.20.0.2/24
  ) >/dev/null 2>&1
  each nebula_one
  sleep 2
}
nebula_one() {
  cat >"$work/neb$1.yml" <<C
pki: {ca: $work/ca.crt, cert: $work/$1.crt, key: $work/$1.key}
static_host_map: {"10.20.0.$3": ["10.9.0.$3:4242"]}
lighthouse: {am_lighthouse: false, hosts: []}
listen: {host: 0.0.0.0, port: 4242, read_buffer: 4000000, write_buffer: 4000000}
cipher: aes
tun: {dev: neb1, mtu: 1300}
firewall: {outbound: [{port: any, proto: any, host: any}], inbound: [{port: any, proto: any, host: any}]}
C
  daemon "$1" "$BENCH_BIN/nebula" -config "$work/neb$1.yml"
}

peer_n2n() {
  daemon b supernode -l 7777 -f
  sleep 1
  each n2n_one
  sleep 6
}
n2n_one() { daemon "$1" edge -d edge0 -c bench -k secret -a 10.20.0."$2" -l 10.9.0.2:7777 -f; }

busy() { awk '/^cpu /{print $2+$3+$4+$7+$8}' /proc/stat; } # user nice system irq softirq, in 1/100 s
tcp() { # streams: prints Mbit/s, processor hundredths, daemons' µs; with one stream also pings under load into $work/loaded
  local before after rate server own ping=
  inb iperf3 -s -1 -B "$dst" >/dev/null 2>&1 &
  server=$!
  sleep 0.5
  before=$(busy) own=$(spent)
  if [ "$1" = 1 ]; then
    (sleep 2; rtt 200) >"$work/loaded" &
    ping=$!
  fi
  rate=$(ina iperf3 -c "$dst" -t "$seconds" -O 1 -P "$1" -J | jq '.end.sum_received.bits_per_second/1e6|floor')
  after=$(busy) own=$(($(spent) - own))
  wait "$server" $ping 2>/dev/null || true
  echo "$rate $((after - before)) $own"
}
udp64() {
  inb iperf3 -s -1 -B "$dst" >/dev/null 2>&1 &
  local server=$!
  sleep 0.5
  ina iperf3 -u -b 0 -l 64 -c "$dst" -t "$seconds" -J |
    jq --argjson t "$seconds" '((.end.sum.packets - .end.sum.lost_packets)/$t/1000)|floor'
  wait $server 2>/dev/null || true
}
rtt() { # [count]: median in µs
  ina fping -q -C "${1:-400}" -p 5 "$dst" 2>&1 | tr ' ' '\n' | grep -E '^[0-9.]+$' | sort -n |
    awk '{v[NR]=$1} END{print int(v[int((NR+1)/2)]*1000)}'
}

measure() { # peer, offloads: one JSON line
  local ok='' one cpu own four loaded u r
  up "$2"
  dst=10.20.0.2
  "peer_$1" || { jq -cn --arg p "$1" --arg g "$2" '{peer:$p,offloads:$g,error:"could not be started"}'; return; }
  for _ in $(seq 40); do ina fping -q -t 300 -r 0 "$dst" >/dev/null 2>&1 && { ok=1; break; }; sleep 0.5; done
  [ "$ok" ] || { jq -cn --arg p "$1" --arg g "$2" '{peer:$p,offloads:$g,error:"no ping within 20 s"}'; return; }
  read -r one cpu own < <(tcp 1)
  loaded=$(cat "$work/loaded" 2>/dev/null || echo 0)
  read -r four _ < <(tcp 4)
  u=$(udp64)
  r=$(rtt)
  [ "${#daemons[@]}" -gt 0 ] || own=null # nothing of this peer is a process
  jq -cn --arg p "$1" --arg g "$2" --argjson one "${one:-0}" --argjson four "${four:-0}" --argjson u "${u:-0}" --argjson r "${r:-0}" \
    --argjson l "${loaded:-0}" --argjson c "$cpu" --argjson d "$own" --argjson t "$seconds" \
    '([$one,1]|max*($t+1)/1000) as $gbit |
     {peer:$p,offloads:$g,tcp1:$one,tcp4:$four,udp64:$u,rtt:$r,loaded:$l,cpu:($c/100/$gbit),daemons:($d|if . then ./1e6/$gbit else null end)}'
}

mapfile -t peers < <(if [ $# -gt 0 ]; then printf '%s\n' "$@"; else installed; fi)
modes=("$offloads")
[ "$offloads" != both ] || modes=(on off)

open_cgroup
results=$(mktemp) medians=$(mktemp)
for _ in $(seq "$rounds"); do
  for mode in "${modes[@]}"; do
    for peer in "${peers[@]}"; do
      line=$(measure "$peer" "$mode" | tail -n 1)
      echo "$line" >&2
      echo "$line" >>"$results"
    done
  done
done
down

echo "$(date -u +%F), $(nproc) × $(awk -F': ' '/model name/{print $2; exit}' /proc/cpuinfo), Linux $(uname -r), $(go env GOVERSION 2>/dev/null || echo 'no Go'), $rounds rounds of $seconds s, medians"
jq -cs '
  def median: sort | .[((length - 1) / 2 | floor)];
  group_by([.offloads, .peer])[]
  | {peer: .[0].peer, offloads: .[0].offloads, error: ([.[].error // empty] | first)}
    + ([.[] | select(.error | not)] as $ok | if ($ok | length) == 0 then {} else
        ([("tcp1", "tcp4", "udp64", "rtt", "loaded", "cpu", "daemons") as $k | {($k): ([$ok[][$k]] | median)}] | add) end)
' "$results" >"$medians"
jq -rs '
  def cell: if . == null then "-" else . * 1000 | round / 1000 end;
  "| offloads | peer | TCP, 1 stream | TCP, 4 | UDP 64 B, kpps | RTT, µs | RTT under load | CPU s/Gbit | of the daemons |",
  "|---|---|---|---|---|---|---|---|---|",
  (sort_by([.offloads, -(.tcp1 // 0)])[] |
    if .tcp1 then "| \(.offloads) | \(.peer) | \([.tcp1, .tcp4, .udp64, .rtt, .loaded, .cpu, .daemons] | map(cell | tostring) | join(" | ")) |"
    else "| \(.offloads) | \(.peer) | \(.error) | | | | | | |" end)
' "$medians"
jq -rs -f "$here/scripts/bars.jq" "$medians"
rm -f "$results" "$medians"
