#!/bin/bash
# gateway-move.sh OLD/PORT NEW/PORT --nic IF [OPTION...]
#
# Moves a site's VLAN from gateway OLD to gateway NEW. The attachment stays, with its identity, its grants and its hosts: NEW becomes a
# further port of it, and OLD's port is removed when NEW's carries.
#
# Of two gateways of a VLAN one carries it, and the other stands by. So OLD carries until NEW is ready: until its port is up and it has been told
# which machines are elsewhere. Then NEW is preferred, and takes over; it shows the site's switches by which port everybody is reached now. When it
# carries, OLD's port is removed, and NEW has the preference that OLD had. If NEW does not carry in time, its port is taken back, and OLD has
# carried all the time.
#
# Run it at one of the two with --reach for the other, or anywhere with --reach. OLD may be switched off.
#
#   --nic IF         NEW's NIC to take; or --bridge IF, its bridge to join
#   --vlan N         the VLAN's number at NEW; without it, as at OLD, with --native, --service and --priority
#   --listen S       how many seconds to look for frames of the VLAN at NEW (5; 0: not)

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"
# shellcheck source-path=SCRIPTDIR source=look.sh
. "$here/look.sh"

from='' to='' nic='' bridge='' vlan='' seconds=5 added='' raised=''

options() {
  while (($# > 0)); do
    [[ $1 != --*=* ]] || set -- "${1%%=*}" "${1#*=}" "${@:2}"
    case $1 in
    --nic) value "$@" && nic=$2 && shift 2 ;;
    --bridge) value "$@" && bridge=$2 && shift 2 ;;
    --vlan) value "$@" && number "$1" "$2" && vlan=$((10#$2)) && shift 2 ;;
    --listen) value "$@" && number "$1" "$2" && seconds=$2 && shift 2 ;;
    -*) common "$@" && shift "$used" ;;
    *)
      [[ -z $to ]] || common "$@"
      if [[ -z $from ]]; then from=$1; else to=$1; fi
      shift
      ;;
    esac
  done
  [[ -n $to ]] || misuse "say from where to where: OLD/PORT NEW/PORT"
  named "$from"
  named "$to"
  [[ ${from%/*} != "${to%/*}" ]] || misuse "both ports are at ${from%/*}: \`etherloom attachment set $from\` gives a port another NIC or VLAN"
  [[ -n $nic || -n $bridge ]] || misuse "say on which NIC of the new gateway's the VLAN is: --nic IF, or --bridge IF"
  [[ -z $nic || -z $bridge ]] || misuse "the VLAN is on a NIC or on a bridge, one of the two"
}

# moved ends the script if the old port is gone already.
moved() {
  [[ -n $arrived ]] || die "there is neither $from nor $to: \`etherloom attachment list\` shows the ports that there are"
  reachable "$new" || exit 0
  segment=$(jq -r .segment <<<"$arrived")
  await carries "$new" "$to_port" "$segment" || die "$from is gone already, and $to does not carry: \`etherloom status\` and \`etherloom port show $to_port\` at $new"
  echo "$from is gone already, and $to carries: nothing is to be done"
  exit 0
}

preflight() {
  [[ -z $arrived || $(jq -r .nic <<<"$arrived") == "$nic" && $(jq -r .bridge <<<"$arrived") == "$bridge" ]] ||
    problems+=("there is a port $to, and it is on $(jq -r '.nic + .bridge' <<<"$arrived"): \`etherloom attachment set $to\` changes that")
  [[ -z $arrived || $(jq .id <<<"$arrived") == "$(jq .id <<<"$there")" ]] || problems+=("$to is a port of another attachment: vlan-remove.sh $to first, or take another name")
  if ! reachable "$new"; then
    problems+=("$(elsewhere "$new")")
  elif [[ -z $arrived ]]; then
    look_controller "$new" "$to" "$segment" "$wanted" "$attachments" || settle
    look_link "$new" "${nic:+nic}${bridge:+bridge}" "$nic$bridge"
  fi
  ((highest < 65535)) || problems+=("a port of the attachment has the preference 65535, and $to is to be preferred to it: \`etherloom attachment set\` it to less")
  settle
  if [[ -n $dry ]]; then
    ((seconds == 0)) || [[ -z $nic ]] || echo "would listen for the VLAN on $nic of $new for $seconds s, with an nftables table that counts"
  elif [[ -n $nic && -z $arrived ]] && ((seconds > 0)) && ! taken "$new" "$nic"; then
    listen "$new" "$nic" "$wanted" "$seconds"
  fi
}

# back undoes what was done, if the script ends before the new port carries.
back() {
  trap - EXIT INT TERM
  [[ -n $added || -n $raised ]] || return 0
  warn "$to does not carry: all is put back as it was"
  if [[ -n $added ]]; then
    does etherloom attachment remove "$to" || true
  else
    prefer "$own" || true
  fi
}

# shape is what the new port is, as options.
shape() {
  [[ -z $nic ]] || echo "--nic $nic"
  [[ -z $bridge ]] || echo "--bridge $bridge"
  jq -r '(if .vlan > 0 then "--vlan \(.vlan)" else empty end), (if .native != "" then "--native \(.native)" else empty end),
    (if .service then "--service" else empty end), (if .priority != "" then "--priority \(.priority)" else empty end)' <<<"$wanted"
}

# prefer sets the new port's preference.
prefer() {
  local args
  read -ra args <<<"$(shape | tr '\n' ' ')"
  (($1 == 0)) || args+=(--preference "$1")
  does etherloom attachment set "$to" "${args[@]}"
}

# told prints the addresses that a gateway was told to be behind other gateways.
told() {
  at "$1" etherloom fdb --json | jq -c --arg segment "$segment" '[.fdb[] | select(.kind == "announced" and .segment == $segment) | .mac]'
}

# informed reports whether the new gateway knows all whom the old one did.
informed() { told "$new" | jq -e --argjson known "$known" '$known - . == []' >/dev/null; }

absent() { [[ -z $(port_line "$old" "$from_port" "$segment") ]]; }

join() {
  local args
  read -ra args <<<"$(shape | tr '\n' ' ')"
  added=1
  does etherloom attachment add "$to" --with "$from" "${args[@]}"
}

# failed says what the new gateway says of it, and ends the script.
failed() {
  at "$new" etherloom status --json | jq -r '.problems[]? | "  \(.about): \(.text)"' >&2
  exit 1
}

# opened opens the new port if it was shut when it was there last: what is set at a node stays set.
opened() {
  local line
  line=$(port_line "$new" "$to_port" "$segment")
  [[ -n $line ]] || return 1
  [[ $(jq -r .state <<<"$line") != shut ]] ||
    does_at "$new" etherloom port set "$to_port" --segment "$segment" shut=off description=
}

options "$@"
begin jq ip nft
administers
old=${from%/*} new=${to%/*} from_port=${from#*/} to_port=${to#*/}
attachments=$(etherloom attachment list --json)
there=$(port_named "$from" "$attachments") arrived=$(port_named "$to" "$attachments")
[[ -n $there ]] || moved
segment=$(jq -r .segment <<<"$there")
wanted=$(jq -c --arg nic "$nic" --arg bridge "$bridge" --arg vlan "$vlan" \
  '{$nic, $bridge, vlan: (if $vlan == "" then .vlan else ($vlan | tonumber) end), native, service, priority}' <<<"$there")
highest=$(jq --argjson id "$(jq .id <<<"$there")" '[.attachments[] | select(.id == $id) | .ports[].preference // 0] | max' <<<"$attachments")
before=$(jq '.preference // 0' <<<"$there") own=$(jq '.preference // 0' <<<"${arrived:-null}")
preflight
[[ -n $dry ]] || trap back EXIT
trap 'exit 1' INT TERM
[[ -n $arrived ]] || join
if [[ -z $dry ]]; then
  await opened || true
  await ready "$new" "$to_port" "$segment" || failed
  known='[]'
  ! reachable "$old" || known=$(told "$old" 2>/dev/null) || known='[]'
  await informed || warn "$new knows fewer machines elsewhere than $old: where the site's switches go on sending to $old, they do until such a machine speaks"
fi
raised=1
prefer $((highest + 1))
if [[ -z $dry ]]; then
  await carries "$new" "$to_port" "$segment" || failed
  trap - EXIT INT TERM
fi
does etherloom attachment remove "$from"
if [[ -z $dry ]] && reachable "$old"; then
  await absent || warn "$old has its port still: look at \`etherloom status\` there"
fi
prefer "$before"
[[ -n $dry ]] || echo "$to carries in place of $from"
