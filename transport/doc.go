// Package transport carries sealed datagrams between nodes. It never looks into what it carries: a message is opaque
// bytes from the node's other half, and so is what arrives.
//
// An Endpoint is one node's end of everything. For each Peer it knows from the signed state it can open a link:
//
//	         signals (offer, answer, wake: candidates, sealed between the pair)
//	     +-- controller, relay, common peers, whichever works ---------------------------+
//	     |                                                                               |
//	+----+-----+   ICE agent (pion) finds a pair of addresses      direct path      +----+-----+
//	|  node a  |==================================================================|  node b  |
//	| Endpoint |                                                                  | Endpoint |
//	+----+-----+              relayed path: TURN at a relay                       +----+-----+
//	     +============================== switchboard =================================+
//
// Path. A pair of underlay addresses that ICE has checked, or a relay that both nodes have an allocation on. The relay
// works at once, so a link begins relayed and moves to the direct path when ICE has found one. Own sealed probes measure
// every path and decide which carries data; ICE's timers are too slow for that.
//
// Session. A Noise IK handshake (handshake.go) gives an epoch: a key for each direction, path and shard, each with its
// counter from 0 and its replay window. Of every pair the node with the lower identity initiates, rekeys included; the
// other wakes it. An epoch lives two minutes and overlaps with the next, so no message is lost.
//
// Silence. A datagram from an address that is no path of a peer, or that does not open, gets no answer, not even an
// error: to a scanner there is nobody here. Nothing listens on TCP.
//
// The way of a message out: Sender.Send appends it to a datagram, cutting it if it is too large for the path; Flush
// seals and sends. In: a socket's loop opens a datagram in place, checks the window, and gives each message to the
// Receiver. Both run on the caller's goroutine with what it finds behind atomic pointers. Everything else (handshakes,
// probes, paths, opening and closing links) is control: it happens under the Endpoint's one mutex, driven by the control
// loop in control.go, with the time as an argument.
//
// docs/protocol.md draws every message and has vectors.
package transport
