package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/node/records"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// recorder collects what segments have let pass and refused, and writes it.
type recorder struct {
	file  *records.File     // nil: none
	ipfix *records.Exporter // nil: none

	mu   sync.Mutex
	gone []records.Record // of segments that are closed
}

// buildRecorder makes it. Nothing is written yet.
func (d *Daemon) buildRecorder() error {
	d.recorder = &recorder{}
	if d.cfg.Records.File != "" {
		d.recorder.file = records.NewFile(d.cfg.Records.File)
	}
	if d.cfg.Records.IPFIX == "" {
		return nil
	}
	var err error
	d.recorder.ipfix, err = records.NewExporter(d.cfg.Records.IPFIX, func(err error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.problemLocked("collector", err)
	})
	return err
}

// record collects until ctx ends. A hangup makes it open its file again.
func (d *Daemon) record(ctx context.Context) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, unix.SIGHUP)
	defer signal.Stop(hangup)
	t := time.NewTicker(d.cfg.Records.Interval)
	defer t.Stop()
	use := time.NewTicker(reportEvery)
	defer use.Stop()
	told := map[policy.GrantID]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hangup:
			if d.recorder.file != nil {
				d.recorder.file.Close()
			}
		case now := <-t.C:
			d.collect(now)
		case <-use.C:
			d.reportUse(told)
		}
	}
}

// reportEvery is how often the controllers are told when grants were used last, at most.
const reportEvery = time.Minute

// maxUses is how many grants one report names; further ones go with the next.
const maxUses = 1024

// reportUse tells the controllers which grants were used since they were told last.
func (d *Daemon) reportUse(told map[policy.GrantID]time.Time) {
	uses := d.newUses(told)
	if len(uses) > 0 && d.client.ReportUse(uses) {
		for _, u := range uses {
			told[policy.GrantID(u.GetGrant())] = u.GetLast().AsTime()
		}
	}
}

func (d *Daemon) newUses(told map[policy.GrantID]time.Time) (out []*controlv1.GrantUse) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, vni := range slices.Sorted(maps.Keys(d.uses)) {
		for _, u := range d.uses[vni].List() {
			if u.Last.After(told[u.Grant]) && len(out) < maxUses {
				out = append(out, &controlv1.GrantUse{Grant: uint32(u.Grant), Last: timestamppb.New(u.Last)})
			}
		}
	}
	return out
}

// collect writes what has come since it was called last.
func (d *Daemon) collect(now time.Time) {
	d.mu.Lock()
	segments, contents := d.sortedSegmentsLocked(), d.contents
	d.mu.Unlock()
	var list []records.Record
	for _, s := range segments {
		list = append(list, d.recordsOf(s, contents, now)...)
	}
	d.recorder.mu.Lock()
	list = append(list, d.recorder.gone...)
	d.recorder.gone = nil
	d.recorder.mu.Unlock()
	if d.cfg.Records.LogDenied {
		d.logDenied(list)
	}
	if len(list) == 0 {
		return
	}
	if d.recorder.ipfix != nil {
		d.recorder.ipfix.Send(list)
	}
	if f := d.recorder.file; f != nil {
		err := f.Write(list)
		d.mu.Lock()
		d.problemLocked("records", err)
		d.mu.Unlock()
	}
}

// lastRecordsLocked keeps what a segment has to tell that is being closed.
func (d *Daemon) lastRecordsLocked(s *segment) {
	s.sw.Flows().Retain(nil)
	list := d.recordsOf(s, d.contents, time.Now())
	d.recorder.mu.Lock()
	defer d.recorder.mu.Unlock()
	d.recorder.gone = append(d.recorder.gone, list...)
}

// recordsOf collects what a segment has to tell.
func (d *Daemon) recordsOf(s *segment, c *state.Contents, now time.Time) (list []records.Record) {
	blank := records.Record{
		Schema: records.Schema, Time: now, Node: records.Party{ID: uint32(d.member.ID), Name: d.member.Name}, Segment: s.name, VNI: uint32(s.vni),
	}
	flows, lost := s.sw.Flows().Collect(now, 0)
	for i := range flows {
		list = append(list, flowRecord(blank, &flows[i], c))
	}
	denied, others := s.sw.Denied()
	slices.SortFunc(denied, func(a, b vswitch.Denial) int { return a.First.Compare(b.First) })
	for i := range denied {
		list = append(list, deniedRecord(blank, &denied[i], c))
	}
	if others > 0 {
		r := blank
		r.Type, r.Verdict, r.Frames = records.Denied, "others", others
		list = append(list, r)
	}
	if lost > 0 {
		r := blank
		r.Type, r.Verdict, r.Frames = records.Lost, "pass", lost
		list = append(list, r)
	}
	return list
}

func flowRecord(r records.Record, f *policy.Record, c *state.Contents) records.Record {
	r.Type, r.Verdict, r.End = records.Flow, policy.Pass.Code(), f.End.String()
	r.Source, r.Target, r.Grant, r.Observed = partyOf(c, f.Opener), partyOf(c, f.Other), uint32(f.Grant), uint32(f.Observed)
	t := &f.Tuple
	r.Protocol, r.Src, r.Dst, r.SrcPort, r.DstPort = uint8(t.Protocol), t.Source(), t.Target(), t.SrcPort, t.DstPort
	r.VLAN, r.First, r.Last = f.VLANs.String(), f.Began, f.Last
	r.Frames, r.Octets, r.AnswerFrames, r.AnswerOctets = f.Frames[0], f.Octets[0], f.Frames[1], f.Octets[1]
	return r
}

func deniedRecord(r records.Record, f *vswitch.Denial, c *state.Contents) records.Record {
	r.Type, r.Verdict, r.Observed = records.Denied, f.Drop.Code(), uint32(f.Observed)
	r.Source, r.Target = partyOf(c, f.Source), partyOf(c, f.Receiver)
	r.EtherType, r.Protocol, r.Src, r.Dst, r.DstPort = fmt.Sprintf("0x%04x", uint16(f.Type)), uint8(f.Protocol), f.Src, f.Dst, f.DstPort
	r.VLAN = f.VLANs.String()
	r.SrcMAC, r.DstMAC = f.SrcMAC.String(), f.DstMAC.String()
	r.First, r.Last, r.Frames = f.First, f.Last, f.Count
	return r
}

// partyOf is an identity with its name; nil for nobody.
func partyOf(c *state.Contents, id policy.Identity) *records.Party {
	if id == 0 {
		return nil
	}
	p := &records.Party{ID: uint32(id), Name: fmt.Sprintf("identity %d", id)}
	if c != nil {
		if member := memberOf(c, id); member != nil {
			p.Name = member.GetName()
		}
	}
	return p
}

// maxDeniedLines is how many kinds of refused frames are logged in one interval; the rest is one line.
const maxDeniedLines = 10

// logDenied logs what was refused, the most frequent first. What the own host sends to groups is left out: hosts look for
// services all the time.
func (d *Daemon) logDenied(list []records.Record) {
	var denied []*records.Record
	for i := range list {
		r := &list[i]
		if r.Type == records.Denied && (r.Source == nil || r.Source.ID != uint32(d.member.ID) || !groupMAC(r.DstMAC)) {
			denied = append(denied, r)
		}
	}
	slices.SortStableFunc(denied, func(a, b *records.Record) int { return -cmp.Compare(a.Frames, b.Frames) })
	lines, kinds, frames := 0, 0, uint64(0)
	for _, r := range denied {
		if lines == maxDeniedLines || r.Source == nil {
			kinds, frames = kinds+1, frames+r.Frames
			continue
		}
		lines++
		args := []any{"segment", r.Segment, "peer", r.Source.Name, "reason", r.Verdict, "frames", r.Frames, "what", whatOf(r)}
		if r.Target != nil {
			args = append(args, "to", r.Target.Name)
		}
		if r.Observed != 0 {
			args = append(args, "observed", r.Observed)
		}
		d.log.Warn("frames were refused", args...)
	}
	if frames > 0 {
		d.log.Warn("more frames were refused", "kinds", kinds, "frames", frames)
	}
}

func groupMAC(text string) bool {
	mac, err := ether.ParseMAC(text)
	return err == nil && mac.IsGroup()
}

// whatOf says in a few words what was refused.
func whatOf(r *records.Record) string {
	text := r.EtherType
	if r.Src.IsValid() {
		text = fmt.Sprintf("%s > %s", r.Src, r.Dst)
	}
	if r.Protocol != 0 {
		text += " " + protocolName(r.Protocol)
	}
	if r.DstPort != 0 {
		text += fmt.Sprintf(" %d", r.DstPort)
	}
	if r.VLAN != "" {
		text += " vlan " + r.VLAN
	}
	return text
}

// protocolName is how people call an IP protocol.
func protocolName(p uint8) string {
	if name := map[uint8]string{1: "icmp", 6: "tcp", 17: "udp"}[p]; name != "" {
		return name
	}
	return fmt.Sprintf("proto %d", p)
}

// usesLocked is what counts for the grants of a segment, whatever becomes of the segment.
func (d *Daemon) usesLocked(vni policy.VNI) *policy.Uses {
	if d.uses[vni] == nil {
		d.uses[vni] = policy.NewUses()
	}
	return d.uses[vni]
}

// retainUsesLocked forgets the counts of grants that are gone.
func (d *Daemon) retainUsesLocked() {
	ids := map[policy.VNI][]policy.GrantID{}
	for id, g := range d.contents.Grants {
		ids[policy.VNI(g.GetVni())] = append(ids[policy.VNI(g.GetVni())], policy.GrantID(id))
	}
	for id, g := range d.contents.Reaches {
		ids[policy.VNI(g.GetVni())] = append(ids[policy.VNI(g.GetVni())], policy.GrantID(id))
	}
	for vni, u := range d.uses {
		u.Retain(ids[vni])
	}
	maps.DeleteFunc(d.uses, func(vni policy.VNI, _ *policy.Uses) bool { return len(ids[vni]) == 0 && d.segments[vni] == nil })
}
