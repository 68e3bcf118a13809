package election

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"testing"
)

func TestHello(t *testing.T) {
	full := Hello{
		Attachment: 0x01020304, Node: 0x05060708, Preference: 0x090a, Claims: true, Able: true, Ready: true, Heard: true,
		Lease: 400 * ms, Boot: 0x0b0c0d0e0f101112, Sequence: 0x131415161718191a, Acks: []Ack{{1, 2, 3}, {4, 5, 6}},
	}
	data := full.AppendTo(nil)
	got, err := ParseHello(append(data, "and what comes later"...))
	if err != nil || string(got.AppendTo(nil)) != string(data) || len(data) != headerLen+2*ackLen {
		t.Fatalf("ParseHello = %+v, %v", got, err)
	}
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
		want   error
	}{
		{"empty", func([]byte) []byte { return nil }, ErrShort},
		{"cut in the header", func(b []byte) []byte { return b[:headerLen-1] }, ErrShort},
		{"cut in the acks", func(b []byte) []byte { return b[:len(b)-1] }, ErrShort},
		{"another version", func(b []byte) []byte { b[0] = 2; return b }, ErrVersion},
		{"an unknown flag", func(b []byte) []byte { b[1] |= 0x20; return b }, ErrForm},
		{"claims and is not able", func(b []byte) []byte { b[1] = flagClaims; return b }, ErrForm},
		{"ready and not able", func(b []byte) []byte { b[1] = flagReady; return b }, ErrForm},
		{"leaves and is able", func(b []byte) []byte { b[1] = flagLeaves | flagAble; return b }, ErrForm},
		{"leaves", func(b []byte) []byte { b[1] = flagLeaves; return b }, nil},
		{"able alone", func(b []byte) []byte { b[1] = flagAble; return b }, nil},
		{"nothing", func(b []byte) []byte { b[1] = 0; return b }, nil},
		{"a lease that is too long", func(b []byte) []byte { binary.BigEndian.PutUint16(b[12:], 10001); return b }, ErrForm},
		{"too many acks", func(b []byte) []byte { b[14] = MaxGateways + 1; return append(b, make([]byte, 1000)...) }, ErrForm},
		{"as many as may be", func(b []byte) []byte { b[14] = MaxGateways; return append(b, make([]byte, 1000)...) }, nil},
	} {
		if _, err := ParseHello(c.change(full.AppendTo(nil))); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// The form on the wire does not change unseen (docs/protocol.md, section 10).
func TestHelloVector(t *testing.T) {
	h := Hello{
		Attachment: 7, Node: 1, Preference: 5, Claims: true, Able: true, Ready: true, Heard: true, Lease: 400 * ms, Boot: 11, Sequence: 12,
		Acks: []Ack{{2, 22, 13}},
	}
	const want = "010f0005" + "00000007" + "00000001" + "0190" + "01" + "00" + "000000000000000b" + "000000000000000c" +
		"00000002" + "0000000000000016" + "000000000000000d"
	if got := hex.EncodeToString(h.AppendTo(nil)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if r := rankOf(7, 1, 5); r.hash != 0x1a3eaa3c25c3a340 {
		t.Errorf("hash %#x", r.hash)
	}
}

// What parses is what it says, and nothing that parses makes an election stumble.
func FuzzHello(f *testing.F) {
	h := claimant(2)
	h.Attachment, h.Boot, h.Sequence, h.Lease = 7, 22, 1, 400*ms
	f.Add(h.AppendTo(nil), true)
	h.Acks = []Ack{{1, 11, 5}}
	f.Add(h.AppendTo(nil), false)
	f.Fuzz(func(t *testing.T, data []byte, vlan bool) {
		h, err := ParseHello(data)
		if err == nil {
			// The reserved byte may be anything.
			want := append([]byte{}, data[:headerLen+len(h.Acks)*ackLen]...)
			if want[15] = 0; string(h.AppendTo(nil)) != string(want) {
				t.Errorf("%x is read as %+v", data, h)
			}
		}
		s := forwarding(t, 2)
		by := Overlay
		if vlan {
			by = VLAN
		}
		until := s.e.until
		if s.e.Hear(2, by, data, s.now) == nil && h.Node != 2 {
			t.Error("a hello was taken that is not the sender's")
		}
		s.tick()
		if s.e.until.After(until.Add(450 * ms)) {
			t.Error("the lease is longer than a lease")
		}
	})
}
