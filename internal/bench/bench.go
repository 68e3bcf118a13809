// Package bench measures what this host can carry, with the code that carries it.
//
// On one core, without root: the ciphers, as links use them; and the way of a frame from one node to another (node.Trial),
// whose two halves are timed apart, because at a link's two ends they have a core each.
//
// With root: a real network of a controller and two daemons in namespaces of their own, and real traffic over it. Both
// daemons and the load then share this host's cores.
//
// Nothing is reported that was not counted where it arrived.
package bench

import (
	"context"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/etherloom/etherloom/transport"
)

// Result is what was measured.
type Result struct {
	Processor string   `json:"processor,omitempty"`
	Cores     int      `json:"cores"`
	Suite     string   `json:"suite"`    // that this host would use
	Hardware  bool     `json:"hardware"` // it has instructions for AES-GCM
	Ciphers   []Cipher `json:"ciphers"`
	Frames    []Frames `json:"frames"`
	Stream    Stream   `json:"stream"`
	Network   *Network `json:"network,omitempty"`
	NoNetwork string   `json:"no_network,omitempty"` // why Network is not there
}

// Config says how to measure.
type Config struct {
	Each time.Duration    // how long each measurement takes
	Bin  string           // directory of the two programs, for the part that needs root
	now  func() time.Time // a test's clock; nil: the real one
}

// Run measures everything. Where the network could not be measured although it should, the error comes with the rest.
func Run(ctx context.Context, cfg Config) (r Result, err error) {
	if cfg.now == nil {
		cfg.now = time.Now
	}
	m := meter{ctx, cfg.Each, cfg.now}
	r.Processor, r.Cores, r.Hardware = processor(), runtime.GOMAXPROCS(0), transport.HasAES()
	suite := transport.ChaCha20Poly1305
	if r.Hardware {
		suite = transport.AES256GCM
	}
	r.Suite = suite.String()
	for _, s := range []transport.Suite{transport.AES256GCM, transport.ChaCha20Poly1305} {
		c, err := m.cipher(s)
		if err != nil {
			return r, err
		}
		r.Ciphers = append(r.Ciphers, c)
	}
	for _, size := range []int{smallFrame, fullFrame} {
		f, err := m.frames(suite, size)
		if err != nil {
			return r, err
		}
		r.Frames = append(r.Frames, f)
	}
	if r.Stream, err = m.stream(suite); err != nil {
		return r, err
	}
	if why := lacking(cfg.Bin); why != nil {
		r.NoNetwork = why.Error()
		return r, nil
	}
	if r.Network, err = network(ctx, cfg); err != nil {
		r.NoNetwork = err.Error()
	}
	return r, err
}

// meter times things for a while each.
type meter struct {
	ctx  context.Context //nolint:containedctx // that of Run
	each time.Duration
	now  func() time.Time
}

// alternate does one thing and then another until the time is over, at least once, and returns how often, and how long each
// of the two took in all.
func (m meter) alternate(one, other func() error) (rounds int, first, second time.Duration, err error) {
	begin := m.now()
	for t := begin; rounds == 0 || t.Sub(begin) < m.each; rounds++ {
		if err := m.ctx.Err(); err != nil {
			return rounds, first, second, err
		}
		if err := one(); err != nil {
			return rounds, first, second, err
		}
		between := m.now()
		if err := other(); err != nil {
			return rounds, first, second, err
		}
		end := m.now()
		first, second, t = first+between.Sub(t), second+end.Sub(between), end
	}
	return rounds, first, second, nil
}

// per is how many there are of something in a second.
func per(n float64, d time.Duration) float64 { return n / d.Seconds() }

// processor is what the kernel calls the processor; empty where it has no name for it.
func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
