package transport

import (
	"crypto/cipher"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/identity"
)

// The life of an epoch.
const (
	rekeyAfter   = 120 * time.Second // the initiator starts the next one
	rejectAfter  = 180 * time.Second // nothing lives past it
	overlap      = 10 * time.Second  // an epoch receives for so long after the next is confirmed
	rekeyCounter = 1 << 32           // datagrams of one key after which a rekey is due
	lastCounter  = 1<<32 + 1<<28     // no key seals more than this
)

// epoch is what one handshake gave: two secrets, from which every path and shard of a direction has a key of its own.
type epoch struct {
	suite     Suite
	initiator bool
	local     uint32 // our index: the peer writes it into what it sends
	remote    uint32 // the peer's index
	peer      *Peer
	created   time.Time
	cert      *identity.Certificate // the peer's, as verified in the handshake
	ownEnd    time.Time             // of our own, as the peer saw it

	sendSecret, recvSecret [32]byte

	confirmed atomic.Bool // a data datagram of this epoch has arrived
	wantRekey atomic.Bool // a key is near its end, or paths have run out of numbers

	mu    sync.Mutex // guards paths, sends and the replacing of recvs
	paths map[*Path]uint8
	sends map[keyID]*sendKey
	recvs atomic.Pointer[map[keyID]*recvKey]
}

type keyID struct{ path, shard uint8 }

// sendKey seals. Its counter belongs to the goroutine that owns the shard.
type sendKey struct {
	head    header
	aead    cipher.AEAD
	nonce   [12]byte
	epoch   *epoch
	counter uint64
}

// recvKey opens, and remembers what it has opened.
type recvKey struct {
	aead   cipher.AEAD
	mu     sync.Mutex
	window replayWindow
}

var (
	errPathIDs = errors.New("transport: this epoch has no path numbers left")
	errUsedUp  = errors.New("transport: this key has sealed as much as it may")
	errReplay  = errors.New("transport: replayed or too old a counter")
	errTag     = errors.New("transport: datagram does not open")
)

// sendKey returns the key for a path and a shard. The same pair always gets the same key, so a counter goes on where
// it was; a path that is new gets a number that this epoch has never used.
func (e *epoch) sendKey(p *Path, shard uint8) (*sendKey, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	number, ok := e.paths[p]
	if !ok {
		if len(e.paths) > 255 {
			e.wantRekey.Store(true)
			return nil, errPathIDs
		}
		number = uint8(len(e.paths))
		if e.paths == nil {
			e.paths, e.sends = make(map[*Path]uint8), make(map[keyID]*sendKey)
		}
		e.paths[p] = number
	}
	id := keyID{number, shard}
	if k := e.sends[id]; k != nil {
		return k, nil
	}
	aead, err := e.suite.dataKey(e.sendSecret, number, shard)
	if err != nil {
		return nil, err
	}
	k := &sendKey{aead: aead, epoch: e, head: header{suite: e.suite, path: number, shard: shard, index: e.remote}}
	e.sends[id] = k
	return k, nil
}

// seal encrypts a datagram in place: buf is header, records and room for the tag behind. It returns the whole.
func (k *sendKey) seal(buf []byte) ([]byte, error) {
	if k.counter >= rekeyCounter {
		if k.counter >= lastCounter {
			return nil, errUsedUp
		}
		k.epoch.wantRekey.Store(true)
	}
	h := k.head
	h.counter = k.counter
	k.counter++
	h.put(buf)
	k.head.suite.putNonce(&k.nonce, h.counter)
	return buf[:headerLen+len(k.aead.Seal(buf[headerLen:headerLen], k.nonce[:], buf[headerLen:], buf[:headerLen]))], nil
}

// open decrypts a datagram in place and returns its records. nonce is scratch of the calling goroutine.
func (e *epoch) open(h header, b []byte, nonce *[12]byte) ([]byte, error) {
	if h.suite != e.suite || h.counter > lastCounter {
		return nil, errTag
	}
	id := keyID{h.path, h.shard}
	k, known := e.recvKey(id)
	if k == nil {
		return nil, errTag
	}
	e.suite.putNonce(nonce, h.counter)
	plain, err := k.aead.Open(b[headerLen:headerLen], nonce[:], b[headerLen:], b[:headerLen])
	if err != nil {
		return nil, errTag
	}
	if !known {
		k = e.keep(id, k)
	}
	// The window is asked and moved only now that the tag is verified.
	k.mu.Lock()
	fresh := k.window.fresh(h.counter)
	if fresh {
		k.window.commit(h.counter)
	}
	k.mu.Unlock()
	if !fresh {
		return nil, errReplay
	}
	return plain, nil
}

// recvKey finds or derives a key. A derived one is not kept until a datagram has opened with it, so that a forger
// cannot fill the table.
func (e *epoch) recvKey(id keyID) (k *recvKey, known bool) {
	if m := e.recvs.Load(); m != nil {
		if k := (*m)[id]; k != nil {
			return k, true
		}
	}
	aead, err := e.suite.dataKey(e.recvSecret, id.path, id.shard)
	if err != nil {
		return nil, false
	}
	return &recvKey{aead: aead}, false
}

func (e *epoch) keep(id keyID, k *recvKey) *recvKey {
	e.mu.Lock()
	defer e.mu.Unlock()
	next := make(map[keyID]*recvKey)
	if m := e.recvs.Load(); m != nil {
		if won := (*m)[id]; won != nil {
			return won
		}
		for i, old := range *m {
			next[i] = old
		}
	}
	next[id] = k
	e.recvs.Store(&next)
	return k
}
