package e2e

import (
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/internal/world"
	"github.com/etherloom/etherloom/node"
)

func (r *rig) mirrors(n *world.Node) []node.MirrorLine {
	r.Helper()
	var list struct {
		Mirrors []node.MirrorLine `json:"mirrors"`
	}
	r.ok(n.Ask(r.ctx, &list, "mirror", "list"))
	return list.Mirrors
}

// A mirror shows the frames of a VLAN as they are on it, tags and all, on a TAP and to a probe at a NIC; nothing enters a segment by either,
// and what is mirrored goes on as before. It is there again after a restart, and gone when it is removed.
func TestMirror(t *testing.T) {
	c := newCases(t)
	camera := c.machine(c.officeLAN, "camera", 10, "192.168.10.2/24")
	door := c.machine(c.plantLAN, "door", 30, "192.168.10.1/24")
	ids := c.bare(c.office, "probe")
	c.awaitAttached(c.office, c.plant)
	c.pings(camera, "192.168.10.1", 15*time.Second)
	run := func(args ...string) {
		t.Helper()
		if out, err := c.office.Loom(c.ctx, append([]string{"mirror"}, args...)...); err != nil {
			t.Fatalf("mirror %v: %v: %s", args, err, out)
		}
	}
	run("add", "--from", "lan", "--to", "span0")
	run("add", "--from", "lan", "--direction", "in", "--to", "probe")
	span, err := c.office.Host.Capture("span0")
	c.ok(err)
	atSpan, atIDS := place{"span0", span}, c.listen(ids, "eth0")
	atCamera, atDoor := c.listen(camera, "eth0"), c.listen(door, "eth0")

	cameraMAC, doorMAC := c.macOf(camera, "eth0"), c.macOf(door, "eth0")
	out := ethernet(broadcast(), doorMAC, lab.Experimental)
	c.comes("what enters by the port", camera, "eth0", ethernet(broadcast(), cameraMAC, lab.Experimental), []place{atSpan, atIDS, atDoor}, nil)
	c.comes("what leaves by the port", door, "eth0", out, []place{atSpan, atCamera}, []place{atIDS})
	tagged := func(p place, src net.HardwareAddr) (n int) {
		c.ok(p.Each(func(f []byte) bool {
			want := lab.Ethernet(broadcast(), src, lab.Experimental, lab.Tag{VLAN: 10})
			if bytes.HasPrefix(f, want) {
				n++
			}
			return true
		}))
		return n
	}
	if tagged(atSpan, cameraMAC) != 1 || tagged(atSpan, doorMAC) != 1 || tagged(atIDS, cameraMAC) != 1 {
		t.Errorf("with their tags come %d, %d to span0 and %d to the probe", tagged(atSpan, cameraMAC), tagged(atSpan, doorMAC), tagged(atIDS, cameraMAC))
	}
	nowhere := []place{atCamera, atDoor}
	c.comes("what the probe sends", ids, "eth0", ethernet(broadcast(), unheard(1), lab.Experimental), nil, nowhere)
	c.comes("what is sent out of span0", c.office.Host, "span0", ethernet(broadcast(), unheard(2), lab.Experimental), nil, nowhere)

	before := c.mirrors(c.office)
	took, err := lab.CopyFile(c.ctx, camera, door, "192.168.10.1", 10<<20)
	c.ok(err)
	after := c.mirrors(c.office)
	t.Logf("10 MiB in %v; mirrors are %+v", took, after)
	if len(after) != 2 || after[0].Copied <= before[0].Copied+100 || after[1].Copied <= before[1].Copied {
		t.Errorf("mirrors are %+v, before %+v", after, before)
	}

	c.ok(span.Stop())
	c.ok(c.office.Stop())
	c.ok(c.office.Restart(c.ctx))
	c.awaitAttached(c.office, c.plant)
	c.await("the mirrors are there again", 10*time.Second, func() bool {
		m := c.mirrors(c.office)
		return len(m) == 2 && m[0].State == "copies" && m[1].State == "copies"
	})
	if span, err = c.office.Host.Capture("span0"); err != nil {
		t.Fatal(err)
	}
	c.pings(camera, "192.168.10.1", 15*time.Second)
	c.comes("after a restart", camera, "eth0", ethernet(broadcast(), cameraMAC, lab.Experimental), []place{{"span0", span}, atDoor}, nil)

	c.sh(c.office.Host, "ip addr add 192.0.2.77/32 dev probe")
	c.awaitProblem(c.office, "mirror probe", "has the address 192.0.2.77/32")
	c.comes("once the host needs the NIC", camera, "eth0", ethernet(broadcast(), cameraMAC, lab.Experimental), []place{atDoor}, []place{atIDS})
	run("remove", "--from", "lan")
	if m := c.mirrors(c.office); len(m) != 0 {
		t.Errorf("mirrors are %+v", m)
	}
	if links := c.sh(c.office.Host, "ip -br link"); strings.Contains(links, "span0") {
		t.Errorf("span0 is still there:\n%s", links)
	}
}

// A port's rate holds what enters by it, and what leaves, within 5 %, as UDP's receiver sees it; what is too much is counted. The burst
// bears a fifth of a second in which the machine's processors are busy elsewhere; what is not offered for longer cannot come, and is
// measured again.
func TestPortRate(t *testing.T) {
	const limit, offered, size = 4e6, 12e6, 1200
	c := newCases(t)
	camera := c.machine(c.officeLAN, "camera", 10, "192.168.10.2/24")
	door := c.machine(c.plantLAN, "door", 30, "192.168.10.1/24")
	c.awaitAttached(c.office, c.plant)
	c.pings(camera, "192.168.10.1", 15*time.Second)
	measure := func(from, to *lab.Host, addr string) float64 {
		in, err := to.ListenPacket(c.ctx, "udp", net.JoinHostPort(addr, "7000"))
		c.ok(err)
		defer in.Close()
		out, err := from.Dial(c.ctx, "udp", net.JoinHostPort(addr, "7000"))
		c.ok(err)
		defer out.Close()
		lasts := time.Duration(rounds(8, 20)) * time.Second
		done := make(chan struct{})
		go func() {
			defer close(done)
			sent := 0.0
			for start := time.Now(); time.Since(start) < lasts+2*time.Second; time.Sleep(2 * time.Millisecond) {
				for due := offered / 8 * time.Since(start).Seconds(); sent < due; sent += size {
					_, _ = out.Write(make([]byte, size))
				}
			}
		}()
		octets, buf := 0, make([]byte, 2000)
		var first, last time.Time
		for {
			_ = in.SetReadDeadline(time.Now().Add(2 * time.Second))
			n, _, err := in.ReadFrom(buf)
			if err != nil {
				break
			}
			last = time.Now()
			if first.IsZero() {
				first = last.Add(time.Second) // what the bucket held at first is not the rate
			}
			if last.After(first) && last.Before(first.Add(lasts)) {
				octets += n + 42
			}
		}
		<-done
		return float64(8*octets) / min(lasts, last.Sub(first)).Seconds()
	}
	if free := measure(camera, door, "192.168.10.1"); free < 1.5*limit {
		t.Fatalf("without a limit %.2f Mbit/s come, so that this measures nothing", free/1e6)
	}
	for _, set := range []struct {
		key      string
		from, to *lab.Host
		addr     string
	}{{"rate_in", camera, door, "192.168.10.1"}, {"rate_out", door, camera, "192.168.10.2"}} {
		before := c.portOf(c.office, "lan").Port.Stats
		c.setPort(c.office, "set", "lan", set.key+"=4mbit", strings.Replace(set.key, "rate", "burst", 1)+"=100k")
		got := measure(set.from, set.to, set.addr)
		for again := 0; again < 2 && got < 0.95*limit; again++ {
			got = measure(set.from, set.to, set.addr)
		}
		stats := c.portOf(c.office, "lan").Port.Stats
		over := stats.RxRate - before.RxRate + stats.TxRate - before.TxRate
		t.Logf("%s: %.3f Mbit/s of %.0f, %d frames over the rate", set.key, got/1e6, limit/1e6, over)
		if got > 1.05*limit || got < 0.95*limit {
			t.Errorf("%s: %.3f Mbit/s come, want %.0f within 5 %%", set.key, got/1e6, limit/1e6)
		}
		if over == 0 || c.dropCount(c.office, "rate") < over {
			t.Errorf("%s: %d frames over the rate, %d dropped for it", set.key, over, c.dropCount(c.office, "rate"))
		}
		c.setPort(c.office, "set", "lan", set.key+"=0")
	}
}

// dropCount is how many frames a node has dropped for a reason.
func (r *rig) dropCount(n *world.Node, reason string) (count uint64) {
	r.Helper()
	var list struct {
		Drops []node.Drop `json:"drops"`
	}
	r.ok(n.Ask(r.ctx, &list, "drops"))
	for _, d := range list.Drops {
		if d.Reason == reason {
			count += d.Count
		}
	}
	return count
}
