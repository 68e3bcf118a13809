package server

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
	"unicode"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/identity"
)

// dossiers holds the newest report of each node. What they know is nobody's fact: it ends with the process.
type dossiers struct {
	news chan struct{} // something is new; one is enough

	mu sync.Mutex
	of map[identity.ID]dossier
}

// dossier is what a node said of itself last.
type dossier struct {
	report   *controlv1.PostureReport // nil: it was not well-formed
	received time.Time
	streams  []*stream // that it came by, as far as they are open
	lost     time.Time // when the last of them ended
}

// live reports whether the node would have said so if anything had changed.
func (d *dossier) live() bool { return len(d.streams) > 0 }

func newDossiers() *dossiers {
	return &dossiers{news: make(chan struct{}, 1), of: map[identity.ID]dossier{}}
}

// take files a report; nil for one that was not well-formed. What comes late by an older stream is dropped.
func (d *dossiers) take(st *stream, r *controlv1.PostureReport, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.of[st.node]
	next := dossier{report: r, received: now, streams: []*stream{st}}
	if r != nil && old.live() {
		switch at := old.report.GetSequence(); {
		case r.GetSequence() < at:
			return
		case r.GetSequence() == at && !slices.Contains(old.streams, st):
			next = old
			next.streams = append(slices.Clone(old.streams), st)
		}
	}
	d.of[st.node] = next
	select {
	case d.news <- struct{}{}:
	default:
	}
}

// ended notes that a stream has ended. The dossier stays: a node that was heard a moment ago is not a stranger.
func (d *dossiers) ended(st *stream, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.of[st.node]
	if !slices.Contains(old.streams, st) {
		return
	}
	old.streams = slices.DeleteFunc(slices.Clone(old.streams), func(o *stream) bool { return o == st })
	if !old.live() {
		old.lost = now
	}
	d.of[st.node] = old
}

// get returns a node's dossier, if there is one.
func (d *dossiers) get(id identity.ID) (dossier, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out, ok := d.of[id]
	return out, ok
}

// forget drops the dossier of a node that is gone.
func (d *dossiers) forget(id identity.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.of, id)
}

// report takes what a node says of itself. One that is not well-formed counts as a report that meets no condition on
// posture; too many end the stream.
func (s *nodeService) report(st *stream, r *controlv1.PostureReport) error {
	if !s.reports.allow(st.node, s.c.now()) {
		return refuse(connect.CodeResourceExhausted, "too many posture reports: send one when something has changed, at most five in a second")
	}
	if err := checkReport(r); err != nil {
		s.c.stats.reportsRefused.Add(1)
		s.c.log.Warn("a node's posture report is not well-formed", slog.Uint64("id", uint64(st.node)), slog.Any("err", err))
		r = nil
	}
	s.c.dossiers.take(st, r, s.c.now())
	return nil
}

// Bounds of a report, as control.proto has them.
const (
	maxReport          = 48 << 10 // bytes
	maxReportText      = 256      // bytes
	maxReportFiles     = 32
	maxReportProcesses = 32
	maxReportCommands  = 16
	maxReportAddresses = 32
)

// checkReport holds a report against its bounds. What it says can be shown on a terminal afterwards.
func checkReport(r *controlv1.PostureReport) error {
	if size := proto.Size(r); size > maxReport {
		return fmt.Errorf("it has %d bytes, expected at most %d", size, maxReport)
	}
	for _, n := range []struct {
		what        string
		found, most int
	}{
		{"files", len(r.GetFiles()), maxReportFiles},
		{"processes", len(r.GetProcesses()), maxReportProcesses},
		{"commands", len(r.GetCommands()), maxReportCommands},
		{"addresses", len(r.GetUnderlay()), maxReportAddresses},
	} {
		if n.found > n.most {
			return fmt.Errorf("it has %d %s, expected at most %d", n.found, n.what, n.most)
		}
	}
	texts := append([]string{r.GetOs(), r.GetOsVersion(), r.GetKernel(), r.GetArch(), r.GetAgent(), r.GetHostname()}, r.GetUnderlay()...)
	for path, f := range r.GetFiles() {
		texts = append(texts, path, f.GetSha256(), f.GetMode(), f.GetFault())
	}
	for path, p := range r.GetProcesses() {
		texts = append(texts, path, p.GetSha256(), p.GetFault())
	}
	for name, c := range r.GetCommands() {
		texts = append(texts, name, c.GetLine(), c.GetFault())
	}
	for _, t := range texts {
		if len(t) > maxReportText {
			return fmt.Errorf("it has a text of %d bytes, expected at most %d", len(t), maxReportText)
		}
		for _, c := range t {
			if !unicode.IsPrint(c) {
				return fmt.Errorf("it has a text with the character %U, which cannot be shown", c)
			}
		}
	}
	return nil
}
