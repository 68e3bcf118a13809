package node

import (
	"bytes"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// fellows are flows with a value in every field.
func fellows(count int) (out []policy.Fellow) {
	for i := range count {
		out = append(out, policy.Fellow{
			Opener: 0x01020304, Other: policy.Identity(0x11121314 + i), Grant: 0x21222324, VLANs: 0x8064000a, Dst: ether.MAC{2, 4, 6, 8, 10, 12},
			Tuple: policy.Tuple{
				Src: [16]byte{0x20, 1, 15: 1}, Dst: [16]byte{0x20, 1, 15: 2}, SrcPort: 0x3132, DstPort: 0x4142, Protocol: ether.ProtoTCP,
			},
			Answered: i%2 == 0, Ending: i%3 == 0,
		})
	}
	return out
}

func flowsMessage(list []policy.Fellow) []byte {
	b := []byte{formatFlows, 0, 0, 7}
	for i := range list {
		b = appendFellow(b, &list[i])
	}
	return b
}

// What is written is read again; and nothing that is cut, or more than is ever sent.
func TestFlowsMessage(t *testing.T) {
	list := fellows(mostFlows)
	b := flowsMessage(list)
	vni, got, ok := parseFellows(b)
	if !ok || vni != 7 || len(got) != len(list) {
		t.Fatalf("%v, segment %d, %d flows", ok, vni, len(got))
	}
	for i := range list {
		if got[i] != list[i] {
			t.Errorf("flow %d is read as %+v, want %+v", i, got[i], list[i])
		}
	}
	want := []byte("\x04\x00\x00\x07\x01\x02\x03\x04\x11\x12\x13\x14\x21\x22\x23\x24\x80\x64\x00\x0a" +
		"\x20\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x20\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02" +
		"\x31\x32\x41\x42\x06\x03\x02\x04\x06\x08\x0a\x0c")
	if one := flowsMessage(list[:1]); !bytes.Equal(one, want) {
		t.Errorf("on the wire it is\n%x, want\n%x", one, want)
	}
	for name, bad := range map[string][]byte{
		"nothing": nil, "the head is cut": b[:3], "a flow is cut": b[:len(b)-1], "too many": flowsMessage(fellows(mostFlows + 1)),
		"another format": append([]byte{formatHello}, b[1:]...),
	} {
		if _, _, ok := parseFellows(bad); ok {
			t.Errorf("%s: it is read", name)
		}
	}
}

// A gateway that says again and again that it begins is told of all flows twice a second, and the last time, too.
func TestFlowsAreToldSeldom(t *testing.T) {
	n, now := newFlowNews(), time.Now()
	one, other := vswitch.NewPort("one", vswitch.Link, 1, nil), vswitch.NewPort("other", vswitch.Link, 2, nil)
	told := 0
	for i := range 100 { // of ten milliseconds
		n.begin(one, 20)
		if n.begun(now.Add(time.Duration(i) * 10 * time.Millisecond))[one] {
			told++
		}
	}
	if told != 2 {
		t.Errorf("in a second it is told %d times", told)
	}
	n.begin(other, 20)
	if got := n.begun(now.Add(990 * time.Millisecond)); len(got) != 1 || !got[other] {
		t.Errorf("another one has to wait: %v", got)
	}
	now = now.Add(time.Second)
	if got := n.begun(now); len(got) != 1 || !got[one] {
		t.Errorf("what it has said last is forgotten: %v", got)
	}
	if got := n.begun(now.Add(time.Hour)); len(got) != 0 || len(n.whole) != 0 {
		t.Errorf("%v are told who have said nothing, %d are remembered", got, len(n.whole))
	}
}

func FuzzParseFellows(f *testing.F) {
	f.Add(flowsMessage(fellows(1)))
	f.Add(flowsMessage(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, list, ok := parseFellows(b)
		if !ok {
			return
		}
		again := append([]byte{}, b[:flowsHead]...)
		for i := range list {
			again = appendFellow(again, &list[i])
		}
		_, second, ok := parseFellows(again)
		if !ok || len(again) != len(b) || len(second) != len(list) {
			t.Fatalf("%x is written again as %x", b, again)
		}
		for i := range list {
			if list[i] != second[i] {
				t.Errorf("%+v is read again as %+v", list[i], second[i])
			}
		}
	})
}
