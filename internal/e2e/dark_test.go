package e2e

import (
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
)

// night is a network with grants to nodes alone: alpha may begin TCP to port 8080 and pings towards bravo, and charlie TCP to
// port 9090.
type night struct {
	*rig
	alpha, bravo, charlie *world.Node
	a, b, c               party
	granted               string // alpha's grant
	atAlpha, atBravo      *lab.Capture
	atCharlie             *lab.Capture
	served                *atomic.Int64 // bytes that bravo has received on port 8080
}

func newNight(t *testing.T) *night {
	n := &night{rig: newRig(t)}
	n.alpha = n.site("alpha", lab.PortPreserving)
	n.bravo = n.site("bravo", lab.PortPreserving)
	n.charlie = n.site("charlie", lab.PortPreserving)
	var err error
	n.granted, err = n.Grant(n.ctx, "node:alpha", "node:bravo", "--segment", "lan", "--allow", "tcp:8080", "--allow", "icmp")
	n.ok(err)
	_, err = n.Grant(n.ctx, "node:charlie", "node:bravo", "--segment", "lan", "--allow", "tcp:9090")
	n.ok(err)
	n.addresses(n.alpha, n.bravo, n.charlie)
	n.a, n.b, n.c = n.party(n.alpha), n.party(n.bravo), n.party(n.charlie)
	for at, capture := range map[*world.Node]**lab.Capture{n.alpha: &n.atAlpha, n.bravo: &n.atBravo, n.charlie: &n.atCharlie} {
		*capture, err = at.Host.Capture("loom0")
		n.ok(err)
	}
	return n
}

// echo serves an address of a host: it sends back what it is sent, and counts the bytes.
func (r *rig) echo(h *lab.Host, address string) *atomic.Int64 {
	r.Helper()
	ln, err := h.Listen(r.ctx, "tcp", address)
	r.ok(err)
	r.Cleanup(func() { _ = ln.Close() })
	got := new(atomic.Int64)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(io.MultiWriter(counter{got}, conn), conn)
			}()
		}
	}()
	return got
}

// counter counts what is written.
type counter struct{ n *atomic.Int64 }

func (c counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

// Between nodes that have grants to nodes alone, what is granted works from a cold start, by name, and nothing else of the
// segment is there: not for the tools that look for it, not for what hosts say to everybody.
func TestDark(t *testing.T) {
	n := newNight(t)
	n.served = n.echo(n.bravo.Host, "[::]:8080")
	n.echo(n.bravo.Host, "[::]:9090")
	n.echo(n.alpha.Host, "[::]:8080")
	n.sh(n.alpha.Host, "ping -c 3 -i 0.2 -w 10 bravo.etherloom.internal")
	n.sh(n.alpha.Host, "ping -6 -c 3 -i 0.2 -w 10 bravo.etherloom.internal")
	for _, version := range []string{"TCP4", "TCP6"} {
		if out := n.sh(n.alpha.Host, "echo hello | socat -t 3 STDIO "+version+":bravo.etherloom.internal:8080,connect-timeout=5"); out != "hello\n" {
			t.Errorf("%s: %q", version, out)
		}
		if out := n.sh(n.charlie.Host, "echo hello | socat -t 3 STDIO "+version+":bravo.etherloom.internal:9090,connect-timeout=5"); out != "hello\n" {
			t.Errorf("%s, charlie: %q", version, out)
		}
	}
	t.Run("names", func(t *testing.T) { n.on(t).names() })
	t.Run("addresses", func(t *testing.T) { n.on(t).lookups() })
	t.Run("connections", func(t *testing.T) { n.on(t).connections() })
	t.Run("scans", func(t *testing.T) { n.on(t).scans() })
	t.Run("noise", func(t *testing.T) { n.on(t).noise() })
	t.Run("ports", func(t *testing.T) { n.on(t).ports() })
	t.Run("reports", func(t *testing.T) { n.on(t).reports() })
	t.Run("frames", func(t *testing.T) { n.on(t).frames() })
	t.Run("revoked", func(t *testing.T) { n.on(t).revoked() })
	t.Run("control", func(t *testing.T) { n.on(t).control() })
}

// on is the same network for a part of the test.
func (n night) on(t *testing.T) *night {
	again := *n.rig
	again.T = t
	n.rig = &again
	return &n
}

// names: who reaches knows the name, and nobody else does.
func (n *night) names() {
	for _, c := range []struct {
		on     *world.Node
		name   string
		status string
	}{
		{n.alpha, "bravo", "NOERROR"},
		{n.alpha, "charlie", "NXDOMAIN"},
		{n.alpha, "nobody", "NXDOMAIN"},
		{n.bravo, "alpha", "NXDOMAIN"},
		{n.bravo, "charlie", "NXDOMAIN"},
		{n.charlie, "alpha", "NXDOMAIN"},
		{n.charlie, "bravo", "NOERROR"},
	} {
		for _, typ := range []string{"A", "AAAA"} {
			out := n.sh(c.on.Host, "dig +tries=1 +time=3 "+c.name+".etherloom.internal "+typ)
			if !strings.Contains(out, "status: "+c.status) || strings.Contains(out, "ANSWER: 0") != (c.status == "NXDOMAIN") {
				n.Errorf("%s asks for %s of %s, want %s:\n%s", c.on.Name, typ, c.name, c.status, out)
			}
		}
	}
	for _, address := range []string{n.c.v4.String(), n.c.v6.String()} {
		if out := n.sh(n.alpha.Host, "dig +tries=1 +time=3 -x "+address); !strings.Contains(out, "status: NXDOMAIN") {
			n.Errorf("alpha asks whose %s is:\n%s", address, out)
		}
	}
	n.fails(n.alpha.Host, nil, "getent", "hosts", "charlie.etherloom.internal")
}

// lookups: ARP is answered about bravo, with bravo's true address, and about nobody else.
func (n *night) lookups() {
	out := n.sh(n.alpha.Host, "arping -c 2 -w 4 -I loom0 "+n.b.v4.String())
	if !strings.Contains(strings.ToLower(out), n.b.mac.String()) {
		n.Errorf("arping of bravo: %s", out)
	}
	n.sh(n.bravo.Host, "arping -c 1 -w 4 -I loom0 "+n.a.v4.String()) // it must know whom to answer
	free := n.a.v4
	for taken := true; taken; taken = free == n.a.v4 || free == n.b.v4 || free == n.c.v4 {
		free = free.Next()
	}
	for _, address := range []string{n.c.v4.String(), free.String()} {
		out, err := n.alpha.Host.Run(n.ctx, "arping", "-c", "3", "-w", "3", "-I", "loom0", address)
		if err == nil || !strings.Contains(out, "Received 0 response") {
			n.Errorf("arping of %s: %v\n%s", address, err, out)
		}
	}
	// A host that looks whether an address is free: its own is, and one in use is not.
	n.sh(n.alpha.Host, "arping -D -c 2 -w 3 -I loom0 "+n.a.v4.String())
	n.fails(n.alpha.Host, nil, "arping", "-D", "-c", "2", "-w", "3", "-I", "loom0", n.b.v4.String())
	n.sh(n.alpha.Host, "ping -6 -c 2 -i 0.2 -w 5 "+n.b.own.String()+"%loom0")
	if e := n.explain(n.alpha, "--arp", "--to", "bravo"); e.Check != "answered" || e.On != "alpha" {
		n.Errorf("explain: %+v", e)
	}
}

// connections: only what is granted begins, and only in its direction.
func (n *night) connections() {
	for _, c := range []struct {
		from *world.Node
		to   string
	}{
		{n.alpha, net.JoinHostPort(n.b.v4.String(), "9090")},
		{n.alpha, net.JoinHostPort(n.b.v6.String(), "9090")},
		{n.alpha, net.JoinHostPort(n.b.v4.String(), "53")},
		{n.charlie, net.JoinHostPort(n.b.v4.String(), "8080")},
		{n.bravo, net.JoinHostPort(n.a.v4.String(), "8080")},
		{n.bravo, net.JoinHostPort(n.a.v6.String(), "8080")},
		{n.alpha, net.JoinHostPort(n.c.v4.String(), "9090")},
	} {
		out, err := c.from.Host.Run(n.ctx, "socat", "-u", "OPEN:/dev/null", "TCP:"+c.to+",connect-timeout=1")
		if err == nil || strings.Contains(out, "refused") {
			n.Errorf("%s to %s: %v %s", c.from.Name, c.to, err, out)
		}
	}
	for from, to := range map[*world.Node][]party{n.alpha: {n.c}, n.bravo: {n.a, n.c}, n.charlie: {n.a, n.b}} {
		script := ""
		for _, p := range to {
			for _, address := range []string{p.v4.String(), p.v6.String(), p.own.String() + "%loom0"} {
				script += "ping -c 2 -i 0.2 -W 1 " + address + " & "
			}
		}
		out := n.sh(from.Host, script+"wait")
		if strings.Contains(out, "bytes from") || strings.Count(out, "100% packet loss") != 3*len(to) {
			n.Errorf("%s: %s\n%s", from.Name, script, out)
		}
	}
}

// finds lists the addresses but its own that nmap says are up.
func (n *night) finds(from *world.Node, prefix string) []string {
	out := n.sh(from.Host, "nmap -sn -PR -n -T4 --max-retries 1 -e loom0 -oG - "+prefix)
	var up []string
	for _, m := range regexp.MustCompile(`Host: (\S+) \(\)\tStatus: Up`).FindAllStringSubmatch(out, -1) {
		up = append(up, m[1])
	}
	slices.Sort(up)
	return up
}

// discoveries are nmap's ways to make everybody on an IPv6 link say something.
const discoveries = "nmap -6 -e loom0 --script targets-ipv6-multicast-echo,targets-ipv6-multicast-invalid-dst,targets-ipv6-multicast-mld," +
	"targets-ipv6-multicast-slaac,ipv6-multicast-mld-list --script-args interface=loom0,ipv6-multicast-mld-list.timeout=3s"

// scans: who looks for everybody finds whom it has a grant to, and who looks for those around finds nobody.
func (n *night) scans() {
	prefix := n.a.v4.String() + "/24"
	for _, c := range []struct {
		from *world.Node
		want []string
	}{
		{n.alpha, []string{n.b.v4.String()}},
		{n.charlie, []string{n.b.v4.String()}},
		{n.bravo, []string{n.a.v4.String(), n.c.v4.String()}}, // whom it answers
	} {
		slices.Sort(c.want)
		if up := n.finds(c.from, prefix); !slices.Equal(up, c.want) {
			n.Errorf("nmap on %s finds %v, want %v", c.from.Name, up, c.want)
		}
	}
	out := n.sh(n.alpha.Host, discoveries)
	for _, p := range []party{n.b, n.c} {
		if strings.Contains(out, p.own.String()) || strings.Contains(out, p.v6.String()) {
			n.Errorf("nmap's multicast scripts find %s:\n%s", p.own, out)
		}
	}
}

// noise makes all of them say what hosts say to everybody; frames looks whether anybody has heard it.
func (n *night) noise() {
	for _, at := range []*world.Node{n.alpha, n.bravo, n.charlie} {
		n.says(at)
	}
}

// ports: of all that alpha tries at bravo, only what is granted answers.
func (n *night) ports() {
	b := n.b.v4.String()
	out := n.sh(n.alpha.Host, "nmap -sS -Pn -n -T4 --min-rate 1500 --max-retries 1 -e loom0 -oG - -p 1-2000,8080,9090 "+b)
	if !strings.Contains(out, "Ports: 8080/open/tcp//http-proxy///\t") || !strings.Contains(out, "Ignored State: filtered (2001)") {
		n.Errorf("TCP scan:\n%s", out)
	}
	out = n.sh(n.alpha.Host, "nmap -sU -Pn -n -T4 --min-rate 500 --max-retries 1 -e loom0 -oG - -p 53,67,68,123,137,161,500,1900,5353,8080 "+b)
	if strings.Contains(out, "/open/") || strings.Contains(out, "/closed/") {
		n.Errorf("UDP scan:\n%s", out)
	}
}

// reports: what a node's own commands print names nobody of whom the policy does not let it know.
func (n *night) reports() {
	for _, c := range []struct {
		on  *world.Node
		who string
		p   party
	}{{n.alpha, "charlie", n.c}, {n.charlie, "alpha", n.a}} {
		for _, command := range []string{"status", "peers", "names", "fdb", "ports", "drops", "paths"} {
			out, err := c.on.Loom(n.ctx, command, "--json")
			n.ok(err)
			for _, text := range []string{c.who, c.p.mac.String(), c.p.v4.String() + `"`, c.p.v4.String() + `/`, c.p.v6.String(), c.p.own.String()} {
				if strings.Contains(out, text) {
					n.Errorf("`etherloom %s` on %s names %s: %s", command, c.on.Name, text, out)
				}
			}
		}
	}
	if out, err := n.bravo.Loom(n.ctx, "names", "--json"); err != nil || strings.Contains(out, "alpha") || strings.Contains(out, "charlie") {
		n.Errorf("names on bravo: %s, %v", out, err)
	}
	if n.local(n.alpha).Stats.Answered == 0 {
		n.Error("alpha's ports count no answers")
	}
}

// revoked: a connection that lives ends with its grant, at both ends, and the other grant lives on.
func (n *night) revoked() {
	conn, err := n.alpha.Host.Dial(n.ctx, "tcp", net.JoinHostPort(n.b.v4.String(), "8080"))
	n.ok(err)
	n.Cleanup(func() { _ = conn.Close() })
	returned := new(atomic.Int64)
	go func() { _, _ = io.Copy(counter{returned}, conn) }()
	go func() {
		for n.ctx.Err() == nil {
			if _, err := conn.Write(make([]byte, 100)); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	n.await("the connection lives", 5*time.Second, func() bool { return returned.Load() > 5000 })
	_, err = n.Admin(n.ctx, "grant", "remove", n.granted)
	n.ok(err)
	removed := time.Now()
	time.Sleep(time.Second)
	there, back := n.served.Load(), returned.Load()
	time.Sleep(2 * time.Second)
	if n.served.Load() != there || returned.Load() != back {
		n.Errorf("%v after the grant was removed bravo has received %d bytes more, and alpha %d", time.Since(removed), n.served.Load()-there, returned.Load()-back)
	}
	n.await("alpha has no TAP", 2*time.Second, func() bool { return !strings.Contains(n.sh(n.alpha.Host, "ip -br link"), "loom") })
	n.silent(n.alpha.Host, n.b.v4.String())
	n.fails(n.alpha.Host, nil, "getent", "hosts", "bravo.etherloom.internal")
	if p := n.peer(n.bravo, "alpha"); p.ID != 0 {
		n.Errorf("bravo still knows alpha: %+v", p)
	}
	if out := n.sh(n.charlie.Host, "echo hello | socat -t 3 STDIO TCP:bravo.etherloom.internal:9090,connect-timeout=5"); out != "hello\n" {
		n.Errorf("charlie: %q", out)
	}
	n.fails(n.bravo.Host, nil, "arping", "-c", "2", "-w", "2", "-I", "loom0", n.a.v4.String())
}

// control: the same tools find everybody where everybody is a member.
func (n *night) control() {
	for _, name := range []string{"alpha", "bravo", "charlie"} {
		_, err := n.Grant(n.ctx, "node:"+name, "segment:lan")
		n.ok(err)
	}
	n.addresses(n.alpha, n.bravo, n.charlie)
	n.a = n.party(n.alpha)
	n.pings(n.alpha.Host, n.b.v4.String(), 10*time.Second)
	n.pings(n.alpha.Host, n.c.v4.String(), 10*time.Second)
	if up := n.finds(n.alpha, n.a.v4.String()+"/24"); len(up) != 2 {
		n.Errorf("nmap finds %v", up)
	}
	out := n.sh(n.alpha.Host, discoveries)
	for _, p := range []party{n.b, n.c} {
		if !strings.Contains(out, p.own.String()) && !strings.Contains(out, p.v6.String()) { // by one address or the other
			n.Errorf("nmap's multicast scripts do not find %s:\n%s", p.v4, out)
		}
	}
}
