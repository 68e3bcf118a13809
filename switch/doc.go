// Package vswitch is the forwarding path of a segment: what happens to a frame from the port where it enters to the
// ports where it leaves. (A Go package cannot be named switch; the folder is.)
//
// A Segment joins ports. A Port is local (a TAP: the machine this daemon runs on), a link (another node, and the machines behind
// it) or attached (the machines on a VLAN that exists, for which this node is the gateway). Frames enter through Forward, which is the
// whole path in one function, top to bottom:
//
//	parse      lengths and tags; what cannot be parsed matches nothing
//	admit      reserved addresses, who is behind the port with this MAC, what they may use
//	answer     what a host asks about those whom it has a grant to reach: this node answers, and nobody else hears of it
//	lookup     where the destination is, and who
//	replicate  to one port or to many: not back where it came from, never from link to link, not what goes round a loop, each
//	           receiver judged
//	learn      where the source is: only when somebody may have the frame, so that one that is refused moves nothing
//
// The goroutine that read a frame carries it to the end and numbers itself by a Lane; an Egress borrows the frame until
// it returns. Nothing here queues, blocks, logs or allocates. A frame that goes nowhere is not an error: it has a
// Drop, which is counted.
//
// Explain asks what Forward would do with a frame. It is the same code, down to the last check, and does nothing else.
//
// Configured state (ports, policy) is an immutable layout behind an atomic pointer, rebuilt by one writer at a time;
// learned state is in package fdb. Split horizon is decided when the layout is built: the list of ports that a flooded
// frame may go to is computed for each kind of ingress, not for each frame.
package vswitch
