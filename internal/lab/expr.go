package lab

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The pieces that nftables rules of this package are joined from. Each loads a value into register 1 and goes on to
// the next if it matches; the comment is what nft(8) would call it.

const register = 1

func join(parts ...[]expr.Any) []expr.Any { return slices.Concat(parts...) }

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

func drop() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}} }

// sentTo: dup to DEVICE; drop.
func sentTo(index int) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: register, Data: binary.NativeEndian.AppendUint32(nil, uint32(index))},
		&expr.Dup{RegDev: register, IsRegDevSet: true},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

// counted: counter name NAME.
func counted(name string) []expr.Any {
	return []expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: name}}
}

func compare(op expr.CmpOp, data []byte) expr.Any {
	return &expr.Cmp{Op: op, Register: register, Data: data}
}

func meta(key expr.MetaKey) expr.Any { return &expr.Meta{Key: key, Register: register} }

// hton turns the 32-bit number in the register to network order, in which numbers compare as bytes do.
func hton() expr.Any {
	return &expr.Byteorder{
		SourceRegister: register, DestRegister: register, Op: expr.ByteorderHton, Len: 4, Size: 4,
	}
}

// interfaceIs: iifname NAME, oifname NAME.
func interfaceIs(key expr.MetaKey, name string) []expr.Any {
	data := make([]byte, unix.IFNAMSIZ)
	copy(data, name)
	return []expr.Any{meta(key), compare(expr.CmpOpEq, data)}
}

// isFamily: meta nfproto FAMILY.
func isFamily(family byte) []expr.Any {
	return []expr.Any{meta(expr.MetaKeyNFPROTO), compare(expr.CmpOpEq, []byte{family})}
}

// isEtherType: meta protocol TYPE.
func isEtherType(t uint16) []expr.Any {
	return []expr.Any{meta(expr.MetaKeyPROTOCOL), compare(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, t))}
}

// isProtocol: meta l4proto P.
func isProtocol(p byte) []expr.Any {
	return []expr.Any{meta(expr.MetaKeyL4PROTO), compare(expr.CmpOpEq, []byte{p})}
}

// isReply: ct state established,related.
func isReply() []expr.Any {
	bits := expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: register},
		&expr.Bitwise{
			SourceRegister: register, DestRegister: register, Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: make([]byte, 4),
		},
		compare(expr.CmpOpNeq, make([]byte, 4)),
	}
}

// isNeighbourDiscovery: icmpv6 type 133-137 (RFC 4861 section 4).
func isNeighbourDiscovery() []expr.Any {
	return join(isFamily(unix.NFPROTO_IPV6), isProtocol(unix.IPPROTO_ICMPV6), []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		compare(expr.CmpOpGte, []byte{133}), compare(expr.CmpOpLte, []byte{137}),
	})
}

// addressIn: ip saddr PREFIX, ip6 daddr PREFIX, and so on.
func addressIn(prefix netip.Prefix, source bool) []expr.Any {
	etherType, offset, size := uint16(unix.ETH_P_IP), uint32(12), uint32(4) // RFC 791 section 3.1
	if prefix.Addr().Is6() {
		etherType, offset, size = unix.ETH_P_IPV6, 8, 16 // RFC 8200 section 3
	}
	if !source {
		offset += size
	}
	mask := make([]byte, size)
	for i := range prefix.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return join(isEtherType(etherType), []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: size, Mask: mask, Xor: make([]byte, size)},
		compare(expr.CmpOpEq, prefix.Masked().Addr().AsSlice()),
	})
}

// portIs: th sport P, th dport P.
func portIs(port uint16, source bool) []expr.Any {
	offset := uint32(2)
	if source {
		offset = 0
	}
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2},
		compare(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, port)),
	}
}

// longerThan: meta length > N.
func longerThan(n uint32) []expr.Any {
	return []expr.Any{meta(expr.MetaKeyLEN), hton(), compare(expr.CmpOpGt, binary.BigEndian.AppendUint32(nil, n))}
}

// chance: numgen random mod 2^24 < N.
func chance(p float64) []expr.Any {
	const modulus = 1 << 24
	return []expr.Any{
		&expr.Numgen{Register: register, Modulus: modulus, Type: unix.NFT_NG_RANDOM},
		hton(),
		compare(expr.CmpOpLt, binary.BigEndian.AppendUint32(nil, uint32(p*modulus))),
	}
}
