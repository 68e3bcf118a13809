package node

import (
	"net/netip"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/posture"
)

// PostureStatus is what `etherloom posture` tells.
type PostureStatus struct {
	Schema    int             `json:"schema"`
	Report    *posture.Report `json:"report"`        // null before everything has been looked at once
	Sent      time.Time       `json:"sent,omitzero"` // to a controller, last; absent: never
	Interval  time.Duration   `json:"interval_ns"`   // between two looks
	Connected bool            `json:"connected"`     // there is a controller that would be told of a change at once
}

// Posture describes what this node says of itself.
func (d *Daemon) Posture() PostureStatus {
	return PostureStatus{
		Schema: Schema, Report: d.watcher.Latest(), Sent: d.client.Reported(), Interval: d.cfg.Posture.Interval,
		Connected: d.client.Connected(),
	}
}

// underlayAddresses are those that datagrams are sent from.
func (d *Daemon) underlayAddresses() []netip.Addr {
	if list := d.underlay.Load(); list != nil {
		return *list
	}
	return nil
}

// postureReport is what the controllers are told; nil before everything has been looked at once.
func (d *Daemon) postureReport() *controlv1.PostureReport {
	if r := d.watcher.Latest(); r != nil {
		return PostureProto(r)
	}
	return nil
}

// PostureProto is a report as it travels.
func PostureProto(r *posture.Report) *controlv1.PostureReport {
	out := &controlv1.PostureReport{
		Sequence: r.Sequence, Os: r.OS, OsVersion: r.OSVersion, Kernel: r.Kernel, Arch: r.Arch, Agent: r.Agent, Hostname: r.Hostname,
		DiskEncrypted: r.DiskEncrypted, Underlay: r.Underlay, Files: map[string]*controlv1.PostureFile{},
		Processes: map[string]*controlv1.PostureProcess{}, Commands: map[string]*controlv1.PostureCommand{},
	}
	for path, f := range r.Files {
		out.Files[path] = &controlv1.PostureFile{
			Exists: f.Exists, Regular: f.Regular, Sha256: f.SHA256, Mode: f.Mode, Uid: int64(f.UID), Gid: int64(f.GID), Size: f.Size, Fault: f.Fault,
		}
	}
	for path, p := range r.Processes {
		out.Processes[path] = &controlv1.PostureProcess{Running: p.Running, Sha256: p.SHA256, Uid: int64(p.UID), Fault: p.Fault}
	}
	for name, c := range r.Commands {
		out.Commands[name] = &controlv1.PostureCommand{Ran: c.Ran, Exit: int64(c.Exit), Line: c.Line, Fault: c.Fault}
	}
	return out
}
