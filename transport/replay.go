package transport

// windowBits is the size of a replay window. It must be larger than any reordering: a thousandth of a second at
// several million datagrams.
const windowBits = 8192

const (
	windowWords = windowBits / 64
	// The ring has one word more than the window, so that clearing the word ahead never clears a live one
	// (RFC 6479 section 2).
	ringWords = windowWords * 2
)

// replayWindow says which counters of one key have been seen (RFC 6479). The zero value has seen none. It is not safe
// for concurrent use.
type replayWindow struct {
	next uint64 // one more than the greatest counter seen
	ring [ringWords]uint64
}

// fresh reports whether counter has not been seen and is not too old to tell.
func (w *replayWindow) fresh(counter uint64) bool {
	if counter >= w.next {
		return true
	}
	if w.next-counter > windowBits {
		return false
	}
	return w.ring[counter/64%ringWords]>>(counter%64)&1 == 0
}

// commit records counter as seen. Call it only after the datagram's tag has been verified, or a forger closes the
// window; and only if fresh.
func (w *replayWindow) commit(counter uint64) {
	word := counter / 64
	if counter >= w.next {
		if w.next > 0 {
			last := (w.next - 1) / 64
			for i := uint64(1); i <= min(word-last, ringWords); i++ {
				w.ring[(last+i)%ringWords] = 0
			}
		}
		w.next = counter + 1
	}
	w.ring[word%ringWords] |= 1 << (counter % 64)
}
