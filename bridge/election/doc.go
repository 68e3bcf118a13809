// Package election says which of the gateways on a VLAN carries its frames: the designated forwarder. It holds a lease that
// ends by its own clock, so that one which was paused does not forward when it is resumed.
//
// It is pure: time and bytes come in, bytes and deadlines go out. There is one Election for each attachment that has a port
// at this gateway. Every gateway says hello about ten times a second, both over the overlay and on the VLAN. A hello says
// whether its sender claims to be the forwarder, whether it could be, how much it is preferred, and of each other gateway the
// last hello that it has heard. docs/decisions/0011-one-forwarder.md says why it is done so.
//
//	        heard nobody who claims,             said so; everybody whom it
//	        and nobody better is ready           hears has acknowledged
//	+--------+                    +----------+                    +------------+
//	| stands | -----------------> |  claims  | -----------------> |  forwards  | --+ acknowledged,
//	|   by   | <----------------- |          | <----------------- |            | <-+ or alone
//	+--------+  another claims,   +----------+  hears one that    +------------+
//	    ^  ^    or is better                    knows of no claim       |  |
//	    |  +------------------------------------------------------------+  |
//	    |        another claims; a better one is ready; not able           |
//	    |                                                                  |
//	    | has listened (Hold)     +----------+    the lease has run out    |
//	    +------------------------ |  waits   | <---------------------------+
//	                              +----------+ <--- starts
//
// The rules:
//
//  1. A gateway *forwards* until its lease ends: the time at which it sent the newest of its claims that every gateway which
//     it hears has acknowledged, plus Lease. One that it has not heard for Alive is not asked; if it hears none, the time at
//     which it sent its newest hello counts.
//  2. An acknowledgement is a promise: whoever has heard a claim does not claim before that claimant's Lease and Margin have
//     passed, or the claimant has said in a later hello of the same run that it no longer claims. A promise is given to one
//     claimant at a time.
//  3. To begin, a claim must have been acknowledged by everybody who was heard in the last Lease and Margin.
//  4. A gateway *claims* if it is able, has heard no claim for Lease and Margin, and no better one is alive that is fit to be
//     chosen. Fit is who is ready and heard by everybody that it hears: a claim that somebody cannot hear would not be
//     acknowledged.
//  5. Who hears another claim stops at once, whichever of the two is better. If both have stopped, the better one claims.
//  6. A forwarder that hears one that is better, and has been fit for Settle, stops, and says so at once.
//  7. A lease that has run out is over: what is acknowledged later does not bring it back. It waits, and listens for Hold.
//  8. Time in which nobody listened (no call for more than Margin) does not count as time in which nobody was heard. Nobody
//     begins by silence at the first call after a while, but at the next, when what lay unread has been read.
//  9. A gateway is *ready* if it might claim within the next Lease and Margin. Who was not able, or has not listened for
//     Alive, is not: it claims only after it has listened for so long. A forwarder that was alone and hears one that is not
//     ready goes on, and has a Lease's time to be acknowledged. If that one is ready and knows of no claim, it stops until it
//     is acknowledged.
//  10. A gateway that says it is not able, and has not acknowledged a claim for Lease and Margin, need not: it hears nothing,
//     and does not want to forward either. Nor need one that has said that it leaves: this run of it never claims again.
//  11. A gateway is *able* while its port carries, it is synced with its state (or has waited for that long enough), and it
//     has a live peer in the overlay besides the other gateways, or there is none to have. One that hears neither the other
//     gateways nor a peer is not.
//
// So while two gateways hear each other, in both directions, on either channel, at most one forwards. Two forward only if in
// some direction nothing at all has come through for the whole of the last Lease. Then the VLAN is two VLANs, or one of the
// two has failed.
//
// Clocks need not agree; they must run at the same pace, within Margin in Lease. The times that are passed must be by a clock
// that does not go back, and that counts the time for which the machine was suspended (CLOCK_BOOTTIME). A guest that is
// stopped together with its clocks, and resumed, forwards for what was left of its lease, which is less than half a second.
package election
