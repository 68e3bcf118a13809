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
// A Monitor turns the kernel's events into one notice that something has changed; who is interested asks again.
package bridge
