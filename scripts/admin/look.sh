# shellcheck shell=bash disable=SC2154 # lib.sh has the rest
# look.sh
#
# What is looked at before a NIC is taken: what the controller and the gateway would refuse, and whether the VLAN is there. What speaks
# against it is added to problems. Nothing is changed, but that listen makes an nftables table that counts, and removes it.

# look_controller asks the controllers' state; it returns 1 if there is no such node. Arguments: NODE, PORT NAME, SEGMENT, the port as JSON, the attachments.
look_controller() {
  local node=$1 name=$2 segment=$3 port=$4 attachments=$5 it other
  if ! it=$(etherloom node show "$node" --json 2>/dev/null); then
    problems+=("there is no node $node, or the controller does not answer: \`etherloom node list\` says which")
    return 1
  fi
  jq -e '.roles | index("gateway")' <<<"$it" >/dev/null ||
    problems+=("$node is no gateway: join it anew with a token of \`etherloom token create --role gateway\`")
  [[ $(jq -r .status <<<"$it") == NODE_STATUS_ACTIVE ]] || problems+=("$node is not active: \`etherloom node show $node\` says why")
  [[ $(jq -r .online <<<"$it") == true ]] || problems+=("$node has no stream to the controller: look at \`etherloom status\` there")
  etherloom segment list --json | jq -e --arg s "$segment" 'any(.segments[]; .name == $s)' >/dev/null ||
    problems+=("there is no segment $segment: \`etherloom segment add $segment\` makes one")
  # A frame is of one segment only.
  other=$(jq -r --arg name "$name" --arg node "$node/" --argjson p "$port" '
    def link: [.nic, .bridge];
    def untagged: .vlan == 0 or .native != "";
    [.attachments[].ports[] | select(.name != $name and (.name | startswith($node)) and link == ($p | link)
      and (.vlan == $p.vlan and .service == $p.service or untagged and ($p | untagged))) | .name] | first // ""' <<<"$attachments")
  [[ -z $other ]] || problems+=("$other has these frames already, and a frame is of one segment only: vlan-remove.sh $other ends that")
  return 0
}

# look_link asks the gateway whether a link is free. Arguments: NODE, "nic" or "bridge", LINK, and not empty if what the gateway has there is to be moved.
look_link() {
  local node=$1 kind=$2 link=$3 move=${4:-} links it
  if ! links=$(at "$node" ip -d -j link show); then
    problems+=("$node does not answer")
    return
  fi
  it=$(jq -c --arg l "$link" '.[] | select(.ifname == $l)' <<<"$links")
  if [[ -z $it ]]; then
    problems+=("$node has no $link: \`ip link\` there lists the network devices that it has")
    return
  fi
  [[ $kind == bridge ]] || jq -e '.flags | index("NO-CARRIER") | not' <<<"$it" >/dev/null ||
    problems+=("$link of $node has no carrier, so nothing would pass: plug its cable in, or look at the switch's port")
  if [[ $kind == bridge ]]; then
    [[ $(jq -r '.linkinfo.info_kind' <<<"$it") == bridge ]] || problems+=("$link of $node is no bridge: give it with --nic")
  elif taken "$node" "$link"; then
    echo "$node has taken $link already; a further VLAN of it needs no free NIC"
  else
    look_nic "$node" "$link" "$it" "$links" "$move"
  fi
}

# taken reports whether the node's daemon has a link.
taken() {
  at "$1" etherloom ports --json | jq -e --arg l "$2" 'any(.ports[]; .kind == "attached" and .nic == $l)' >/dev/null
}

# look_nic refuses what the daemon does (docs/operations.md, "What a gateway does to a NIC").
look_nic() {
  local node=$1 nic=$2 it=$3 links=$4 move=$5 found
  [[ $(jq -r .link_type <<<"$it") == ether ]] || problems+=("$nic of $node carries no Ethernet: give the NIC on which the VLAN is")
  [[ $(jq -r '.linkinfo.info_kind' <<<"$it") != bridge ]] || problems+=("$nic of $node is a bridge: give it with --bridge")
  found=$(jq -r '.master // ""' <<<"$it")
  [[ -z $found ]] || problems+=("$nic of $node is a part of $found: give that, with --bridge if it is a bridge, or \`ip link set $nic nomaster\`")
  found=$(jq -r --arg n "$nic" '[.[] | select(.link == $n and .linkinfo.info_kind != "veth") | .ifname] | join(" ")' <<<"$links")
  [[ -z $found ]] || problems+=("$found is on $nic of $node: give that, or remove it with \`ip link del\`")
  found=$(at "$node" ip -j addr show dev "$nic" | jq -r '[.[].addr_info[]? | select(.family == "inet" or .scope != "link") | "\(.local)/\(.prefixlen)"] | join(", ")')
  [[ -z $found || -n $move ]] || problems+=("$nic of $node has the address $found, so that the machine may be reached by it: use another NIC, \`ip addr del\` it, or have it moved with --move-host")
  found=$( (at "$node" ip -j -4 route show dev "$nic" && at "$node" ip -j -6 route show dev "$nic") |
    jq -rs '[.[][]? | .dst | select(startswith("fe80:") or startswith("ff00:") | not)] | join(", ")')
  [[ -z $found || -n $move ]] || problems+=("$nic of $node has the route $found, by which the machine sends: use another NIC, \`ip route del\` it, or have it moved with --move-host")
  ! at "$node" tc filter show dev "$nic" ingress 2>/dev/null | grep -q 'flowid 4c6f:6f6d' ||
    problems+=("another daemon on $node has taken $nic, or one was killed: \`tc filter show dev $nic ingress\`")
  ! at "$node" etherloom mirror list --json 2>/dev/null | jq -e --arg n "$nic" 'any(.mirrors[]; .to == $n)' >/dev/null ||
    problems+=("copies of a port of $node go to $nic: use another, or \`etherloom mirror remove --to $nic\` there")
  look_rivals "$node" "$nic"
}

# look_rivals warns of what will see nothing of the NIC any more: the host's firewall.
look_rivals() {
  local found
  found=$(at "$1" nft -j list chains 2>/dev/null | jq -r --arg n "$2" '[.nftables[].chain? // empty
    | select(.family == "netdev" and (.dev == $n or (.dev | type == "array" and index($n) != null))) | "\(.table) \(.name)"] | join(", ")') || return 0
  [[ -z $found ]] || warn "the nftables chain $found of $1 sees nothing of $2 once it is taken: let grants say what passes"
}

# listen counts the frames of a VLAN that come in on a NIC, for some seconds. Arguments: NODE, NIC, the port as JSON, SECONDS.
listen() {
  local node=$1 nic=$2 port=$3 seconds=$4 what match counts
  match=$(jq -r 'if .vlan == 0 then "ether type != { 8021q, 8021ad }" elif .service then "ether type 8021ad vlan id \(.vlan)"
    elif .native != "" then "meta protocol != 8021ad" else "vlan id \(.vlan)" end' <<<"$port")
  what=$(jq -r 'if .vlan == 0 then "untagged frames" else "frames of VLAN \(.vlan)" end' <<<"$port")
  if ! at "$node" nft "$(counting "$nic" "$match")"; then
    warn "nftables of $node cannot count on $nic, so nobody has looked for $what there"
    return 0
  fi
  sleep "$seconds"
  counts=$(at "$node" nft -j list table netdev "etherloom_look_$$" |
    jq -c '[.nftables[].rule? // empty | .expr[] | .counter? // empty | .packets]') || counts='[0,0]'
  at "$node" nft delete table netdev "etherloom_look_$$" || warn "remove the table by hand: nft delete table netdev etherloom_look_$$"
  echo "$node has seen $(jq '.[1]' <<<"$counts") $what among $(jq '.[0]' <<<"$counts") that came in on $nic in $seconds s"
  [[ $(jq '.[1]' <<<"$counts") != 0 ]] ||
    warn "no $what came: they may be quiet. Otherwise look whether the switch's port is a trunk that has the VLAN; a card with rx-vlan-filter shows it only once it is taken"
}

# counting is a table that counts frames and does nothing to them.
counting() {
  local t="etherloom_look_$$"
  echo "add table netdev $t; add chain netdev $t look { type filter hook ingress device \"$1\" priority -500; };" \
    "add rule netdev $t look counter; add rule netdev $t look $2 counter"
}
