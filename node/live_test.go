package node

import (
	"strings"
	"testing"

	"github.com/etherloom/etherloom/policy"
)

// The next packet of a flow is judged by what is remembered of it: an answer passes while it is, and stops when the grant goes.
func TestExplainFlow(t *testing.T) {
	r := newRecorded(t)
	terms80, err := policy.ParseTerms([]string{"tcp:80"})
	must(t, err)
	there, back := "tcp 192.0.2.7:4242 192.0.2.8:22", "tcp 192.0.2.8:22 192.0.2.7:4242"
	for _, c := range []struct {
		name, flow, check, note string
		grant                   uint32
		prepare                 func()
	}{
		{"an answer to nothing", back, "unknown-grant", "remembers no such flow", 0, func() {}},
		{"what may begin", there, "pass", "remembers no such flow", 3, func() {}},
		{"what may not begin", "tcp 192.0.2.7:4242 192.0.2.8:23", "not-allowed", "remembers no such flow", 0, func() {}},
		{"a flow goes on", there, "pass", "stands by grant 3", 3, func() { r.send(t, 22) }},
		{"its answer", back, "pass", "stands by grant 3", 3, func() {}},
		{"another port", "tcp 192.0.2.8:22 192.0.2.7:4243", "unknown-grant", "remembers no such flow", 0, func() {}},
		{"its grant is gone", back, "unknown-grant", "stands by grant 3", 0, func() {
			r.d.mu.Lock()
			defer r.d.mu.Unlock()
			delete(r.d.contents.Reaches, 3)
			r.d.applied++
			grants := policy.Compile(policy.Rules{Generation: r.d.applied, Self: selfID, Stations: map[policy.Identity]*policy.Station{
				selfID: r.s.sw.Policy().Station(selfID), 8: r.s.sw.Policy().Station(8),
			}, Grants: []policy.Grant{{ID: 4, Sources: []policy.Identity{selfID}, Targets: []policy.Identity{8}, Allow: terms80}}})
			r.s.sw.SetPolicy(grants, r.now)
		}},
	} {
		c.prepare()
		e, err := r.d.Explain(ExplainRequest{Flow: c.flow})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if e.Check != c.check || e.Passes != (c.check == "pass") || e.Passes && e.Grant != c.grant || !strings.Contains(strings.Join(e.Notes, "\n"), c.note) {
			t.Errorf("%s: %+v", c.name, e)
		}
	}
	for _, c := range []struct{ ask ExplainRequest }{
		{ExplainRequest{Flow: "tcp"}},
		{ExplainRequest{Flow: "sctp 192.0.2.7:1 192.0.2.8:1"}},
		{ExplainRequest{Flow: "tcp 192.0.2.7 192.0.2.8:1"}},
		{ExplainRequest{Flow: "tcp 192.0.2.7:1 [2001:db8::1]:1"}},
		{ExplainRequest{Flow: "tcp 192.0.2.7:1 192.0.2.8:0"}},
	} {
		_, err := r.d.Explain(c.ask)
		wantError(t, err, "expected a flow such as")
	}
	_, err = r.d.Explain(ExplainRequest{Flow: there, To: "b"})
	wantError(t, err, "leave the others out")
	_, err = r.d.Explain(ExplainRequest{Flow: "tcp 192.0.2.8:22 192.0.2.9:4242"})
	wantError(t, err, "at neither end")
}

// FuzzFlow: whatever is asked, it is a flow or refused.
func FuzzFlow(f *testing.F) {
	for _, text := range []string{"tcp 192.0.2.7:4242 192.0.2.8:22", "icmp [2001:db8::1]:0 [2001:db8::2]:0", "udp a b", ""} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := ExplainRequest{Flow: text}
		flow, err := r.flow()
		if (flow == nil) != (err != nil || text == "") {
			t.Errorf("%q: %+v, %v", text, flow, err)
		}
		if flow != nil && r.check() != nil {
			t.Errorf("%q is a flow that cannot be asked about: %v", text, r.check())
		}
	})
}
