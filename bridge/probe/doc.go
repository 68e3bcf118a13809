// Package probe finds loops through the VLANs of this network's gateways, and says which port to block.
//
// It is pure: time and bytes come in, bytes and deadlines go out. Each gateway sends a small frame, a probe, out of each of
// its attached ports about four times a second, and looks at those that come in. The frame says who has sent it, and is
// authenticated by a key that the gateways of the segment share. What a probe means follows from where it is heard, at node n
// on a port of attachment a:
//
//	sent by                            means                                     what is done
//	n, a                               the port is looped to itself              a blocks at n
//	n, another attachment              two VLANs of this gateway are one         the greater attachment blocks at n
//	another node, a                    the other gateway of this VLAN            its hello goes to the election
//	another node, another attachment   two VLANs of the segment are one          the greater (attachment, node) blocks; the
//	                                                                             lesser too, at the greater's third probe
//	anybody, of another segment        two segments are cabled together          it is reported
//
// A blocked port carries no frames, and goes on to send and to hear probes:
//
//	+------+   a probe by which it must block    +---------+
//	| open | ----------------------------------> | blocked | --+ such a probe
//	|      | <---------------------------------- |         | <-+
//	+------+   none for 3 intervals and 1 s      +---------+
//
// A probe is sent before its time when somebody suspects a loop (Hurry), and by the lesser when it hears the greater; but of no port more
// than one in 20 ms.
//
// Attachments and nodes are ordered by number, so both ends of a loop decide alike without a word. That the greater blocks on
// both gateways of a VLAN that has two, forwarders or not, leaves no way by which the other of the two would close the loop
// again.
//
// The destination is 03:6c:6f:6f:6d:00, a group address of this project's own, from the range that IEEE 802c leaves to
// whoever administers a network. A bridge floods it: it is none of the reserved ones (01:80:c2:00:00:00 to 2f), which bridges
// keep or treat otherwise, and IGMP and MLD snooping prune only the groups of IP (01:00:5e, 33:33). Broadcast would be
// flooded too, but every host would look at it, and storm control, which bites when there is a loop, counts it with the
// broadcasts of the storm.
//
// A probe, after the header with EtherType 0x88b5 (IEEE 802 local experimental 1):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+---------------------------------------------------------------+
//	|                        magic "loom"                           |
//	+---------------+-------------+-+-------------------------------+
//	|   version 1   | 0           |B|       length of the hello     |
//	+---------------+-------------+-+-------------------------------+
//	|       0       |                 segment (24)                  |
//	+---------------+-----------------------------------------------+
//	|                          attachment                           |
//	+---------------------------------------------------------------+
//	|                             node                              |
//	+---------------------------------------------------------------+
//	|                           boot (64)                           |
//	|                                                               |
//	+---------------------------------------------------------------+
//	|                         sequence (64)                         |
//	|                                                               |
//	+---------------------------------------------------------------+
//	|  hello of the election (package election), may be empty
//	+---------------------------------------------------------------+
//	|  HMAC-SHA-256 over "etherloom probe v1", destination, source, and all from the magic on, its first 16 bytes
//
// B: the port is blocked. The shortest probe has 66 bytes, so none is padded; what follows is passed over all the same. A tag
// in front of the EtherType is not covered: switches add and remove tags.
//
// Whoever is on a VLAN can bring a probe back to its sender, as a loop would, and so block the port: as he could by a cable.
// He cannot do so later, from elsewhere, or in another gateway's name: sequences only grow, and a probe of one's own comes
// back at once or not at all.
package probe
