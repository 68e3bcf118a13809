package e2e

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	starveRate = 5000 // messages a second
	starveBar  = 2 * time.Second
)

// DHCP starvation: a member whose daemon judges nothing asks for addresses 5000 times a second, half of them for MACs that it
// has made up. Somebody else gets a lease within two seconds all the same, and the server has heard of no MAC but theirs.
func TestDHCPStarvation(t *testing.T) {
	r := newRefusal(t, "mallory", "victim", "bob")
	r.reaches()
	first, last := r.b.v4, r.b.v4
	for range 100 {
		last = last.Next()
	}
	for range 50 {
		first = first.Next()
	}
	_, err := r.Admin(r.ctx, "node", "role", "bob", "--segment", "lan", "--add", "dhcp-server")
	r.ok(err)
	leases := filepath.Join(r.Dir(), "leases")
	server, err := r.bob.Host.Start(r.ctx, "dnsmasq", "-d", "--port=0", "-i", "loom0", "--bind-interfaces", "--dhcp-authoritative", "--no-ping",
		"--dhcp-range="+first.String()+","+last.String()+",2m", "--dhcp-leasefile="+leases, "--conf-file=/dev/null")
	r.ok(err)
	defer func() { _ = server.Stop(time.Second) }()

	_, err = r.Admin(r.ctx, "node", "address", "mallory", "--segment", "lan", "--mode", "dhcp")
	r.ok(err)
	var sent atomic.Int64
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() { stopped <- r.starve(stop, &sent) }()
	began := time.Now()
	r.await("the flood is under way", 5*time.Second, func() bool { return sent.Load() > starveRate })
	_, err = r.Admin(r.ctx, "node", "address", "victim", "--segment", "lan", "--mode", "dhcp")
	r.ok(err)
	asked := time.Now()
	r.await("victim has a leased address", 20*time.Second, func() bool { return strings.Contains(r.sh(r.victim.Host, "ip -br -4 addr show loom0"), ".") })
	took := time.Since(asked)
	rate := float64(sent.Load()) / time.Since(began).Seconds()
	close(stop)
	r.ok(<-stopped)
	refused := r.dropped(r.bob)
	t.Logf("leased after %v, while mallory sent %.0f messages a second; the server's node has refused %d for another MAC and %d for their rate",
		took, rate, refused["dhcp-client"], refused["control-rate"])
	if took > starveBar || rate < 0.8*starveRate {
		t.Errorf("leased after %v at %.0f messages a second, want %v at %d", took, rate, starveBar, starveRate)
	}
	if refused["dhcp-client"] == 0 {
		t.Error("no message for a MAC that mallory made up was refused")
	}
}

// starve sends DHCP discover messages until it is stopped.
func (r *refusal) starve(stop chan struct{}, sent *atomic.Int64) error {
	none := netip.IPv4Unspecified()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
		for i := range starveRate / 100 {
			client := r.m.mac
			if i%2 == 0 {
				client = []byte{2, byte(rand.Uint32()), byte(rand.Uint32()), byte(rand.Uint32()), 1, 2}
			}
			message := dhcpMessage(1, client, none, none, 53, 1, 1)
			binary.BigEndian.PutUint32(message[4:], rand.Uint32()) // transaction
			packet := ipv4([]byte{0, 0, 0, 0}, []byte{255, 255, 255, 255}, unix.IPPROTO_UDP, 0, udpOf(68, 67, message))
			frame := append(ethernet(broadcast(), r.m.mac, unix.ETH_P_IP), packet...)
			if err := unix.Send(r.socket, frame, 0); err == nil {
				sent.Add(1)
			} else if !errors.Is(err, unix.ENOBUFS) {
				return err
			}
		}
	}
}
