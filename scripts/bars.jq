# Holds the medians of bench.sh against the bars that Etherloom has to clear. In: an array of what bench.sh calls $medians. Out:
# a table of the bars whose peers were measured. Against several peers, it is the best of them that counts.
def bars: [
  {figure: "TCP, 1 stream", of: "tcp1", against: ["wireguard-go"], least: 2},
  {figure: "TCP, 1 stream", of: "tcp1", against: ["ts-wireguard-go"], least: 1.2, goal: 1.5},
  (["fastd", "openvpn", "tinc", "n2n", "wireguard-go+vxlan"][] | {figure: "TCP, 1 stream", of: "tcp1", against: [.], least: 5}),
  {figure: "TCP, 1 stream, offloads off", of: "tcp1", offloads: "off", against: ["wireguard-go"], least: 1.5},
  {figure: "UDP 64 B", of: "udp64", against: ["fastd", "tinc", "nebula"], least: 2},
  {figure: "RTT", of: "rtt", against: ["wireguard-go"], most: 0.7},
  {figure: "RTT under load", of: "loaded", against: ["wireguard-go"], most: 1},
  {figure: "daemons' CPU s/Gbit", of: "daemons", against: ["wireguard-go"], most: 0.5},
  {figure: "TCP, 1 stream", of: "tcp1", against: ["etherloom-open"], least: 0.95}
];

# Never rounds a value over its bar.
def shown: .bar as $b | .value * 100 | (if $b.least then floor else ceil end) / 100;

. as $medians
| def measured($peer; $bar): $medians[]
    | select(.peer == $peer and .offloads == ($bar.offloads // "on") and ((.[$bar.of] // 0) > 0));
  [bars[] | . as $bar | measured("etherloom"; $bar) as $own
    | [measured($bar.against[]; $bar)] | select(length > 0) | max_by(.[$bar.of])
    | {bar: $bar, against: .peer, value: ($own[$bar.of] / .[$bar.of])}]
| select(length > 0)
| "", "| figure | against | value | bar | met |", "|---|---|---|---|---|",
  (.[] | "| \(.bar.figure) | \(.against) | \(shown) | "
    + (if .bar.least then "≥ \(.bar.least)" else "≤ \(.bar.most)" end)
    + (if .bar.goal then " (goal \(.bar.goal))" else "" end) + " | "
    + (if .bar.least then .value >= .bar.least else .value <= .bar.most end | if . then "yes" else "no" end) + " |")
