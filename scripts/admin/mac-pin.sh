#!/bin/bash
# mac-pin.sh MAC --name NAME --behind NODE/PORT [OPTION...]
# mac-pin.sh MAC --segment NAME --port PORT [--node NODE] [--sticky] [OPTION...]
#
# Pins a MAC: to a machine behind a gateway, or to a port.
#
# The first form names the machine, for good and everywhere: nobody else on the segment may use its MAC, and it may be behind these
# attachments alone. It is host:NAME then, and what the attachment may do by its grants is no longer its own: see --grant. The second form makes
# an entry in one node's forwarding database, until its daemon ends. What is pinned already stays as it is.
#
#   --name NAME      the machine's name, as of `etherloom host add`
#   --behind N/PORT  the attachment behind which it may be; may be repeated
#   --address A/L    it may use this address and no others; may be repeated. It may lie outside of the segment's own prefix, as those of
#                    a VLAN that was there before do
#   --role ROLE      dhcp-server, router or querier; may be repeated
#   --grant          let it use the segment, as a member
#   --replace        NAME is there and is another machine, or elsewhere: say all of it anew
#
#   --segment NAME   the segment, and --port PORT, the port as `etherloom ports` calls it
#   --node NODE      at which node (default: this machine)
#   --sticky         the entry ages, but does not move
#
#   --remove         undo it; with --name, the machine's own grants go too

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"
# shellcheck source-path=SCRIPTDIR source=address.sh
. "$here/address.sh"

mac='' name='' behind=() addresses=() roles=() grant='' replace='' segment='' port='' node='' kind=static remove=''

options() {
  while (($# > 0)); do
    [[ $1 != --*=* ]] || set -- "${1%%=*}" "${1#*=}" "${@:2}"
    case $1 in
    --name) value "$@" && name=$2 && shift 2 ;;
    --behind) value "$@" && named "$2" && behind+=("$2") && shift 2 ;;
    --address) value "$@" && address "$2" && addresses+=("$2") && shift 2 ;;
    --role) value "$@" && roles+=("$2") && shift 2 ;;
    --grant) grant=1 && shift ;;
    --replace) replace=1 && shift ;;
    --segment) value "$@" && segment=$2 && shift 2 ;;
    --port) value "$@" && port=$2 && shift 2 ;;
    --node) value "$@" && node=$2 && shift 2 ;;
    --sticky) kind=sticky && shift ;;
    --remove) remove=1 && shift ;;
    -*) common "$@" && shift "$used" ;;
    *)
      [[ -z $mac ]] || common "$@"
      mac=$1 && shift
      ;;
    esac
  done
  [[ -n $mac ]] || misuse "say which MAC"
  mac=$(lower "$mac")
  # The lowest bit of the first octet marks a group (IEEE 802-2014 section 8.2).
  [[ $mac == ?[02468ace]:* && $mac != 00:00:00:00:00:00 ]] || misuse "$mac is not the MAC of a machine: expected a unicast one that is not zero"
  if [[ -n $name ]]; then
    [[ -z $segment$port$node ]] || misuse "a machine has a name, or a MAC a port: --name and --behind, or --segment and --port"
    [[ $name =~ ^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$ ]] || misuse "the name '$name' is not a DNS label: use 1 to 63 of a-z, 0-9 and '-', not at either end"
    [[ -n $remove ]] || ((${#behind[@]} > 0)) || misuse "say behind which attachment $name is: --behind NODE/PORT"
  else
    [[ -n $segment ]] || misuse "say how it is pinned: --name NAME --behind NODE/PORT, or --segment NAME --port PORT"
    [[ -n $remove || -n $port ]] || misuse "say to which port of the segment: --port PORT"
  fi
}

# host_args are the arguments that say what the host is.
host_args() {
  local x
  args=(--mac "$mac")
  for x in "${behind[@]}"; do args+=(--attachment "$x"); done
  for x in "${addresses[@]}"; do args+=(--address "$x"); done
  for x in "${roles[@]}"; do args+=(--role "$x"); done
}

# list prints words as a JSON array.
list() { jq -nc '$ARGS.positional' --args "$@"; }

# same reports whether the host is what is asked for. An attachment is called by its first port.
same() {
  jq -e --arg mac "$mac" --argjson at "$(etherloom attachment list --json)" --argjson behind "$(list "${behind[@]}")" \
    --argjson addresses "$(list "${addresses[@]}")" --argjson roles "$(list "${roles[@]}")" '
    . as $h
    | .mac == $mac and (.roles | sort) == ($roles | unique)
    and (.attachments | sort) == ([$behind[] as $b | $at.attachments[] | select(any(.ports[]; .name == $b)) | .ports[0].name] | unique)
    and (.addresses | length) == ($addresses | length)
    and all($addresses[]; . as $a | any($h.addresses[]; . == $a or startswith($a + "/")))' <<<"$1" >/dev/null
}

pin_host() {
  local there other args
  there=$(jq -c --arg n "$name" '.hosts[] | select(.name == $n)' <<<"$hosts")
  segment=$(etherloom attachment list --json | jq -r --arg b "${behind[0]}" '[.attachments[] | select(any(.ports[]; .name == $b)) | .segment] | first // ""')
  [[ -n $segment ]] || die "there is no attachment ${behind[0]}: \`etherloom attachment list\` shows those there are"
  other=$(jq -r --arg m "$mac" --arg n "$name" --arg s "$segment" '[.hosts[] | select(.mac == $m and .segment == $s and .name != $n) | .name] | first // ""' <<<"$hosts")
  [[ -z $other ]] || die "$mac is host $other: mac-pin.sh $mac --name $other --remove, or take that name"
  look_addresses "$segment" "${addresses[@]}"
  settle
  host_args
  if [[ -z $there ]]; then
    does etherloom host add "$name" "${args[@]}"
  elif same "$there"; then
    echo "host $name is there already"
  elif [[ -z $replace ]]; then
    die "there is a host $name, and it is another one ($(jq -r '"\(.mac) behind \(.attachments | join(", ")), addresses \(.addresses | join(", ") | if . == "" then "any" else . end), roles \(.roles | join(", ") | if . == "" then "none" else . end)"' <<<"$there")): --replace says all of it anew"
  else
    does etherloom host set "$name" "${args[@]}"
  fi
  grants
}

# grants lets the host use the segment, or says what is missing.
grants() {
  local all named
  all=$(etherloom grant list --json)
  if [[ -n $grant ]]; then
    if jq -e --arg n "host:$name" --arg s "segment:$segment" 'any(.grants[]; .from == $n and .to == $s and .allow == [] and (.observe | not) and .when == "" and .expires == null)' <<<"$all" >/dev/null; then
      echo "a grant to segment:$segment is there already"
    else
      does etherloom grant add --from "host:$name" --to "segment:$segment"
    fi
    return
  fi
  named=$( (jq -r '.grants[] | .from, .to' <<<"$all" && etherloom group list --json | jq -r '.groups[].members[]') | grep -cxF "host:$name") || true
  [[ $named != 0 ]] || warn "no grant and no group names host:$name, so nothing passes from or to it: --grant makes it a member of $segment"
}

unpin_host() {
  local id
  if ! jq -e --arg n "$name" 'any(.hosts[]; .name == $n)' <<<"$hosts" >/dev/null; then
    echo "there is no host $name: nothing is to be done"
    return
  fi
  jq -e --arg n "$name" --arg m "$mac" 'any(.hosts[]; .name == $n and .mac == $m)' <<<"$hosts" >/dev/null ||
    die "host $name has another MAC than $mac: \`etherloom host list\` shows it"
  etherloom grant list --json | jq -r --arg n "host:$name" '.grants[] | select(.from == $n or .to == $n) | .id' | while read -r id; do
    does etherloom grant remove "$id"
  done
  does etherloom host remove "$name"
}

pin_port() {
  local now
  node=${node:-$self}
  [[ -n $node ]] || die "no daemon answers on this machine: say at which node with --node and --reach"
  answers "$node"
  now=$(at "$node" etherloom fdb --json | jq -r --arg m "$mac" --arg s "$segment" '.fdb[] | select(.mac == $m and .segment == $s) | "\(.kind) \(.port)"')
  if [[ -n $remove ]]; then
    case $now in
    static\ * | sticky\ *) does_at "$node" etherloom fdb remove "$segment" "$mac" ;;
    *) echo "$mac is pinned to no port of $segment on $node: nothing is to be done" ;;
    esac
    return
  fi
  at "$node" etherloom ports --json | jq -e --arg p "$port" --arg s "$segment" 'any(.ports[]; .port == $p and .segment == $s)' >/dev/null ||
    die "segment $segment on $node has no port $port: \`etherloom ports\` there lists those that it has"
  if [[ $now == "$kind $port" ]]; then
    echo "$mac is $kind on port $port already"
    return
  fi
  local args=(fdb add "$segment" "$mac" "$port")
  [[ $kind == static ]] || args+=(--sticky)
  does_at "$node" etherloom "${args[@]}"
}

options "$@"
begin jq
if [[ -z $name ]]; then
  pin_port
  exit 0
fi
administers
hosts=$(etherloom host list --json)
if [[ -n $remove ]]; then unpin_host; else pin_host; fi
