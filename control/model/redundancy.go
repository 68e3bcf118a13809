package model

import "fmt"

// Redundancy is what several gateways of an attachment do at a time (RFC 7432 section 14.1).
type Redundancy string

// The ways. All-active is right only where the site's switch has one link aggregation over the cables to all gateways.
const (
	SingleActive Redundancy = "" // one carries the VLAN's frames, the others stand by
	AllActive    Redundancy = "all-active"

	singleActive = "single-active" // how SingleActive is called
)

func (r Redundancy) String() string {
	if r == SingleActive {
		return singleActive
	}
	return string(r)
}

// ParseRedundancy reads what an administrator asks for; nothing is what there was.
func ParseRedundancy(text string, was Redundancy) (Redundancy, error) {
	switch text {
	case "":
		return was, nil
	case singleActive:
		return SingleActive, nil
	case string(AllActive):
		return AllActive, nil
	}
	return "", fmt.Errorf("redundancy is %s (one gateway carries the VLAN at a time) or %s (all do; for one link aggregation to all of them), found %q",
		singleActive, AllActive, text)
}

// WithRedundancy is the record with another redundancy.
func (a *Attachment) WithRedundancy(r Redundancy) *Attachment {
	c := *a
	c.Redundancy = r
	return &c
}
