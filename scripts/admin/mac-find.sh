#!/bin/bash
# mac-find.sh MAC [OPTION...]
#
# Shows where a MAC is, on all segments of a node: at which node and port, whose it is, on which VLAN, and when it was seen last. It changes
# nothing.
#
# Run it at any node, as root; its own forwarding database is asked. A machine behind another gateway is at the port that this one knows by the
# administrator's credential, or by asking there with --reach; without either, PORT and VLAN are not known. Who is known by no
# node's table, but is a host, a node's TAP or pinned, is shown with the credential, too. The exit code is 1 if nobody has it.
#
#   --node NODE    ask another node (with --reach)
#   --json         print JSON

set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"

mac='' node='' json=''

options() {
  while (($# > 0)); do
    [[ $1 != --*=* ]] || set -- "${1%%=*}" "${1#*=}" "${@:2}"
    case $1 in
    --node) value "$@" && node=$2 && shift 2 ;;
    --json) json=1 && shift ;;
    -*) common "$@" && shift "$used" ;;
    *)
      [[ -z $mac ]] || common "$@"
      mac=$1 && shift
      ;;
    esac
  done
  [[ -n $mac ]] || misuse "say which MAC"
  mac=$(lower "$mac")
}

# seen prints a node's entries of the MAC, each with the port that it is on; its own TAPs are among them.
seen() {
  local ports fdb
  ports=$(at "$1" etherloom ports --json) fdb=$(at "$1" etherloom fdb --json)
  jq -c --arg mac "$mac" --arg node "$1" --argjson ports "$ports" '
    [.fdb[] | select(.mac == $mac) | . as $e | ([$ports.ports[] | select(.port == $e.port and .segment == $e.segment)] | first) as $p
      | {segment, mac, node: (if $p.kind == "link" then .port else $node end), port: (if $p.kind == "link" then null else .port end),
        who, identity, nic: $p.nic, vlan: (if $p.kind == "attached" then $p.vlan // 0 else null end), kind: (if .frozen then "frozen" else .kind end),
        link: ($p.kind == "link"), local: ($p.kind == "local"), seen: (if .static then null else now - .idle_ns / 1e9 | floor end)}] as $known
    | $known + [$ports.ports[] | select(.kind == "local" and .mac == $mac and (.segment | IN($known[].segment) | not))
      | {segment, mac, node: $node, port, who: $node, identity, nic: null, vlan: null, kind: "own", link: false, local: true, seen: null}]' <<<"$fdb"
}

# asked replaces what is at another node by what that node itself has of it.
asked() {
  local entry other theirs
  while read -r entry; do
    other=$(jq -r .node <<<"$entry")
    if [[ -n $reach && $(jq .link <<<"$entry") == true ]] && theirs=$(seen "$other" 2>/dev/null) && theirs=$(jq -ce --argjson e "$entry" \
      '[.[] | select(.segment == $e.segment and .node == $e.node)] | first // empty' <<<"$theirs"); then
      entry=$theirs
    fi
    echo "$entry"
  done | jq -cs .
}

# placed adds, to what is at another node, the port of the signed state, and hosts that nobody has seen.
placed() {
  jq -c --arg mac "$mac" --argjson at "$attachments" --argjson hosts "$hosts" '
    def place($who): $at.attachments[] | select(any(.ports[]; .name == $who)) ;
    [.[] | . as $e | if .link then
      ([if .who | contains("/") then place(.who) else ($hosts.hosts[] | select(.name == $e.who) | .attachments[] | place(.)) end
        | .ports[] | select(.name | startswith($e.node + "/"))] | if length == 1 then .[0] else null end) as $p
      | if $p then .port = ($p.name | split("/")[1]) | .vlan = $p.vlan | .nic = ([$p.nic, $p.bridge] | add) else . end
    else . end] as $known
    | $known + [$hosts.hosts[] | select(.mac == $mac and (.segment | IN($known[].segment) | not))
      | {segment, mac, node: null, port: null, who: .name, identity: .id, nic: null, vlan: null, kind: "not seen", link: false, local: false, seen: null}]'
}

show() {
  jq -r '["SEGMENT", "MAC", "NODE", "PORT", "WHO", "IDENTITY", "VLAN", "KIND", "SEEN"], (.[] | [.segment, .mac, .node // "-", .port // "-", .who, .identity,
    (if .vlan == null then "-" elif .vlan == 0 then "untagged" else .vlan end), .kind, (if .seen then .seen | strflocaltime("%Y-%m-%d %H:%M:%S") else "-" end)])
    | @tsv' | awk -F '\t' '
    { for (i = 1; i <= NF; i++) { cell[NR, i] = $i; if (length($i) > wide[i]) wide[i] = length($i) } }
    END { for (row = 1; row <= NR; row++) for (i = 1; i <= NF; i++) printf i < NF ? "%-" wide[i] + 2 "s" : "%s\n", cell[row, i] }'
}

options "$@"
begin jq awk
node=${node:-$self}
[[ -n $node ]] || die "no daemon answers on this machine: run this at a node, or name one with --node and --reach"
found=$(seen "$node" | jq -c '.[]' | asked)
if [[ -n ${ETHERLOOM_ADMIN:-} ]]; then
  attachments=$(etherloom attachment list --json) hosts=$(etherloom host list --json)
  found=$(placed <<<"$found")
fi
if [[ -n $json ]]; then
  jq '{schema: 1, mac: $mac, asked: $node, places: [.[] | del(.link, .local) | .seen |= (if . then todate else null end)]}' --arg mac "$mac" --arg node "$node" <<<"$found"
elif [[ $found != '[]' ]]; then
  show <<<"$found"
fi
[[ $found != '[]' ]] || die "$node knows no $mac: an address is known once its machine has spoken to, or is on, a segment of this node's"
