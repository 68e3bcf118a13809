// Package bridge is the host side of ports: the TAP devices by which this machine hangs on its segments, and what the
// kernel tells about links and addresses.
//
// A TAP is made by netlink (which alone can ask for the virtio header), its queues are attached by water, and everything
// about it is set through netlink and sysctl: MAC, MTU, addresses. It lives as long as its TAP value: nothing is left when
// the process ends, however it ends.
//
// The rule of the house: own nothing that we did not make. Addresses that others put on a TAP stay; what others change on
// it is reported by Drift and not undone. A TAP that is renamed or moved to another network namespace is followed.
//
// A Wire is the way onto a network that is there already: a NIC of the machine, taken from its stack and joined to a TAP frame for frame.
// It refuses a NIC that the machine needs for itself; what it changes on it, it writes down first and changes back, after a crash
// when it is next started. Or it is a port of a bridge, which it tells who is behind it. A Trunk says to whom the frames of such a network's VLANs belong, and how those are tagged that
// go back. Its VLANs end there: inside a segment a frame has none.
//
// A Sink is where copies of frames go that somebody wants to look at: a TAP that nobody reads, or a NIC that nobody needs. Nothing enters by it.
//
// A Monitor turns the kernel's events into one notice that something has changed; who is interested asks again.
package bridge
