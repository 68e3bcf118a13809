package node

import (
	"fmt"
	"time"

	vswitch "github.com/etherloom/etherloom/switch"
)

// PortFault is why a port is disabled.
type PortFault struct {
	Reason string     `json:"reason"`
	Since  time.Time  `json:"since"`
	Until  *time.Time `json:"until,omitempty"` // none: until it is enabled
}

func faultLine(f *vswitch.Fault) *PortFault {
	out := &PortFault{Reason: f.Reason, Since: f.Since}
	if !f.Until.IsZero() {
		out.Until = &f.Until
	}
	return out
}

// faultEvery is how often ports are looked at for faults that are to be told of: a port carries nothing from the frame on that
// has disabled it.
const faultEvery = time.Second / 2

// faults says which ports are disabled, why, and what to do.
func (s *segment) faults(now time.Time) (out []Problem) {
	for _, p := range s.sw.Ports() {
		f := p.Fault(now)
		if f == nil {
			continue
		}
		name, until := s.portName(p), ""
		if !f.Until.IsZero() {
			until = " It is enabled again at " + f.Until.Format(time.RFC3339) + "."
		}
		out = append(out, Problem{"port " + name, fmt.Sprintf("it is disabled since %s and carries nothing: %s.%s Mend that, then `etherloom port enable %s --segment %s`",
			f.Since.Format(time.RFC3339), f.Reason, until, name, s.name)})
	}
	return out
}

// tellFaults logs which ports have been disabled, and carry again, since it was called last.
func (s *segment) tellFaults(now time.Time) {
	next := map[*vswitch.Port]*vswitch.Fault{}
	for _, p := range s.sw.Ports() {
		f := p.Fault(now)
		if f != nil {
			next[p] = f
		}
		switch told := s.disabled[p]; {
		case f != nil && f != told:
			s.d.log.Warn("a port is disabled by a fault", "segment", s.name, "port", s.portName(p), "reason", f.Reason, "until", f.Until)
		case f == nil && told != nil:
			s.d.log.Info("a port is enabled again", "segment", s.name, "port", s.portName(p))
		}
	}
	s.disabled = next
}
