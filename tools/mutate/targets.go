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
		{"ether", []string{"ether.go", "arp.go", "ip.go", "nd.go", "offload.go", "join.go"}, ""},
		{"policy", []string{"station.go", "view.go"}, ""},
		{"switch", []string{"admit.go", "forward.go", "reject.go"}, ""},
		{"transport", []string{"wire.go", "receive.go", "epoch.go", "replay.go", "record.go", "rejoin.go"}, "Datagrams|Handshakes|Records|Replies|Replay|Rejoin|Fuzz|Key"},
		{"node", []string{"link.go", "ingress.go"}, "Trial|Ingress|Tag|SegmentSize|FramesDoNotAllocate"},
	}
}

// elsewhere lists functions of these files that refuse no frame, and why.
func elsewhere() map[string]string {
	const sends = "it sends; nothing that comes in is judged"
	const computes = "it computes what a header holds"
	const describes = "it says what a receiver takes, or what is undone"
	return map[string]string{
		"ether/ether.go ParseMAC":            "it reads settings",
		"ether/offload.go UDP":               describes,
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
		"node/link.go Send":                  sends,
		"node/link.go take":                  "it numbers goroutines",
		"node/ingress.go Close":              "it frees a number",
	}
}

// reversed lists functions of which true is the answer that refuses.
func reversed() map[string]bool {
	return map[string]bool{
		"ether/ether.go IsReserved":    true,
		"policy/view.go expired":       true,
		"policy/view.go void":          true,
		"transport/rejoin.go overlaps": true,
	}
}

// allowed lists mutations that no test can notice, and why. One that a test does notice has no place here: it is an error.
func allowed() map[string]string {
	const cannotFail = "no key of 32 bytes is refused by AES or ChaCha20"
	return map[string]string{
		"ether/offload.go layoutOf: err != nil is false":          "what does not parse has type 0, which is none of the two",
		"ether/offload.go layoutOf: !ok is false (2)":             "what is no IPv6 packet has no extension header either, so Upper refuses",
		"ether/offload.go layoutOf: !ok is false (3)":             "Upper refuses with no payload, or on an extension header",
		"ether/join.go Add: l == j.l is true":                     "sameHost compares the bytes that make a layout",
		"policy/station.go checkIPv4: ok is true":                 "what is cut has ports 0, which are not a client's",
		"policy/station.go checkIPv6: ok is true":                 "a later fragment has no payload here, so it is no neighbour discovery",
		"transport/receive.go data: !ep.confirmed.Load() is true": "confirm asks again, under the lock",
		"transport/epoch.go open: k == nil is false":              cannotFail,
		"transport/epoch.go recvKey: err != nil is false":         cannotFail,
	}
}
