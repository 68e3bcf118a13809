package model

import (
	"fmt"
	"strings"

	"github.com/etherloom/etherloom/identity"
)

// Source resolves the selector of a grant's source: node:NAME or label:KEY=VALUE. One of id and label is set.
func (m *Model) Source(selector string) (id identity.ID, label string, err error) {
	kind, rest, _ := strings.Cut(selector, ":")
	switch kind {
	case "node":
		n := m.NodeNamed(rest)
		if n == nil {
			return 0, "", fmt.Errorf("no node is called %q: `node list` shows those there are, and label:KEY=VALUE "+
				"selects machines that have yet to join", rest)
		}
		return n.ID, "", nil
	case "label":
		l, err := identity.ParseLabel(rest)
		if err != nil {
			return 0, "", err
		}
		return 0, l.String(), nil
	}
	return 0, "", fmt.Errorf("a grant's source is node:NAME or label:KEY=VALUE, found %q", selector)
}

// Target resolves the selector of a grant's target: segment:NAME.
func (m *Model) Target(selector string) (VNI, error) {
	kind, rest, _ := strings.Cut(selector, ":")
	if kind != "segment" {
		return 0, fmt.Errorf("a grant's target is segment:NAME, found %q", selector)
	}
	s := m.SegmentNamed(rest)
	if s == nil {
		return 0, fmt.Errorf("no segment is called %q: `segment list` shows those there are, `segment add` makes one", rest)
	}
	return s.VNI, nil
}
