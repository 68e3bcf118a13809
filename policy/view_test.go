package policy

import (
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
)

// ask is a passage of a frame that is no IP.
func ask(source Identity, now time.Time) *Passage {
	return &Passage{Source: source, Flows: NewFlows(), Now: now, class: Class{Type: 0x88b5, Dst: ether.Broadcast}, classed: true}
}

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestEgressAndIngress(t *testing.T) {
	v := Compile(Rules{Grants: []Grant{
		{ID: 5, Segment: true, Sources: []Identity{1, 2}},
		{ID: 3, Segment: true, Sources: []Identity{2}, Expires: t0.Add(time.Minute)},
		{ID: 9, Segment: true, Sources: []Identity{3}, Expires: t0.Add(time.Minute)},
	}, Expires: t0.Add(time.Hour)})
	later, void := t0.Add(time.Minute), t0.Add(time.Hour)
	for _, c := range []struct {
		name             string
		source, receiver Identity
		now              time.Time
		grant            GrantID
		egress           Verdict
	}{
		{"member to member", 1, 2, t0, 5, Pass},
		{"the one that lasts longest is used", 2, 1, t0, 5, Pass},
		{"also when the other has expired", 2, 1, later, 5, Pass},
		{"stranger as source", 7, 1, t0, 0, NoGrant},
		{"nobody as source", 0, 1, t0, 0, NoGrant},
		{"stranger as receiver", 1, 7, t0, 0, NotMember},
		{"source whose only grant has expired", 3, 1, later, 0, NoGrant},
		{"receiver whose only grant has expired", 1, 3, later, 0, NotMember},
		{"policy past its age", 1, 2, void, 0, PolicyExpired},
	} {
		grant, verdict := v.Egress(ask(c.source, c.now), c.receiver)
		if grant != c.grant || verdict != c.egress {
			t.Errorf("%s: Egress = %d, %q; want %d, %q", c.name, grant, verdict, c.grant, c.egress)
		}
		if verdict == Pass {
			if got := v.Ingress(ask(c.source, c.now), c.receiver, grant); got != Pass {
				t.Errorf("%s: what Egress passes, Ingress refuses: %q", c.name, got)
			}
		}
	}
	for _, c := range []struct {
		name             string
		source, receiver Identity
		grant            GrantID
		now              time.Time
		want             Verdict
	}{
		{"unknown grant", 1, 2, 77, t0, UnknownGrant},
		{"no grant", 1, 2, 0, t0, UnknownGrant},
		{"another's grant", 1, 3, 3, t0, WrongGrant},
		{"expired grant although a good one exists", 2, 1, 3, later, GrantExpired},
		{"receiver no longer a member", 1, 3, 5, later, NotMember},
		{"policy past its age", 1, 2, 5, void, PolicyExpired},
	} {
		if got := v.Ingress(ask(c.source, c.now), c.receiver, c.grant); got != c.want {
			t.Errorf("%s: Ingress = %q, want %q", c.name, got, c.want)
		}
	}
}

func TestEmptyPolicyPassesNothing(t *testing.T) {
	v := Compile(Rules{})
	if _, verdict := v.Egress(ask(1, t0), 2); verdict != NoGrant {
		t.Errorf("Egress = %q", verdict)
	}
	if verdict := v.Ingress(ask(1, t0), 2, 1); verdict != UnknownGrant {
		t.Errorf("Ingress = %q", verdict)
	}
	if m := v.Members(t0); len(m) != 0 {
		t.Errorf("Members = %v", m)
	}
}

func TestNextExpiry(t *testing.T) {
	v := Compile(Rules{Grants: []Grant{
		{ID: 1, Segment: true, Sources: []Identity{1}, Expires: t0.Add(-time.Second)},
		{ID: 2, Segment: true, Sources: []Identity{1}, Expires: t0.Add(2 * time.Second)},
		{ID: 3, Segment: true, Sources: []Identity{1}},
	}, Expires: t0.Add(time.Hour)})
	if got := v.NextExpiry(t0); got != t0.Add(2*time.Second) {
		t.Errorf("NextExpiry = %v", got)
	}
	if got := v.NextExpiry(t0.Add(3 * time.Second)); got != t0.Add(time.Hour) {
		t.Errorf("NextExpiry = %v", got)
	}
	if got := v.NextExpiry(t0.Add(time.Hour)); !got.IsZero() {
		t.Errorf("NextExpiry of what has ended = %v", got)
	}
	if got := Compile(Rules{}).NextExpiry(t0); !got.IsZero() {
		t.Errorf("NextExpiry of nothing = %v", got)
	}
}

func TestVerdictsHaveTexts(t *testing.T) {
	seen := map[string]bool{}
	for v := range NumVerdicts {
		if v.String() == "" || v.Code() == "" || seen[v.Code()] {
			t.Errorf("verdict %d: %q, %q", v, v.String(), v.Code())
		}
		seen[v.Code()] = true
	}
}

func TestQuestionsDoNotAllocate(t *testing.T) {
	stations := goldenStations()
	packet := Class{Kind: Packet, Type: ether.TypeIPv4, Dst: stations[2].MAC, Tuple: Tuple{Src: addressOf(1), Dst: addressOf(2), SrcPort: 9, DstPort: 5, Protocol: 6}}
	for name, g := range map[string]Grant{
		"everything": {ID: 1, Segment: true, Sources: []Identity{1, 2}},
		"a port":     {ID: 1, Sources: []Identity{1}, Targets: []Identity{2}, Allow: []Term{{Scope: PortRange, Protocol: 6, From: 5, To: 5}}},
	} {
		v, flows := Compile(Rules{Self: 1, Stations: stations, Grants: []Grant{g}}), NewFlows()
		if n := testing.AllocsPerRun(100, func() {
			p := Passage{Source: 1, Flows: flows, Now: t0, class: packet, classed: true}
			if _, verdict := v.Egress(&p, 2); verdict != Pass {
				t.Errorf("%s: Egress = %q", name, verdict)
			}
			if verdict := v.Ingress(&p, 2, 1); verdict != Pass {
				t.Errorf("%s: Ingress = %q", name, verdict)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
