package ether

// IGMP types (RFC 2236 section 2.1, RFC 3376 section 4), with those of others that share its protocol number: DVMRP (RFC 1075),
// PIM version 1, and multicast router discovery (RFC 4286).
const (
	IGMPQuery          = 0x11
	IGMPv1Report       = 0x12
	IGMPDVMRP          = 0x13
	IGMPPIMv1          = 0x14
	IGMPv2Report       = 0x16
	IGMPLeave          = 0x17
	IGMPv3Report       = 0x22
	IGMPRouterAdvert   = 0x30
	IGMPRouterSolicit  = 0x31
	IGMPRouterDeparted = 0x32
)

// ICMP types by which routers speak to hosts (RFC 792, RFC 1256 section 3).
const (
	ICMPRedirect            = 5
	ICMPRouterAdvertisement = 9
)
