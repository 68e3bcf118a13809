package policy

import (
	"math/rand/v2"
	"testing"
	"time"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func TestEgressAndIngress(t *testing.T) {
	v := Compile(Rules{Grants: []Grant{
		{ID: 5, Sources: []Identity{1, 2}},
		{ID: 3, Sources: []Identity{2}, Expires: t0.Add(time.Minute)},
		{ID: 9, Sources: []Identity{3}, Expires: t0.Add(time.Minute)},
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
		{"the lowest id is used", 2, 1, t0, 3, Pass},
		{"the next when it has expired", 2, 1, later, 5, Pass},
		{"stranger as source", 7, 1, t0, 0, NoGrant},
		{"nobody as source", 0, 1, t0, 0, NoGrant},
		{"stranger as receiver", 1, 7, t0, 0, NotMember},
		{"source whose only grant has expired", 3, 1, later, 0, NoGrant},
		{"receiver whose only grant has expired", 1, 3, later, 0, NotMember},
		{"policy past its age", 1, 2, void, 0, PolicyExpired},
	} {
		grant, verdict := v.Egress(c.source, c.receiver, c.now)
		if grant != c.grant || verdict != c.egress {
			t.Errorf("%s: Egress = %d, %q; want %d, %q", c.name, grant, verdict, c.grant, c.egress)
		}
		if verdict == Pass {
			if got := v.Ingress(c.source, c.receiver, grant, c.now); got != Pass {
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
		{"another's grant", 1, 2, 3, t0, WrongGrant},
		{"expired grant although a good one exists", 2, 1, 3, later, GrantExpired},
		{"receiver no longer a member", 1, 3, 5, later, NotMember},
		{"policy past its age", 1, 2, 5, void, PolicyExpired},
	} {
		if got := v.Ingress(c.source, c.receiver, c.grant, c.now); got != c.want {
			t.Errorf("%s: Ingress = %q, want %q", c.name, got, c.want)
		}
	}
}

func TestEmptyPolicyPassesNothing(t *testing.T) {
	v := Compile(Rules{})
	if _, verdict := v.Egress(1, 2, t0); verdict != NoGrant {
		t.Errorf("Egress = %q", verdict)
	}
	if verdict := v.Ingress(1, 2, 1, t0); verdict != UnknownGrant {
		t.Errorf("Ingress = %q", verdict)
	}
	if m := v.Members(t0); len(m) != 0 {
		t.Errorf("Members = %v", m)
	}
}

func TestNextExpiry(t *testing.T) {
	v := Compile(Rules{Grants: []Grant{
		{ID: 1, Sources: []Identity{1}, Expires: t0.Add(-time.Second)},
		{ID: 2, Sources: []Identity{1}, Expires: t0.Add(2 * time.Second)},
		{ID: 3, Sources: []Identity{1}},
	}, Expires: t0.Add(time.Hour)})
	if got := v.NextExpiry(t0); got != t0.Add(2*time.Second) {
		t.Errorf("NextExpiry = %v", got)
	}
	if got := v.NextExpiry(t0.Add(3 * time.Second)); got != t0.Add(time.Hour) {
		t.Errorf("NextExpiry = %v", got)
	}
	if got := Compile(Rules{}).NextExpiry(t0); !got.IsZero() {
		t.Errorf("NextExpiry of nothing = %v", got)
	}
}

// golden is the policy as its sentences say it, searched from the start for every question.
type golden Rules

func (g golden) holds(who Identity, now time.Time) (best GrantID) {
	for _, grant := range g.Grants {
		for _, s := range grant.Sources {
			if s == who && (grant.Expires.IsZero() || now.Before(grant.Expires)) && (best == 0 || grant.ID < best) {
				best = grant.ID
			}
		}
	}
	return best
}

func (g golden) egress(source, receiver Identity, now time.Time) (GrantID, bool) {
	if !g.Expires.IsZero() && !now.Before(g.Expires) {
		return 0, false
	}
	id := g.holds(source, now)
	return id, id != 0 && g.holds(receiver, now) != 0
}

func (g golden) ingress(source, receiver Identity, id GrantID, now time.Time) bool {
	if !g.Expires.IsZero() && !now.Before(g.Expires) || g.holds(receiver, now) == 0 {
		return false
	}
	for _, grant := range g.Grants {
		if grant.ID != id || !grant.Expires.IsZero() && !now.Before(grant.Expires) {
			continue
		}
		for _, s := range grant.Sources {
			if s == source {
				return true
			}
		}
	}
	return false
}

func TestGolden(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	at := func() time.Time { return t0.Add(time.Duration(r.IntN(10)) * time.Second) }
	for range 2000 {
		var rules Rules
		if r.IntN(4) == 0 {
			rules.Expires = at()
		}
		for id := range GrantID(r.IntN(6)) {
			g := Grant{ID: id + 1}
			if r.IntN(2) == 0 {
				g.Expires = at()
			}
			for range r.IntN(4) {
				g.Sources = append(g.Sources, Identity(1+r.IntN(5)))
			}
			rules.Grants = append(rules.Grants, g)
		}
		r.Shuffle(len(rules.Grants), func(i, j int) {
			rules.Grants[i], rules.Grants[j] = rules.Grants[j], rules.Grants[i]
		})
		v := Compile(rules)
		for range 50 {
			s, d, id, now := Identity(r.IntN(7)), Identity(r.IntN(7)), GrantID(r.IntN(8)), at()
			wantID, pass := golden(rules).egress(s, d, now)
			gotID, verdict := v.Egress(s, d, now)
			if (verdict == Pass) != pass || pass && gotID != wantID {
				t.Fatalf("Egress(%d, %d) = %d, %q; the model says %d, %v\n%+v", s, d, gotID, verdict, wantID, pass, rules)
			}
			if got := v.Ingress(s, d, id, now); (got == Pass) != golden(rules).ingress(s, d, id, now) {
				t.Fatalf("Ingress(%d, %d, %d) = %q; the model disagrees\n%+v", s, d, id, got, rules)
			}
		}
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
	v := Compile(Rules{Grants: []Grant{{ID: 1, Sources: []Identity{1, 2}}}})
	if n := testing.AllocsPerRun(100, func() {
		v.Egress(1, 2, t0)
		v.Ingress(1, 2, 1, t0)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
