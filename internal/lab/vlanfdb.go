package lab

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// FDBEntry is an address that a VLANSwitch has learned.
type FDBEntry struct {
	Link *Link // the plugged end behind which it is; nil: the switch itself
	VLAN uint16
	MAC  net.HardwareAddr
	Age  time.Duration // since it was last seen; 0 of a static one too
}

// FDB returns whom the switch has learned where.
func (s *VLANSwitch) FDB(ctx context.Context) ([]FDBEntry, error) {
	out, err := s.host.Run(ctx, "ovs-appctl", "-t", s.control("ovs-vswitchd"), "fdb/show", switchBridge)
	if err != nil {
		return nil, err
	}
	entries, err := parseFDB(out)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.host.name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make([]FDBEntry, len(entries))
	for i, e := range entries {
		found[i] = e.FDBEntry
		if port := s.ports[e.port]; port != nil {
			found[i].Link = port.link.peer
		}
	}
	return found, nil
}

// FlushFDB has the switch forget whom it has learned.
func (s *VLANSwitch) FlushFDB(ctx context.Context) error {
	_, err := s.host.Run(ctx, "ovs-appctl", "-t", s.control("ovs-vswitchd"), "fdb/flush", switchBridge)
	return err
}

// Find returns the plugged end behind which the switch has learned an address of a VLAN, or nil.
func (s *VLANSwitch) Find(ctx context.Context, mac net.HardwareAddr, vlan uint16) (*Link, error) {
	entries, err := s.FDB(ctx)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(entries, func(e FDBEntry) bool { return e.VLAN == vlan && slices.Equal(e.MAC, mac) })
	if i < 0 {
		return nil, nil
	}
	return entries[i].Link, nil
}

// fdbLine is an entry with its port's number; 0 is the switch's own.
type fdbLine struct {
	port int
	FDBEntry
}

// parseFDB reads what ovs-appctl fdb/show prints: after a line of headings, in each line port, VLAN, MAC and age.
func parseFDB(text string) ([]fdbLine, error) {
	var entries []fdbLine
	for i, line := range slices.Collect(strings.Lines(text)) {
		fields := strings.Fields(line)
		if i == 0 || len(fields) == 0 {
			continue
		}
		e, err := parseFDBLine(fields)
		if err != nil {
			return nil, fmt.Errorf("fdb/show printed %q, want port, VLAN, MAC and age: %w", strings.TrimSpace(line), err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func parseFDBLine(fields []string) (e fdbLine, err error) {
	if len(fields) != 4 {
		return e, fmt.Errorf("%d fields", len(fields))
	}
	if fields[0] != "LOCAL" {
		if e.port, err = strconv.Atoi(fields[0]); err != nil {
			return e, err
		}
	}
	vlan, err := strconv.ParseUint(fields[1], 10, 12)
	if err != nil {
		return e, err
	}
	e.VLAN = uint16(vlan)
	if e.MAC, err = net.ParseMAC(fields[2]); err != nil {
		return e, err
	}
	if fields[3] == "static" {
		return e, nil
	}
	age, err := strconv.Atoi(fields[3])
	e.Age = time.Duration(age) * time.Second
	return e, err
}
