package transport

import (
	"net/netip"
	"testing"
	"time"
)

// Datagrams of a shard go to its queue's socket, what is no data to the first, and all sockets send from one port.
func TestSteering(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		first, err := ListenUDP(netip.MustParseAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		s := &socketLoop{sockets: []Socket{first}, local: first.LocalAddr()}
		defer s.close()
		if err := s.share(4); err != nil {
			t.Fatal(err)
		}
		if len(s.sockets) != 4 {
			t.Fatalf("%d sockets", len(s.sockets))
		}
		peer, err := ListenUDP(netip.MustParseAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		defer peer.Close()
		for _, c := range []struct {
			name string
			data []byte
			to   int
		}{
			{"shard 0", []byte{0x84, 0, 0, 0}, 0},
			{"shard 1", []byte{0x84, 9, 1, 0}, 1},
			{"shard 2", []byte{0x94, 0, 2, 0}, 2},
			{"shard 7", []byte{0x84, 0, 7, 0}, 3},
			{"shard 254", []byte{0x84, 0, 254, 0}, 2},
			{"STUN", []byte{0, 1, 3, 3}, 0},
			{"channel data", []byte{0x40, 1, 3, 3}, 0},
			{"cut off", []byte{0x84, 0}, 0},
			{"one byte", []byte{0x84}, 0},
		} {
			if _, err := peer.WriteTo(c.data, s.local); err != nil {
				t.Fatal(err)
			}
			socket := s.sockets[c.to].(*udpSocket)
			_ = socket.SetReadDeadline(time.Now().Add(time.Second))
			b := make([]byte, 100)
			n, from, err := socket.ReadFrom(b)
			if err != nil || from != peer.LocalAddr() || string(b[:n]) != string(c.data) {
				t.Errorf("%s, %s: %v from %v, %v", at, c.name, b[:n], from, err)
			}
		}
		for i, socket := range s.sockets {
			if socket.LocalAddr() != s.local {
				t.Errorf("socket %d is on %v, and not on %v", i, socket.LocalAddr(), s.local)
			}
		}
		// The port is still ours alone: one that does not know of sharing cannot have it.
		if other, err := ListenUDP(s.local); err == nil {
			_ = other.Close()
			t.Error("somebody else has opened the port")
		}
	}
}

// A queue's senders have shards that the kernel steers to the same queue of a peer that has as many.
func TestShardsOfQueues(t *testing.T) {
	e := New(Config{Queues: 4})
	seen := make(map[uint8]bool)
	for i := range 12 {
		s, err := e.NewSender(i)
		if err != nil {
			t.Fatal(err)
		}
		if int(s.shard)%4 != i%4 || seen[s.shard] {
			t.Errorf("queue %d has shard %d", i, s.shard)
		}
		seen[s.shard] = true
	}
}
