package bench

import (
	"fmt"
	"time"

	"github.com/etherloom/etherloom/transport"
)

// Cipher is what one core seals, or opens, of datagrams of full length.
type Cipher struct {
	Suite         string  `json:"suite"`
	DatagramBytes int     `json:"datagram_bytes"`
	SealNS        float64 `json:"seal_ns"` // for each datagram
	OpenNS        float64 `json:"open_ns"`
	SealGB        float64 `json:"seal_gb_per_s"` // 10⁹ bytes
	OpenGB        float64 `json:"open_gb_per_s"`
}

// cipher seals as many datagrams as leave in one call, opens them, and so on.
func (m meter) cipher(s transport.Suite) (Cipher, error) {
	const size, count = transport.FullDatagram, transport.MaxBurst
	c, err := transport.NewCipher(s)
	if err != nil {
		return Cipher{}, err
	}
	room := make([]byte, count*size)
	all := func(do func([]byte) error) func() error {
		return func() error {
			for at := 0; at < len(room); at += size {
				if err := do(room[at : at+size]); err != nil {
					return fmt.Errorf("measure %s: %w", s, err)
				}
			}
			return nil
		}
	}
	rounds, seal, open, err := m.alternate(all(c.Seal), all(c.Open))
	if err != nil {
		return Cipher{}, err
	}
	ns := func(d time.Duration) float64 { return float64(d) / float64(rounds*count) }
	return Cipher{
		Suite: s.String(), DatagramBytes: size, SealNS: ns(seal), OpenNS: ns(open), SealGB: size / ns(seal), OpenGB: size / ns(open),
	}, nil
}
