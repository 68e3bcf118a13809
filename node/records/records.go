// Package records writes what a node has let pass and what it has refused to where an administrator wants it: as JSON lines to a
// file, and as IPFIX (RFC 7011) to a collector. What cannot be written is lost; nothing waits for it.
package records

import (
	"net/netip"
	"time"
)

// Schema is the version of Record. Fields may be added to a version; none is taken away or given another meaning.
const Schema = 1

// The types of Record.
const (
	Flow   = "flow"   // what a flow has carried since its record before
	Denied = "denied" // frames that were refused alike
	Lost   = "lost"   // records that there was no room for
)

// Party is one end.
type Party struct {
	ID   uint32 `json:"id"`
	Name string `json:"name"`
}

// Record is one line.
type Record struct {
	Schema    int        `json:"schema"`
	Type      string     `json:"type"`
	Time      time.Time  `json:"time"` // when it was written
	Node      Party      `json:"node"` // that has seen it
	Segment   string     `json:"segment"`
	VNI       uint32     `json:"vni"`
	Source    *Party     `json:"source,omitempty"` // who has begun the flow, or sent the frames
	Target    *Party     `json:"target,omitempty"` // none: a group, or nobody known
	Verdict   string     `json:"verdict"`          // pass, or why not, as `etherloom drops` names it
	Grant     uint32     `json:"grant,omitempty"`  // that lets it pass
	Observed  uint32     `json:"observed,omitempty"`
	EtherType string     `json:"ether_type,omitempty"` // such as 0x0800
	Protocol  uint8      `json:"protocol,omitempty"`   // of IP; ICMPv6 counts as ICMP
	Src       netip.Addr `json:"src,omitzero"`
	Dst       netip.Addr `json:"dst,omitzero"`
	SrcPort   uint16     `json:"src_port,omitempty"` // of ICMP echo both are its identifier
	DstPort   uint16     `json:"dst_port,omitempty"`
	VLAN      string     `json:"vlan,omitempty"` // inside a transparent segment, such as 10, or 20.10 with the outer one first
	SrcMAC    string     `json:"src_mac,omitempty"`
	DstMAC    string     `json:"dst_mac,omitempty"`
	First     time.Time  `json:"first,omitzero"`
	Last      time.Time  `json:"last,omitzero"`
	Frames    uint64     `json:"frames"` // from source to target; a super-frame counts once
	Octets    uint64     `json:"octets"` // of whole frames, without checksum and preamble
	// AnswerFrames and AnswerOctets are of a flow, from target to source.
	AnswerFrames uint64 `json:"answer_frames,omitempty"`
	AnswerOctets uint64 `json:"answer_octets,omitempty"`
	End          string `json:"end,omitempty"` // of a flow: active, idle, closed, cut or evicted
}
