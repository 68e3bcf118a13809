package document

import (
	"fmt"
	"strings"
	"testing"

	"github.com/etherloom/etherloom/control/model"
)

// What no grant lets pass, because the two are kept apart, is neither allowed nor a difference that a grant makes.
func TestPrivateVLAN(t *testing.T) {
	const grants = `
grants:
  - {from: attachment:gw/site, to: attachment:gw/more, segment: lan, allow: ["tcp:80"]}
  - {from: attachment:gw/site, to: node:db1, segment: lan, allow: ["tcp:80"]}
`
	for _, c := range []struct {
		a, b    model.SecondaryVLAN
		between bool
	}{
		{model.SecondaryVLAN{}, model.SecondaryVLAN{Isolated: true}, true},
		{model.SecondaryVLAN{Isolated: true}, model.SecondaryVLAN{Isolated: true}, false},
		{model.SecondaryVLAN{Community: "a"}, model.SecondaryVLAN{Community: "a"}, true},
		{model.SecondaryVLAN{Community: "a"}, model.SecondaryVLAN{Community: "b"}, false},
	} {
		base := bridged()
		site := base.Attachments[20].WithSecondary(c.a)
		more := &model.Attachment{ID: 22, VNI: 1, Ports: []model.AttachmentPort{{Node: 8, Name: "more", NIC: "eth1", VLAN: 12}}, Secondary: c.b}
		m := bridged(site, more)
		after := apply(t, m, parse(t, grants))
		for to, want := range map[string]bool{"attachment:gw/more": c.between, "node:db1": true} {
			w := Test{From: "attachment:gw/site", To: to, What: "tcp:80", Allow: want}
			x, err := w.Resolve(after)
			must(t, err)
			if r := Check(after, []model.Test{x}, start)[0]; r.Outcome != Passed || !want && !strings.Contains(r.Found, "kept apart") {
				t.Errorf("%+v and %+v: %v, %s", c.a, c.b, r.Outcome, r.Found)
			}
		}
		gains := fmt.Sprint(diff(t, m, parse(t, grants)).Access)
		if strings.Contains(gains, "gw/more") != c.between || !strings.Contains(gains, "db1") {
			t.Errorf("%+v and %+v: who gains access is\n%s", c.a, c.b, gains)
		}
	}
}
