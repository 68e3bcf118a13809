package e2e

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etherloom/etherloom/internal/lab"
	"github.com/etherloom/etherloom/node"
)

// A member whose daemon judges nothing floods: with broadcasts, ARP, joins, and MACs without number (macof). The receiver holds
// each to its limit, forgets nobody, and still talks to others.
func TestReceiverLimitsFloods(t *testing.T) {
	r := newRefusal(t, "mallory", "victim", "bob")
	r.reaches()
	own := r.m.v4.AsSlice()
	arp := append(ethernet(broadcast(), r.m.mac, unix.ETH_P_ARP), 0, 1, 8, 0, 6, 4, 0, 1)
	arp = append(append(append(append(arp, r.m.mac...), own...), 0, 0, 0, 0, 0, 0), r.v.v4.AsSlice()...)
	report := ipv4(own, []byte{239, 1, 2, 3}, 2, 0, []byte{0x16, 0, 0xfa, 0xfc, 239, 1, 2, 3})
	for _, c := range []struct {
		name, reason string
		frame        []byte
		rate         int // the default of the receiver's limit
	}{
		{"broadcasts", "broadcast-rate", append(ethernet(broadcast(), r.m.mac, 0x88b5), "flood-me-broadcast"...), 1000},
		{"ARP", "control-rate", append(arp, "flood-me-arp"...), 2500},
		{"joins", "join-rate", append(append(ethernet([]byte{1, 0, 0x5e, 1, 2, 3}, r.m.mac, unix.ETH_P_IP), report...), "flood-me-joins"...), 200},
	} {
		tap, err := r.victim.Host.Capture("loom0")
		r.ok(err)
		was := r.dropped(r.victim)
		start := time.Now()
		sent := r.flood(c.frame, 5*c.rate+12_000)
		took := time.Since(start)
		time.Sleep(200 * time.Millisecond)
		refused := int(r.dropped(r.victim)[c.reason] - was[c.reason])
		arrived := 0
		r.ok(tap.Each(func(frame []byte) bool {
			if strings.HasSuffix(string(frame), string(c.frame[14:])) {
				arrived++
			}
			return true
		}))
		r.ok(tap.Stop())
		r.Logf("%s: %d sent in %v, %d arrived, %d refused", c.name, sent, took, arrived, refused)
		most := float64(4*c.rate) + float64(c.rate)*(took+200*time.Millisecond).Seconds()
		if refused == 0 || float64(arrived) > 1.05*most || arrived < c.rate {
			t.Errorf("%s: %d sent, %d arrived, %d refused; at most %.0f may arrive", c.name, sent, arrived, refused, most)
		}
		r.undisturbed()
	}
	r.macof()
}

// flood sends a frame n times while victim and bob talk, and says how often it left.
func (r *refusal) flood(frame []byte, n int) (sent int) {
	r.Helper()
	const every = 20 * time.Millisecond
	pinged := make(chan lab.Replies, 1)
	go func() {
		replies, _ := r.victim.Host.Ping(r.ctx, r.b.v4.String(), lab.Echo{Count: 50, Interval: every})
		pinged <- replies
	}()
	for i := range n {
		if err := unix.Send(r.socket, frame, 0); err == nil {
			sent++
		} else if !errors.Is(err, unix.ENOBUFS) {
			r.Fatalf("send: %v", err)
		}
		if i%20 == 19 {
			time.Sleep(2 * time.Millisecond)
		}
	}
	if p := <-pinged; p.Sent == 0 || float64(p.Sent-p.Received) > 0.04*float64(p.Sent) {
		r.Errorf("meanwhile %d of %d pings from victim to bob were answered", p.Received, p.Sent)
	}
	return sent
}

// macof sends from 100 000 MACs, or a million, as dsniff's program of this name does, while bob sends to victim. That stream
// keeps its rate and mallory hears nothing of it; victim forgets nobody, and does not grow.
func (r *refusal) macof() {
	r.Helper()
	const rate = 20e6 // bits a second
	before := r.addressesSeen()
	was := r.dropped(r.victim)
	rss, err := resident(r.victim.Daemon.PID())
	r.ok(err)
	ctx, cancel := context.WithTimeout(r.ctx, time.Minute)
	defer cancel()
	stream := r.flow(ctx, r.bob.Host, r.victim.Host, r.v.v4.String(), rate, 0)
	tap, err := r.mallory.Host.Capture("loom0")
	r.ok(err)
	start, got := time.Now(), stream.got.Load()
	out, err := r.mallory.Host.Run(ctx, "macof", "-i", "loom0", "-n", fmt.Sprint(rounds(1, 10)*100_000))
	took := time.Since(start)
	if err != nil {
		r.Fatalf("macof: %v: %s", err, out[:min(len(out), 1000)])
	}
	kept := float64(8*(stream.got.Load()-got)) / took.Seconds() / rate
	overheard := 0
	r.ok(tap.Each(func(frame []byte) bool {
		if len(frame) > 12 && string(frame[6:12]) == string(r.b.mac) && frame[0]&1 == 0 && string(frame[:6]) != string(r.m.mac) {
			overheard++
		}
		return true
	}))
	r.ok(tap.Stop())
	cancel()
	r.ok(stream.wait())
	after, err := resident(r.victim.Daemon.PID())
	r.ok(err)
	refused := r.dropped(r.victim)["source-mac"] - was["source-mac"]
	r.Logf("macof took %v; victim has refused %d frames and grown by %d KiB; bob's stream kept %.0f %%, of which mallory heard %d frames",
		took, refused, (after-rss)>>10, 100*kept, overheard)
	if refused == 0 || overheard > 0 || after-rss > 20<<20 || kept < 0.95 {
		r.Error("want frames refused, none overheard, less than 20 MiB more, and 95 % of the stream")
	}
	r.undisturbed()
	if now := r.addressesSeen(); now != before {
		r.Errorf("macof: victim knew %s, and knows %s", before, now)
	}
}

// addressesSeen lists the MACs in victim's FDB.
func (r *refusal) addressesSeen() string {
	r.Helper()
	var list struct {
		FDB []node.FDBEntry `json:"fdb"`
	}
	r.ok(r.victim.Ask(r.ctx, &list, "fdb"))
	var macs []string
	for _, e := range list.FDB {
		macs = append(macs, e.MAC+"@"+e.Port)
	}
	return fmt.Sprint(len(macs), macs)
}

// A DHCP server that nobody has made one: dnsmasq and thc-ipv6's, on a node whose daemon judges nothing. Where the receivers
// refuse it, a client that asks gets no address; with the role it does.
func TestRogueDHCPServer(t *testing.T) {
	r := newRefusal(t, "mallory", "victim", "bob")
	r.reaches()
	first, last := r.m.v4, r.m.v4
	for range 100 {
		last = last.Next()
	}
	for range 50 {
		first = first.Next()
	}
	server, err := r.mallory.Host.Start(r.ctx, "dnsmasq", "-d", "--port=0", "-i", "loom0", "--bind-interfaces", "--dhcp-authoritative",
		"--dhcp-range="+first.String()+","+last.String()+",2m", "--dhcp-leasefile="+filepath.Join(r.Dir(), "rogue"), "--conf-file=/dev/null")
	r.ok(err)
	defer func() { _ = server.Stop(time.Second) }()
	_, err = r.Admin(r.ctx, "node", "address", "victim", "--segment", "lan", "--mode", "dhcp")
	r.ok(err)
	r.await("the rogue server's offers are refused", 20*time.Second, func() bool { return r.dropped(r.victim)["not-dhcp-server"] >= 2 })
	leased := func() bool { return strings.Contains(r.sh(r.victim.Host, "ip -br -4 addr show loom0"), ".") }
	if leased() {
		t.Error("victim has an address of a rogue server")
	}

	was := r.dropped(r.victim)["not-dhcp-server"]
	ctx, cancel := context.WithTimeout(r.ctx, 4*time.Second)
	defer cancel()
	go func() {
		time.Sleep(time.Second)
		solicit := ipv6(r.v.own.AsSlice(), []byte{0xff, 2, 13: 1, 15: 2}, unix.IPPROTO_UDP, udpOf(546, 547, []byte{1, 0, 0, 1, 0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 1}))
		for ctx.Err() == nil {
			frame := append(ethernet([]byte{0x33, 0x33, 0, 1, 0, 2}, r.v.mac, unix.ETH_P_IPV6), solicit...)
			r.inject(r.victim.Host, "loom0", frame)
			time.Sleep(100 * time.Millisecond)
		}
	}()
	out, _ := r.mallory.Host.Run(ctx, "atk6-fake_dhcps6", "loom0", "2001:db8:bad::/64", "2001:db8:bad::53")
	if r.dropped(r.victim)["not-dhcp-server"] <= was {
		t.Errorf("atk6-fake_dhcps6: victim has refused nothing: %s", out)
	}

	_, err = r.Admin(r.ctx, "node", "role", "mallory", "--segment", "lan", "--add", "dhcp-server")
	r.ok(err)
	r.await("victim has a leased address", 30*time.Second, leased)
}
