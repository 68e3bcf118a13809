package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/etherloom/etherloom/control/client"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/transport"
)

// buildTransport makes the datagram world's end.
func (d *Daemon) buildTransport() error {
	remembered, found, err := d.dir.Memory()
	if err != nil {
		return err
	}
	// Without memory, or with a clock far behind it, peers would take our handshakes for old ones.
	behind := remembered.Clock > uint64(time.Now().Add(time.Hour).UnixNano()) //nolint:gosec // after 1970
	d.raiseNonce = !found && d.held.Load() != nil || behind
	if d.member.Port == 0 {
		d.member.Port = randomPort()
		if err := d.dir.SaveMembership(d.member); err != nil {
			return err
		}
	}
	d.endpoint = transport.New(transport.Config{
		Network: d.verifier.Load().Network, Self: d.member.ID, Keys: d.keys, AES: transport.HasAES(), Port: d.member.Port,
		Certificate: d.cert.Load, Verifier: d.verifier.Load,
		Signal:      func(to identity.ID, sealed []byte) { d.client.Signal(to, sealed) },
		Controlled:  func() bool { return d.client.Connected() },
		NewReceiver: d.newIngress, Listen: listenUnderlay, Queues: d.cfg.queues(),
		Remembered: remembered, Remember: d.remember,
		Timers: transport.Timers{Probe: d.cfg.Timers.Probe, Rekey: d.cfg.Timers.Rekey, PathMTU: d.cfg.Timers.PathMTU},
		Log:    d.log,
	})
	return nil
}

// randomPort picks the UDP port of the underlay sockets, once for the life of the membership: behind a NAT that keeps
// ports, peers find this machine again by it. IANA leaves this range to such uses (RFC 6335 section 6).
func randomPort() uint16 { return 49152 + uint16(rand.IntN(16384-1)) } //nolint:gosec // not a secret

// listenUnderlay opens an underlay socket. A port that another process has taken is replaced by a free one.
func listenUnderlay(addr netip.AddrPort) (transport.Socket, error) {
	s, err := transport.ListenUDP(addr)
	if err != nil && addr.Port() != 0 {
		return transport.ListenUDP(netip.AddrPortFrom(addr.Addr(), 0))
	}
	return s, err
}

func (d *Daemon) buildClient() {
	verifier := d.reader.Verifier // without grace: a controller can always renew its own certificate
	d.client = client.New(client.Config{
		Controllers: d.member.Controllers,
		Verifier:    func() *identity.Verifier { return verifier },
		Certificate: func() *tls.Certificate { return identity.TLSCertificate(d.cert.Load().DER, d.keys.Sign) },
		Hello:       d.hello, Apply: d.take, Posture: d.postureReport, Signaled: d.endpoint.HandleSignal, Log: d.log,
	})
}

func (d *Daemon) hello(h *controlv1.Hello, fresh bool) {
	h.Agent, h.MaxWire, h.Aes = Version, transport.MaxWire, transport.HasAES()
	if !fresh {
		d.held.Load().Hello(h)
	}
}

// renew keeps the node's certificate fresh: a new one at half of its life, and at once if it has ended.
func (d *Daemon) renew(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(d.untilRenewal(time.Now())):
		}
		if !d.client.Connected() && time.Now().Before(d.cert.Load().NotAfter) {
			continue
		}
		if d.raiseNonce {
			if _, err := d.client.RaiseHandshakeNonce(ctx); err == nil {
				d.raiseNonce = false
			}
		}
		if !d.renewalDue(time.Now()) {
			continue
		}
		err := d.renewOnce(ctx)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		d.mu.Lock()
		if err != nil {
			err = fmt.Errorf("the certificate (until %s) is not renewed: %w", d.cert.Load().NotAfter.Format(time.RFC3339), err)
		}
		d.problemLocked("certificate", err)
		d.mu.Unlock()
	}
}

// lifetime is how long the controller makes certificates last.
func (d *Daemon) lifetime() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.contents != nil && d.contents.Settings != nil {
		return d.contents.Settings.GetCertificateLifetime().AsDuration()
	}
	cert := d.cert.Load()
	return cert.NotAfter.Sub(cert.NotBefore) / 2
}

func (d *Daemon) renewalDue(now time.Time) bool {
	return !now.Before(d.cert.Load().NotAfter.Add(-d.lifetime() / 2))
}

// untilRenewal is how long to wait before looking again.
func (d *Daemon) untilRenewal(now time.Time) time.Duration {
	due := d.cert.Load().NotAfter.Add(-d.lifetime() / 2)
	return min(max(due.Sub(now), 200*time.Millisecond)+rand.N(100*time.Millisecond), time.Second) //nolint:gosec // spreads the load
}

func (d *Daemon) renewOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	leaf, err := d.client.Renew(ctx)
	if err != nil {
		return err
	}
	cert, err := d.verifier.Load().Verify([][]byte{leaf}, identity.KindNode, time.Now())
	if err != nil {
		return err
	}
	if cert.Name.ID != d.member.ID || cert.Static != d.keys.StaticPublic() || !cert.Sign.Equal(d.keys.SignPublic()) {
		return errors.New("the controller has certified somebody else")
	}
	if err := d.dir.SaveCertificate(leaf); err != nil {
		return err
	}
	d.cert.Store(cert)
	d.client.Reconnect()
	d.log.Info("certificate renewed", "until", cert.NotAfter)
	return nil
}

// defaultName is what a machine is called unless somebody says otherwise: its host name without the domain.
func defaultName(host string) string {
	for i, c := range host {
		if c == '.' {
			return host[:i]
		}
	}
	return host
}
