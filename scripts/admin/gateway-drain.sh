#!/bin/bash
# gateway-drain.sh NODE [--undo] [OPTION...]
#
# Takes a gateway out of service, for instance before it is restarted: shuts its ports onto VLANs, so that they carry nothing, makes it and
# its peers forget who was behind them, and waits until no address is behind it. --undo opens the ports that it has shut, and no others. Both may
# be run again. A port that is shut stays so over restarts of the daemon.
#
# It says which VLANs are cut off meanwhile, because no other gateway has them; for that it needs the administrator's credential.
#
# Run it at the gateway, as root; or anywhere with --reach.

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"

node='' undo='' mark=drained

options() {
  while (($# > 0)); do
    [[ $1 != --*=* ]] || set -- "${1%%=*}" "${1#*=}" "${@:2}"
    case $1 in
    --undo) undo=1 && shift ;;
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

# alone warns of what no other gateway carries.
alone() {
  [[ -n ${ETHERLOOM_ADMIN:-} ]] || return 0
  etherloom attachment list --json | jq -r --arg n "$node/" '.attachments[]
    | select(any(.ports[]; .name | startswith($n)) and all(.ports[]; (.name | startswith($n)) or .status != "NODE_STATUS_ACTIVE"))
    | "\(.ports[0].name) of segment \(.segment)"' | while read -r line; do
    warn "no other gateway carries $line: it is cut off until this is undone"
  done
}

# drain marks in a port's description that it was this that shut it; what was there before stays behind the mark.
drain() {
  local segment port state text
  while IFS=$'\t' read -r segment port state text; do
    if [[ $state == shut ]]; then
      echo "$port of $segment is shut already"
      continue
    fi
    does_at "$node" etherloom port set "$port" --segment "$segment" shut=on "description=$mark${text:+: $text}"
    does_at "$node" etherloom fdb flush "$segment" --port "$port"
  done <<<"$1"
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
reachable "$node" || die "$(elsewhere "$node")"
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
alone
drain "$ports"
if [[ -z $dry ]]; then
  await empty || die "there are still addresses behind $node after $patience s: \`etherloom fdb\` there lists them"
  echo "no address is behind $node: it may be stopped; gateway-drain.sh $node --undo opens it again"
fi
