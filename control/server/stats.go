package server

import "sync/atomic"

// Stats counts what a controller did since it started.
type Stats struct {
	Streams      int64 // open now
	StreamsEnded uint64

	StatesFull    uint64 // sent whole
	StatesDelta   uint64 // sent as a difference
	StatesRenewed uint64 // only their expiry

	SignalsPassed    uint64
	SignalsLost      uint64 // the receiver has no stream here, or its queue is full
	SignalsForbidden uint64 // sender and receiver share no segment
	SignalsTooLarge  uint64
	SignalsTooMany   uint64

	ReportsRefused uint64 // of posture, not well-formed

	CallsRefused       uint64
	ConnectionsRefused uint64
}

type counters struct {
	streams      atomic.Int64
	streamsEnded atomic.Uint64

	full, delta, renewed atomic.Uint64

	signalsPassed, signalsLost, signalsForbidden, signalsTooLarge, signalsTooMany atomic.Uint64

	reportsRefused, callsRefused, connectionsRefused atomic.Uint64
}

// count counts one state that was sent.
func (c *counters) count(full, same bool) {
	switch {
	case same:
		c.renewed.Add(1)
	case full:
		c.full.Add(1)
	default:
		c.delta.Add(1)
	}
}

// Stats returns the counters.
func (c *Controller) Stats() Stats {
	s := &c.stats
	return Stats{
		Streams: s.streams.Load(), StreamsEnded: s.streamsEnded.Load(),
		StatesFull: s.full.Load(), StatesDelta: s.delta.Load(), StatesRenewed: s.renewed.Load(),
		SignalsPassed: s.signalsPassed.Load(), SignalsLost: s.signalsLost.Load(), SignalsForbidden: s.signalsForbidden.Load(),
		SignalsTooLarge: s.signalsTooLarge.Load(), SignalsTooMany: s.signalsTooMany.Load(),
		ReportsRefused: s.reportsRefused.Load(),
		CallsRefused:   s.callsRefused.Load(), ConnectionsRefused: s.connectionsRefused.Load(),
	}
}
