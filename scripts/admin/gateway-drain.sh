#!/bin/bash
# gateway-drain.sh NODE [--undo] [OPTION...]
#
# Takes a gateway out of service, for instance before it is restarted: shuts its ports onto VLANs, so that they carry nothing, makes it and
# its peers forget who was behind them, and waits until no address is behind it. --undo opens the ports that it has shut, and no others. Both may
# be run again. A port that is shut stays so over restarts of the daemon.
#
# Where a VLAN has another gateway it waits until that one carries. It begins with nothing if none of the others can, and opens again what
# it has shut if none does within 5 s. Which VLANs have no other gateway at all, and are cut off meanwhile, it says only with the
# administrator's credential.
#
# Run it at the gateway, as root; or anywhere with --reach.
#
#   --alone        go on also where another gateway should take over and does not: the VLAN is cut off

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"

node='' undo='' alone='' mark=drained takeover=5 ports='' shut=()

options() {
  while (($# > 0)); do
    [[ $1 != --*=* ]] || set -- "${1%%=*}" "${1#*=}" "${@:2}"
    case $1 in
    --undo) undo=1 && shift ;;
    --alone) alone=1 && shift ;;
    -*) common "$@" && shift "$used" ;;
    *)
      [[ -z $node ]] || common "$@"
      node=$1 && shift
      ;;
    esac
  done
  [[ -n $node ]] || misuse "say which gateway: NODE"
}

# attached lists the ports onto VLANs, one a line: segment, port, state, description.
attached() {
  at "$node" etherloom ports --json | jq -r '.ports[] | select(.kind == "attached") | [.segment, .port, .state, .description // ""] | @tsv'
}

# lonely warns of what no other gateway carries.
lonely() {
  [[ -n ${ETHERLOOM_ADMIN:-} ]] || return 0
  etherloom attachment list --json | jq -r --arg n "$node/" '.attachments[]
    | select(any(.ports[]; .name | startswith($n)) and all(.ports[]; (.name | startswith($n)) or .status != "NODE_STATUS_ACTIVE"))
    | "\(.ports[0].name) of segment \(.segment)"' | while read -r line; do
    warn "no other gateway carries $line: it is cut off until this is undone"
  done
}

# heard prints the other gateways that the port of a VLAN hears of, as an array: their names, whether each can carry it by its own word, and does.
heard() {
  at "$node" etherloom port show "$2" --segment "$1" --json |
    jq -c '[.forwarder.gateways[]? | {name, can: (.alive and .able), forwards: (.alive and .forwards)}]'
}

# rivals prints those, and the ones that there should be, too, as far as the administrator's credential is there to ask.
rivals() {
  {
    heard "$@"
    [[ -z ${ETHERLOOM_ADMIN:-} ]] || etherloom attachment list --json | jq -c --arg n "$node/$2" '[.attachments[] | select(any(.ports[]; .name == $n)) | .ports[]
      | select(.name != $n and .status == "NODE_STATUS_ACTIVE") | {name: (.name | split("/")[0]), can: false}]'
  } | jq -cs 'add | group_by(.name) | map({name: .[0].name, can: any(.[]; .can)})'
}

# look refuses to begin where another gateway should take over and cannot.
look() {
  local segment port state text others names
  while IFS=$'\t' read -r segment port state text; do
    [[ $state != shut ]] || continue
    others=$(rivals "$segment" "$port")
    jq -e '. != [] and all(.[]; .can | not)' <<<"$others" >/dev/null || continue
    names=$(jq -r 'map(.name) | join(", ")' <<<"$others")
    if [[ -n $alone ]]; then
      warn "$names cannot carry $port of $segment: it is cut off until this is undone"
    else
      problems+=("$names has $port of $segment, too, and cannot carry it: \`etherloom status\` there says why; --alone goes on, and cuts the VLAN off")
    fi
  done <<<"$ports"
  settle
}

# taken reports whether another gateway carries the VLAN.
taken() { heard "$1" "$2" | jq -e 'any(.[]; .forwards)' >/dev/null; }

# back opens the ports that were shut, as they were.
back() {
  local line segment port text
  for line in "${shut[@]}"; do
    IFS=$'\t' read -r segment port text <<<"$line"
    does_at "$node" etherloom port set "$port" --segment "$segment" shut=off "description=$text"
  done
}

# drain marks in a port's description that it was this that shut it; what was there before stays behind the mark.
drain() {
  local segment port state text others
  while IFS=$'\t' read -r segment port state text; do
    if [[ $state == shut ]]; then
      echo "$port of $segment is shut already"
      continue
    fi
    others=$(rivals "$segment" "$port" | jq -r 'map(.name) | join(", ")')
    does_at "$node" etherloom port set "$port" --segment "$segment" shut=on "description=$mark${text:+: $text}"
    shut+=("$segment"$'\t'"$port"$'\t'"$text")
    does_at "$node" etherloom fdb flush "$segment" --port "$port"
    [[ -z $dry && -z $alone && -n $others ]] || continue
    patience=$takeover await taken "$segment" "$port" || {
      back
      die "$others did not take $port of $segment over within $takeover s, so it is open again at $node: \`etherloom status\` and \`etherloom port show\` there" \
        "say why. Mend that, or prefer the other gateway (\`etherloom attachment set\`, --preference) and wait until it forwards; --alone cuts the VLAN off"
    }
  done <<<"$ports"
}

undrain() {
  local segment port state text
  while IFS=$'\t' read -r segment port state text; do
    if [[ $state == shut && $text == "$mark"* ]]; then
      text=${text#"$mark"}
      does_at "$node" etherloom port set "$port" --segment "$segment" shut=off "description=${text#: }"
    elif [[ $state == shut ]]; then
      warn "$port of $segment was shut by somebody else, and stays so: \`etherloom port set $port shut=off\`"
    else
      echo "$port of $segment is $state: nothing is to be done"
    fi
  done <<<"$1"
}

# empty reports whether nobody who was learned is behind the ports. A frame that was on its way when a port was shut may have
# been learned after the flush.
empty() {
  local segment port rest
  while IFS=$'\t' read -r segment port rest; do
    [[ $(behind "$node" "$port" "$segment") == 0 ]] || {
      at "$node" etherloom fdb flush "$segment" --port "$port" >/dev/null
      return 1
    }
  done <<<"$ports"
}

open() { ! attached | awk -F '\t' '$3 == "shut" && $4 ~ /^drained/ { found = 1 } END { exit !found }'; }

options "$@"
begin jq
answers "$node"
ports=$(attached)
if [[ -z $ports ]]; then
  echo "$node has no port onto a VLAN: nothing is to be done"
  exit 0
fi
if [[ -n $undo ]]; then
  undrain "$ports"
  [[ -n $dry ]] || open || die "a port of $node is still shut: \`etherloom ports\` there says which"
  exit 0
fi
lonely
look
drain
if [[ -z $dry ]]; then
  await empty || die "there are still addresses behind $node after $patience s: \`etherloom fdb\` there lists them"
  echo "no address is behind $node: it may be stopped; gateway-drain.sh $node --undo opens it again"
fi
