package dnsd

import "sync/atomic"

// Stats are counts since New. Every message that arrives is in Queries and in exactly one of the others, except
// Mismatched, which counts messages from upstreams, and Crowded, which counts connections.
type Stats struct {
	Queries    uint64 // messages that passed the filter
	Answered   uint64 // answered from the view with NOERROR, also when the name has no record of that type
	NXDomain   uint64 // ours and not in the view
	Forwarded  uint64 // answered with what an upstream said
	Refused    uint64 // answered with REFUSED: zone transfer, class, or not ours with forwarding off
	Failed     uint64 // answered with SERVFAIL: no upstream answered in time, or too many queries were in flight
	Malformed  uint64 // answered with FORMERR, NOTIMP or BADVERS
	Dropped    uint64 // too short, or not a query: no answer
	Mismatched uint64 // messages from an upstream's address that do not answer what was asked
	Crowded    uint64 // TCP connections closed because there were too many
}

type counters struct {
	queries, answered, nxdomain, forwarded, refused, failed, malformed, dropped, mismatched, crowded atomic.Uint64
}

// Stats returns the counts. They are read one by one, so their sum may be off by what arrives meanwhile.
func (s *Server) Stats() Stats {
	c := &s.stats
	return Stats{
		Queries:    c.queries.Load(),
		Answered:   c.answered.Load(),
		NXDomain:   c.nxdomain.Load(),
		Forwarded:  c.forwarded.Load(),
		Refused:    c.refused.Load(),
		Failed:     c.failed.Load(),
		Malformed:  c.malformed.Load(),
		Dropped:    c.dropped.Load(),
		Mismatched: c.mismatched.Load(),
		Crowded:    c.crowded.Load(),
	}
}
