package transport

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/etherloom/etherloom/identity"
)

// This file is for measuring what this machine can carry. Nothing in it is another way into or out of a link: its keys are
// random, made for it, and known to nobody else.

// Cipher seals and opens datagrams as links do, with a session of its own. It is not safe for concurrent use.
type Cipher struct {
	key   *sendKey
	in    *epoch
	nonce [12]byte
}

// NewCipher returns a Cipher with a random key.
func NewCipher(s Suite) (*Cipher, error) {
	out, in := selfSession(s, nil)
	key, err := out.sendKey(nil, 0)
	if err != nil {
		return nil, err
	}
	return &Cipher{key: key, in: in}, nil
}

// selfSession returns the two ends of a session of this process with itself. from is who in's datagrams come from.
func selfSession(s Suite, from *Peer) (out, in *epoch) {
	out = &epoch{suite: s, remote: 1}
	rand.Read(out.sendSecret[:])
	in = &epoch{suite: s, local: 1, peer: from, recvSecret: out.sendSecret}
	in.confirmed.Store(true)
	return out, in
}

// Seal seals a datagram in place: its first 16 bytes are for the header, its last 16 for the tag.
func (c *Cipher) Seal(datagram []byte) error {
	if len(datagram) < headerLen+tagLen {
		return errHeader
	}
	_, err := c.key.seal(datagram[: len(datagram)-tagLen : len(datagram)])
	return err
}

// Open opens in place a datagram that Seal has sealed, once.
func (c *Cipher) Open(datagram []byte) error {
	h, err := parseHeader(datagram)
	if err != nil {
		return err
	}
	_, err = c.in.open(h, datagram, &c.nonce)
	return err
}

// Loop is a link of this machine with itself, by two UDP sockets on its loopback interface. What is sent over it is sealed,
// sent, received and opened by the code of every link, on the caller's goroutine; what it lacks is control: nobody shakes
// hands, looks for paths or replaces keys. It is not safe for concurrent use.
type Loop struct {
	Sender *Sender
	Peer   *Peer // who Sender sends to
	From   *Peer // who the far end hears

	near   Socket
	far    *socketLoop
	reader *reader
	read   func() ([]received, error)
}

// patience is how long a datagram may take over the loopback interface.
const patience = time.Second

// NewLoop opens a link from one identity to another. r takes what arrives, as from the first.
func NewLoop(s Suite, from, to identity.ID, r Receiver) (*Loop, error) {
	e := New(Config{})
	l := &Loop{Peer: &Peer{id: to}, From: &Peer{id: from}}
	sender, err := e.NewSender(0)
	if err != nil {
		return nil, err
	}
	l.Sender = sender
	anywhere := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	if l.near, err = ListenUDP(anywhere); err != nil {
		return nil, err
	}
	far, err := ListenUDP(anywhere)
	if err != nil {
		return nil, errors.Join(err, l.near.Close())
	}
	l.far = &socketLoop{e: e, sockets: []Socket{far}, local: far.LocalAddr()}
	l.reader = &reader{e: e, in: l.far, to: r}
	if l.read, err = collectorOf(far); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	out, in := selfSession(s, l.From)
	e.addEpochLocked(in) // nobody else has e yet
	path := &Path{peer: l.Peer, out: &socketLoop{e: e, sockets: []Socket{l.near}}, addr: l.far.local}
	path.size.now.Store(FullDatagram)
	l.Peer.active.Store(&sending{out, path})
	return l, nil
}

// Receive gives the Receiver all that has been sent. It is an error if some of it does not come.
func (l *Loop) Receive() error {
	timed := l.far.sockets[0].(*udpSocket) //nolint:forcetypeassert // what ListenUDP returns
	if err := timed.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	for l.From.received.Load() < l.Peer.sent.Load() {
		list, err := l.read()
		if err != nil {
			return fmt.Errorf("of %d messages %d came back over 127.0.0.1 (let UDP pass there, raise net.core.rmem_max): %w",
				l.Peer.sent.Load(), l.From.received.Load(), err)
		}
		l.far.takeAll(l.reader, list, time.Now())
	}
	return nil
}

// Close closes the sockets and the Receiver.
func (l *Loop) Close() error {
	l.reader.to.Close()
	l.Sender.Close()
	return errors.Join(l.near.Close(), l.far.close())
}
