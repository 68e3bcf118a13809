#!/bin/bash
# vlan-remove.sh NODE/PORT [OPTION...]
#
# Takes a VLAN off the overlay: removes the port of an attachment, and with its last port the grants that name it. It waits until
# the gateway has given the NIC back to its host. What names the attachment otherwise (hosts, groups, tests of the policy) is listed, and
# nothing is done. What is gone already stays gone, so that it may be run again.
#
# Run it at the gateway, as root, or anywhere. Anywhere else than at the gateway, and without --reach, it does not wait.

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"

name=''

options() {
  while (($# > 0)); do
    [[ $1 != --*=* ]] || set -- "${1%%=*}" "${1#*=}" "${@:2}"
    case $1 in
    -*) common "$@" && shift "$used" ;;
    *)
      [[ -z $name ]] || common "$@"
      name=$1 && shift
      ;;
    esac
  done
  [[ -n $name ]] || misuse "say which port: NODE/PORT (\`etherloom attachment list\` has them)"
  named "$name"
}

# preflight lists what would be refused: it is refused before anything is removed.
preflight() {
  local found
  found=$(jq -r '.hosts | join(", ")' <<<"$there")
  [[ -z $found ]] || problems+=("$name is the place of host $found: \`mac-pin.sh MAC --name HOST --remove\` first, or \`etherloom host set\` it elsewhere")
  found=$(etherloom group list --json | jq -r --argjson names "$names" '[.groups[] | select(any(.members[]; IN($names[]))) | .name] | join(", ")')
  [[ -z $found ]] || problems+=("$name is in group $found: take it out first with \`etherloom group set\`")
  ! etherloom policy show | sed -n '/^tests:/,$p' | grep -qwF -f <(jq -r '.[]' <<<"$names") ||
    problems+=("a test of the policy names $name: take it out first with \`etherloom policy apply\`")
  settle
}

# ungrant removes the grants that name the attachment.
ungrant() {
  local id
  etherloom grant list --json | jq -r --argjson names "$names" '.grants[] | select((.from, .to) | IN($names[])) | .id' | sort -un | while read -r id; do
    does etherloom grant remove "$id"
  done
}

gone() { [[ -z $(port_line "$node" "$port" "$segment") ]]; }

# returned reports whether the daemon has no redirection on the NIC any more.
returned() { ! at "$node" tc filter show dev "$nic" ingress 2>/dev/null | grep -q 'flowid 4c6f:6f6d'; }

# sharing counts what else is on the NIC.
sharing() { at "$node" etherloom ports --json | jq --arg l "$nic" '[.ports[] | select(.kind == "attached" and .nic == $l)] | length'; }

finish() {
  if ! reachable "$node"; then
    echo "on $node, \`etherloom ports\` says when $port is gone"
    return
  fi
  await gone || die "$node still has $port after $patience s: look at \`etherloom status\` there; it may have no stream to the controller"
  if [[ -n $nic && $(sharing) == 0 ]]; then
    await returned || die "$node has not given $nic back after $patience s: \`tc filter show dev $nic ingress\` there, and \`etherloom status\`"
    echo "$name is gone, and $nic is the host's again"
  else
    echo "$name is gone"
  fi
}

options "$@"
begin jq tc
administers
node=${name%/*} port=${name#*/}
attachments=$(etherloom attachment list --json)
there=$(port_named "$name" "$attachments")
if [[ -z $there ]]; then
  echo "there is no $name: nothing is to be done"
  exit 0
fi
segment=$(jq -r .segment <<<"$there") nic=$(jq -r .nic <<<"$there")
names=$(jq -c '[.all[] | "attachment:" + .]' <<<"$there")
if [[ $(jq '.all | length' <<<"$there") == 1 ]]; then
  preflight
  ungrant
fi
does etherloom attachment remove "$name"
[[ -n $dry ]] || finish
