package policy

import (
	"fmt"
	"testing"
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/internal/cputime"
)

// shapes are ways in which a policy can be large. Each makes so many grants, by one of which 1 may send to 2 on TCP port 5.
func shapes() map[string]func(n int) []Grant {
	port := func(i int) []Term {
		return []Term{{Scope: PortRange, Protocol: ether.ProtoTCP, From: uint16(1 + i), To: uint16(1 + i)}}
	}
	each := func(n int, one func(i int) Grant) []Grant {
		out := make([]Grant, n)
		for i := range out {
			out[i] = one(i)
			out[i].ID = GrantID(i + 1)
		}
		return out
	}
	return map[string]func(n int) []Grant{
		"node": func(n int) []Grant {
			return each(n, func(i int) Grant { return Grant{Sources: []Identity{1}, Targets: []Identity{2}, Allow: port(i)} })
		},
		"segment": func(n int) []Grant {
			return each(n, func(i int) Grant {
				return Grant{Segment: true, Sources: []Identity{1, 2}, Allow: port(i), Both: i%2 == 0}
			})
		},
		"others": func(n int) []Grant {
			return each(n, func(i int) Grant {
				if i == 4 {
					return Grant{Sources: []Identity{1}, Targets: []Identity{2}, Allow: port(i)}
				}
				return Grant{Sources: []Identity{Identity(i % 1000)}, Targets: []Identity{Identity(i % 777)}, Allow: port(i % 100)}
			})
		},
	}
}

// questions are the two that are asked of each frame, of a flow that lives and of one that begins.
func questions(tb testing.TB, v *View, stations map[Identity]*Station) map[string]func(i int) {
	flows := NewFlows()
	ask := func(i int, dry, in bool) {
		c := Class{Kind: Packet, Type: ether.TypeIPv4, Dst: stations[2].MAC, Tuple: Tuple{Src: addressOf(1), Dst: addressOf(2), SrcPort: 9, DstPort: 5, Protocol: 6}}
		if dry {
			c.Tuple.SrcPort = uint16(i)
		}
		p := Passage{Source: 1, Flows: flows, Now: t0, Dry: dry, class: c, classed: true}
		var verdict Verdict
		if in {
			verdict = v.Ingress(&p, 2, 5)
		} else {
			_, verdict = v.Egress(&p, 2)
		}
		if verdict != Pass {
			tb.Fatal(verdict)
		}
	}
	return map[string]func(i int){
		"egress, flow": func(i int) { ask(i, false, false) }, "egress, begin": func(i int) { ask(i, true, false) },
		"ingress, flow": func(i int) { ask(i, false, true) }, "ingress, begin": func(i int) { ask(i, true, true) },
	}
}

// BenchmarkQuestions shows that a frame costs no more under ten thousand grants than under ten.
func BenchmarkQuestions(b *testing.B) {
	for name, grants := range shapes() {
		for _, n := range []int{10, 10_000} {
			stations := goldenStations()
			for question, ask := range questions(b, Compile(Rules{Self: 1, Stations: stations, Grants: grants(n)}), stations) {
				b.Run(fmt.Sprintf("%s/%s/%d", name, question, n), func(b *testing.B) {
					b.ReportAllocs()
					for i := range b.N {
						ask(i)
					}
				})
			}
		}
	}
}

// BenchmarkCompile shows that a policy of ten thousand grants is in force in a tenth of a second.
func BenchmarkCompile(b *testing.B) {
	for name, grants := range shapes() {
		rules := Rules{Self: 1, Stations: goldenStations(), Grants: grants(10_000)}
		b.Run(name, func(b *testing.B) {
			for range b.N {
				Compile(rules)
			}
		})
	}
	b.Run("many to many", func(b *testing.B) {
		rules := manyToMany()
		for range b.N {
			Compile(rules)
		}
	})
}

// manyToMany is a hundred grants from a thousand to a thousand, 1 among them at both ends of each.
func manyToMany() Rules {
	var all []Identity
	for id := range Identity(1000) {
		all = append(all, id+1)
	}
	r := Rules{Self: 1}
	for i := range GrantID(100) {
		r.Grants = append(r.Grants, Grant{ID: i + 1, Sources: all, Targets: all, Both: i%2 == 0})
	}
	return r
}

// best is the shortest of some times that something takes.
func best(rounds int, do func()) time.Duration {
	shortest := time.Hour
	for range rounds {
		shortest = min(shortest, cputime.Took(do))
	}
	return shortest
}

// The cost of a frame does not grow with the policy. Ten thousand grants are a thousand times ten: look-ups in larger tables
// miss the cache more often, but what walks along the grants takes hundreds of times as long.
func TestFrameCostDoesNotGrow(t *testing.T) {
	const times = 20
	for name, grants := range shapes() {
		took := map[string][]time.Duration{}
		for _, n := range []int{10, 10_000} {
			stations := goldenStations()
			for question, ask := range questions(t, Compile(Rules{Self: 1, Stations: stations, Grants: grants(n)}), stations) {
				took[question] = append(took[question], best(15, func() {
					for i := range 1000 {
						ask(i)
					}
				}))
			}
		}
		for question, d := range took {
			if d[1] > times*d[0] {
				t.Errorf("%s, %s: 1000 frames take %v under 10 grants, %v under 10 000", name, question, d[0], d[1])
			}
		}
	}
}

// Ten thousand grants are to compile in a tenth of a second, also on a machine that does other things, and a hundred million
// pairs with them, of which only those with this node count.
func TestCompileIsFast(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const most = 500 * time.Millisecond // what is quadratic takes seconds
	policies := map[string]Rules{"many to many": manyToMany()}
	for name, grants := range shapes() {
		policies[name] = Rules{Self: 1, Stations: goldenStations(), Grants: grants(10_000)}
	}
	for name, rules := range policies {
		if took := best(3, func() { Compile(rules) }); took > most {
			t.Errorf("%s: takes %v", name, took)
		}
	}
}
