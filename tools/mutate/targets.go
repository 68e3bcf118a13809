package main

// target is a package with files that decide whether a frame or a datagram goes on.
type target struct {
	dir   string   // from the root of the module
	files []string // in dir
	tests string   // which tests of dir must notice, for go test -run; empty: all
}

// targets is what is mutated.
func targets() []target {
	return []target{
		{"ether", []string{"ether.go", "arp.go", "ip.go", "nd.go", "fragment.go", "route.go", "dhcp.go", "offload.go", "join.go", "vlan.go", "inner.go"}, ""},
		{"bridge", []string{"trunk.go"}, "Access|Golden|InnerTags|NoTag|PriorityIsKept|Trunk"},
		{"policy", []string{
			"around.go", "station.go", "ipv4.go", "ipv6.go", "dhcp.go", "beyond.go", "limit.go", "role.go", "view.go", "class.go", "flow.go", "fragment.go",
			"grant.go", "machine.go", "matcher.go", "passage.go", "seek.go", "term.go", "lease.go", "secondary.go", "fellow.go",
		}, ""},
		{"bridge/election", []string{"hello.go", "hear.go", "judge.go"}, ""},
		{"bridge/probe", []string{"frame.go", "hear.go"}, ""},
		{"bridge/lacp", []string{"pdu.go", "machines.go", "port.go"}, ""},
		{"switch", []string{"admit.go", "answer.go", "attributes.go", "backup.go", "echo.go", "forward.go", "group.go", "heed.go", "neighbours.go", "rate.go", "reject.go", "serve.go"}, ""},
		{"transport", []string{"wire.go", "receive.go", "epoch.go", "replay.go", "record.go", "rejoin.go"}, "Datagrams|Handshakes|Records|Replies|Replay|Rejoin|Fuzz|Key"},
		{"node/herald", []string{"notice.go", "hear.go"}, ""},
		{"node", []string{"link.go", "ingress.go", "herald.go", "partner.go"}, "Trial|Ingress|Tag|SegmentSize|FramesDoNotAllocate|Partner"},
	}
}

// elsewhere lists functions of these files that refuse no frame, and why.
func elsewhere() map[string]string {
	const sends = "it sends; nothing that comes in is judged"
	const forgets = "it forgets addresses; what is believed is judged in believeLocked"
	const computes = "it computes what a header holds"
	const describes = "it says what a receiver takes, or what is undone"
	return map[string]string{
		"ether/ether.go ParseMAC":            "it reads settings",
		"ether/offload.go UDP":               describes,
		"policy/around.go joins":             "it works out whom a grant concerns, not what it lets pass",
		"ether/offload.go Cover":             describes,
		"ether/offload.go Complete":          computes,
		"ether/offload.go finish":            computes,
		"ether/offload.go putPseudo":         computes,
		"ether/offload.go putLength":         computes,
		"transport/epoch.go sendKey":         sends,
		"transport/epoch.go seal":            sends,
		"transport/receive.go deliver":       "it counts",
		"transport/replay.go commit":         "it keeps what fresh has judged",
		"transport/rejoin.go newLocked":      "it finds room",
		"transport/rejoin.go freeLocked":     "it finds room",
		"transport/rejoin.go makeRoomLocked": "it finds room",
		"transport/rejoin.go expireLocked":   "it finds room: add refuses what is late",
		"switch/attributes.go Set":           "it reads settings",
		"switch/attributes.go describe":      "it reads settings",
		"node/herald/hear.go retractLocked":  forgets,
		"node/herald/hear.go placeLocked":    forgets,
		"node/herald/hear.go dropLocked":     forgets,
		"node/herald/hear.go forgetLocked":   forgets,
		"node/herald/hear.go askLocked":      sends,
		"node/herald.go Live":                sends,
		"node/herald.go moved":               "it tells a VLAN; nothing that comes in is judged",
		"node/herald.go newSender":           sends,
		"node/link.go Send":                  sends,
		"node/partner.go tellPartnerLocked":  sends,
		"node/link.go take":                  "it numbers goroutines",
		"node/ingress.go Close":              "it frees a number",
		"node/ingress.go sends":              sends,
		"node/ingress.go control":            "it sends messages on to those who judge them; to parseTag they are none",
	}
}

// allowed lists mutations that no test can notice, and why. One that a test does notice has no place here: it is an error.
func allowed() map[string]string {
	const cannotFail = "no key of 32 bytes is refused by AES or ChaCha20"
	return map[string]string{
		"ether/offload.go layoutOf: err != nil is false":                    "what does not parse has type 0, which is none of the two",
		"ether/offload.go layoutOf: !ok is false (2)":                       "what is no IPv6 packet has no extension header either, so Upper refuses",
		"ether/offload.go layoutOf: !ok is false (3)":                       "Upper refuses with no payload, or on an extension header",
		"ether/join.go Add: l == j.l is true":                               "sameHost compares the bytes that make a layout",
		"policy/ipv4.go asksDHCP: ok is true":                               "what is cut has ports 0, which are not a client's",
		"policy/ipv6.go checkIPv6: part == ether.LaterFragment is true":     "only of a later fragment is an extension header left over",
		"transport/receive.go data: !ep.confirmed.Load() is true":           "confirm asks again, under the lock",
		"transport/epoch.go open: k == nil is false":                        cannotFail,
		"transport/epoch.go recvKey: err != nil is false":                   cannotFail,
		"ether/fragment.go fragmentV4: !ok is false":                        "what does not parse is no fragment",
		"ether/fragment.go fragmentV6: !ok is false":                        "what does not parse has no header to walk along",
		"policy/class.go classifyV6: !ok is false":                          "what does not parse has no header that Upper finds",
		"policy/grant.go covers: c.Kind == Opaque is true":                  "no term names a type that is looked into",
		"switch/forward.go roundabout: ok is true":                          "who goes between two looks at the table cannot be timed",
		"node/herald/hear.go believeLocked: known is true":                  "who goes between two looks at the table cannot be timed",
		"policy/flow.go stillAllows: e.generation == v.generation is false": "what has let a flow pass lets it pass again, with more work",
		"switch/forward.go lookup: c.asked != nil is true":                  "once a source is learned, Foresee says what Lookup does",
		"switch/neighbours.go suppress: !ok is false":                       "nobody, who is 0, is on no wire",
		"policy/grant.go coversPacket: return false gives true":             "the cases before it are all that there are",
		"node/ingress.go forward: i.sender == nil is true":                  "one more sender sends as the first does",
		"policy/secondary.go apart: !v.private is false":                    "where all are promiscuous nobody is apart, with more work",
	}
}
