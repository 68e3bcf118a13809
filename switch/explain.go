package vswitch

import (
	"time"

	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/policy"
)

// Explanation is what Forward would do with a frame.
type Explanation struct {
	Drop      Drop       // what Forward would return
	Flooded   bool       // goes to all who may hear it: for a group, or for an address not seen on any port
	Receivers []Receiver // every port that was judged; none if the frame was refused before
}

// Receiver is a port that was judged for a frame.
type Receiver struct {
	Port *Port
	Who  policy.Identity // of those behind the port
	Tag  Tag             // what would go along; none but over a link
	Drop Drop            // Forwarded, or why this one does not get the frame
}

// Explain says what Forward would do now with a frame on which nothing is left undone. It runs Forward's own code, and
// changes nothing: no frame is sent, no address learned, nothing counted.
func (s *Segment) Explain(in *Port, data []byte, tag Tag, now time.Time) Explanation {
	var e Explanation
	e.Drop = s.forward(in, data, ether.Offload{}, tag, 0, now, &e)
	return e
}

// note remembers what was decided for a port, if somebody asked, and returns it.
func (e *Explanation) note(at Place, tag Tag, drop Drop) Drop {
	if e != nil {
		e.Receivers = append(e.Receivers, Receiver{at.Port, at.Who, tag, drop})
	}
	return drop
}

// instead says otherwise of the port that was judged last.
func (e *Explanation) instead(drop Drop) Drop {
	if e != nil {
		e.Receivers[len(e.Receivers)-1].Drop = drop
	}
	return drop
}

func (e *Explanation) flood() {
	if e != nil {
		e.Flooded = true
	}
}
