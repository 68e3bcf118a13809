package node

import (
	"bytes"
	"testing"

	vswitch "github.com/etherloom/etherloom/switch"
)

// FuzzParseTag: what a peer puts in front of a frame is taken apart without a fault, and is what putTag writes.
func FuzzParseTag(f *testing.F) {
	f.Add([]byte{})
	f.Add(append([]byte{0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3}, "frame"...))
	f.Add(append([]byte{1, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3}, "partial"...))
	f.Add(append([]byte{2, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3}, "another format"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		format, vni, tag, frame, ok := parseTag(b)
		if want := len(b) >= tagSize && b[0] <= formatPartial; ok != want {
			t.Fatalf("taken: %t, want %t", ok, want)
		}
		if !ok {
			if vni != 0 || tag != (vswitch.Tag{}) || frame != nil {
				t.Fatalf("refused, and yet %v %v %x", vni, tag, frame)
			}
			return
		}
		if vni >= 1<<24 {
			t.Fatalf("segment %d has more than 24 bits", vni)
		}
		out := make([]byte, tagSize)
		putTag(out, format, vni, tag)
		if out = append(out, frame...); !bytes.Equal(out, b) {
			t.Fatalf("read %x, write %x", b, out)
		}
	})
}
