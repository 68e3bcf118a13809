package ether

// Routed reports whether an IPv4 packet asks to be carried by way of others than its destination address says (RFC 791 section
// 3.1, source route), or has options that cannot be read. p is the whole packet.
func (h IPv4) Routed(p []byte) bool {
	const end, nothing, loose, strict = 0, 1, 131, 137
	options := p[20 : int(p[0]&0x0f)*4]
	for len(options) > 0 {
		switch kind := options[0]; {
		case kind == end:
			return false
		case kind == nothing:
			options = options[1:]
			continue
		case kind == loose || kind == strict, len(options) < 2, options[1] < 2, int(options[1]) > len(options):
			return true
		}
		options = options[options[1]:]
	}
	return false
}

// Routed reports whether the packet goes on to another address when it has reached its destination: a routing header has segments
// left (RFC 8200 section 4.4).
func (h IPv6) Routed() bool {
	next, p := h.Next, h.Payload
	for range maxExtensions {
		if !next.IsExtension() || len(p) < 8 {
			return false
		}
		size := 8
		if next != ProtoFragment {
			size += int(p[1]) * 8
		}
		if next == ProtoRouting && p[3] != 0 {
			return true
		}
		if len(p) < size {
			return false
		}
		next, p = Protocol(p[0]), p[size:]
	}
	return false
}
