#!/bin/bash
# vlan-add.sh NODE/PORT --segment NAME --nic IF [OPTION...]
# vlan-add.sh NODE/PORT --with OTHER/PORT --nic IF [OPTION...]
#
# Puts a VLAN on the overlay: NODE, a gateway, bridges the VLAN on its NIC to a segment, and the machines there become members
# of the segment. It looks first at all that would be refused, and whether frames of the VLAN come in; then it adds the
# attachment and the grant, and waits until the port carries. What is there already stays as it is, so that it may be run again.
#
# Run it at the gateway, as root; or anywhere with --reach. Without either, what only the gateway knows is not looked at.
#
#   --segment NAME   the segment
#   --with OTHER/PORT  NODE is a second gateway of the VLAN that OTHER has there: one of them carries it, the other takes over
#   --nic IF         the gateway's NIC to take; or --bridge IF, its bridge to join
#   --vlan N         VLAN, 1 to 4094; without it: untagged frames
#   --native untagged|tagged, --service, --priority nonzero|always
#                    as of `etherloom attachment add`
#   --move-host      the gateway may be reached by the NIC: what it has there moves to a bridge, and moves back unless somebody says
#                    in time that the gateway is still reached, with `etherloom attachment confirm NODE/PORT`
#   --confirm S      in how many seconds (60; 0: moves back never)
#   --allow TERM     the machines may begin that alone, such as tcp:22; may be repeated. Without it: everything
#   --no-grant       add no grant: nothing passes until there is one
#   --listen S       how many seconds to look for frames of the VLAN (5; 0: not)

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"
# shellcheck source-path=SCRIPTDIR source=look.sh
. "$here/look.sh"

name='' segment='' with='' nic='' bridge='' vlan=0 native='' service=false priority='' move='' confirm=60 grant=1 allow=() seconds=5

options() {
  while (($# > 0)); do
    [[ $1 != --*=* ]] || set -- "${1%%=*}" "${1#*=}" "${@:2}"
    case $1 in
    --segment) value "$@" && segment=$2 && shift 2 ;;
    --with) value "$@" && with=$2 && shift 2 ;;
    --nic) value "$@" && nic=$2 && shift 2 ;;
    --bridge) value "$@" && bridge=$2 && shift 2 ;;
    --vlan) value "$@" && number "$1" "$2" && vlan=$((10#$2)) && shift 2 ;;
    --native) value "$@" && native=$2 && shift 2 ;;
    --service) service=true && shift ;;
    --priority) value "$@" && priority=$2 && shift 2 ;;
    --move-host) move=1 && shift ;;
    --confirm) value "$@" && number "$1" "$2" && confirm=$2 && shift 2 ;;
    --allow) value "$@" && allow+=("$2") && shift 2 ;;
    --no-grant) grant='' && shift ;;
    --listen) value "$@" && number "$1" "$2" && seconds=$2 && shift 2 ;;
    -*) common "$@" && shift "$used" ;;
    *)
      [[ -z $name ]] || common "$@"
      name=$1 && shift
      ;;
    esac
  done
  [[ -n $name ]] || misuse "say which port: NODE/PORT"
  named "$name"
  [[ -n $segment || -n $with ]] || misuse "say of which segment the VLAN is: --segment NAME, or --with which gateway's port it is one"
  [[ -z $with ]] || named "$with"
  [[ ${with%/*} != "${name%/*}" ]] || misuse "both ports are at ${name%/*}: a second gateway is another node"
  [[ -n $nic || -n $bridge ]] || misuse "say on which NIC of the gateway's the VLAN is: --nic IF, or --bridge IF"
  [[ -z $nic || -z $bridge ]] || misuse "the VLAN is on a NIC or on a bridge, one of the two"
  [[ -z $move || -n $nic ]] || misuse "only what the gateway has on a NIC is moved: say which with --nic IF"
  ((vlan <= 4094)) || misuse "a VLAN is 1 to 4094, found $vlan"
}

# same refuses a port that is there and is another one.
same() {
  local differs is
  is=$(jq -r .segment <<<"$1")
  [[ $is == "$segment" ]] || die "there is a port $name, and it is of segment $is, which does not change: vlan-remove.sh $name removes it, and then this adds it to $segment"
  differs=$(jq -r --argjson p "$wanted" '. as $o | [($p | to_entries[]) | select($o[.key] != .value) | "\(.key) is \($o[.key] | tojson)"] | join(", ")' <<<"$1")
  [[ -z $differs ]] || die "there is a port $name, and it is another one ($differs): \`etherloom attachment set $name\` changes it, vlan-remove.sh $name removes it"
}

# preflight looks at all that speaks against it.
preflight() {
  look_controller "$node" "$name" "$segment" "$wanted" "$attachments" || settle
  if reachable "$node"; then
    look_link "$node" "${nic:+nic}${bridge:+bridge}" "$nic$bridge" "$move"
  else
    warn "whether $nic$bridge is free has not been looked at. $(elsewhere "$node")"
  fi
  settle
  if [[ -n $dry && -n $nic ]]; then
    ((seconds == 0)) || echo "would listen for the VLAN on $nic of $node for $seconds s, with an nftables table that counts"
  elif [[ -n $nic ]] && ((seconds > 0)) && reachable "$node" && ! taken "$node" "$nic"; then
    listen "$node" "$nic" "$wanted" "$seconds"
  fi
}

attach() {
  local args=(attachment add "$name" --segment "$segment")
  [[ -z $with ]] || args=(attachment add "$name" --with "$with")
  [[ -z $nic ]] || args+=(--nic "$nic")
  [[ -z $bridge ]] || args+=(--bridge "$bridge")
  ((vlan == 0)) || args+=(--vlan "$vlan")
  [[ -z $native ]] || args+=(--native "$native")
  [[ $service == false ]] || args+=(--service)
  [[ -z $priority ]] || args+=(--priority "$priority")
  [[ -z $move ]] || args+=(--move-host --confirm "${confirm}s")
  does etherloom "${args[@]}"
  [[ -z $move ]] || ((confirm == 0)) ||
    echo "what $node has on $nic moves to a bridge, and moves back after $confirm s: when you still reach $node, \`etherloom attachment confirm $name\`"
}

# granted reports whether a grant lets the attachment use the segment in this way, under the name of whichever of its ports.
granted() {
  local names
  names=$(jq -c '.all // []' <<<"${there:-${other:-null}}")
  etherloom grant list --json | jq -e --arg name "$name" --arg segment "$segment" --argjson names "$names" '$ARGS.positional as $allow
    | any(.grants[]; (.from | IN(($names + [$name])[] | "attachment:" + .)) and .to == "segment:" + $segment
      and (.allow | sort) == ($allow | sort) and (.observe | not) and .when == "" and .expires == null)' --args "${allow[@]}" >/dev/null
}

# opened opens a port that was shut when it was removed, and is so still: what is set at a node stays set.
opened() {
  local line
  line=$(port_line "$node" "$port" "$segment")
  [[ -n $line ]] || return 1
  [[ $(jq -r .state <<<"$line") != shut ]] ||
    does_at "$node" etherloom port set "$port" --segment "$segment" shut=off description=
}

carry() {
  if ! reachable "$node"; then
    echo "on $node, \`etherloom ports\` says whether $port carries"
    return
  fi
  [[ -n $there ]] || await opened || true
  if ! await ready "$node" "$port" "$segment"; then
    warn "$name does not carry after $patience s: $(port_line "$node" "$port" "$segment" | jq -r '"it is \(.state)\(if .why then ": " + .why else "" end), its link \(if .up then "up" else "down" end)"')"
    at "$node" etherloom status --json | jq -r '.problems[]? | "  \(.about): \(.text)"' >&2
    die "when that is mended, run this again; \`vlan-remove.sh $name\` takes it back"
  fi
  if ! carries "$node" "$port" "$segment"; then
    echo "$name stands by: another gateway carries"
    return
  fi
  echo "$name carries: $(port_line "$node" "$port" "$segment" | jq -r '"\(.stats.rx_frames) frames in, \(.stats.tx_frames) out"'), addresses behind it: $(behind "$node" "$port" "$segment")"
}

options "$@"
begin jq ip nft
administers
node=${name%/*} port=${name#*/}
wanted=$(jq -nc --arg nic "$nic" --arg bridge "$bridge" --argjson vlan "$vlan" --arg native "$native" --argjson service "$service" --arg priority "$priority" \
  '$ARGS.named')
attachments=$(etherloom attachment list --json)
there=$(port_named "$name" "$attachments") other=''
if [[ -n $with ]]; then
  other=$(port_named "$with" "$attachments")
  [[ -n $other ]] || die "there is no port $with: \`etherloom attachment list\` shows those that there are"
  [[ -z $segment || $segment == "$(jq -r .segment <<<"$other")" ]] || die "$with is of segment $(jq -r .segment <<<"$other"), not of $segment: leave --segment out"
  segment=$(jq -r .segment <<<"$other")
  [[ -z $there || $(jq .id <<<"$there") == "$(jq .id <<<"$other")" ]] || die "$name is a port of another attachment than $with: vlan-remove.sh $name first, or take another name"
fi
if [[ -n $there ]]; then
  same "$there"
  echo "$name is there already"
else
  preflight
  attach
fi
if [[ -n $grant ]]; then
  if granted; then
    echo "a grant to segment:$segment is there already"
  else
    args=()
    for term in "${allow[@]}"; do args+=(--allow "$term"); done
    does etherloom grant add --from "attachment:$name" --to "segment:$segment" "${args[@]}"
  fi
fi
[[ -n $dry ]] || carry
