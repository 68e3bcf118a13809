package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/node/dhcpd"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// lessor is the DHCP services of the segments whose gateway this node is: package dhcpd says what is answered. Whoever carries a frame
// hands the question over and goes on; one goroutine answers, and another one tells the controllers.
type lessor struct {
	d         *Daemon
	questions chan question4
	news      chan struct{}
	overrun   atomic.Uint64 // questions for which there was no room

	mu       sync.Mutex // held across nothing that waits
	services map[policy.VNI]*leasing
	out      []frame4 // answers that are yet to be sent
}

// leasing is one segment's service.
type leasing struct {
	*dhcpd.Service

	name string
	seg  *segment
	at   map[policy.Identity]*attachment
}

// question4 is what a machine has said that concerns a service.
type question4 struct {
	s      *segment
	a      *attachment
	who    policy.Identity
	frame  []byte // a question; nil: somebody uses an address
	squats squatter
}

// squatter is a machine that uses an address that it may not.
type squatter struct {
	mac  ether.MAC
	addr [4]byte
}

// frame4 is an answer on its way.
type frame4 struct {
	a     *attachment
	frame []byte
}

// Limits of what waits.
const (
	maxQuestions = 256
	maxSquatting = maxQuestions / 2 // of them, of who uses an address that he may not: nothing else limits what he says
	lessorTick   = 100 * time.Millisecond
	reportWait   = 5 * time.Second
	reportRetry  = time.Second
)

func newLessor(d *Daemon) *lessor {
	return &lessor{
		d: d, questions: make(chan question4, maxQuestions), news: make(chan struct{}, 1), services: map[policy.VNI]*leasing{},
	}
}

// lessorOf hands over what is for the service of one segment. It is the segment's vswitch.Server.
type lessorOf struct {
	l *lessor
	s *segment
}

// Ask takes a question of a machine. The frame is the carrier's, so it is copied; there are few, and they are counted.
func (o lessorOf) Ask(port *vswitch.Port, who policy.Identity, frame []byte, _ time.Time) {
	if a, is := port.Egress().(*attachment); is {
		o.l.hand(question4{s: o.s, a: a, who: who, frame: slices.Clone(frame)})
	}
}

// Squats takes it that somebody uses an address of the service's.
func (o lessorOf) Squats(port *vswitch.Port, mac ether.MAC, addr [4]byte, _ time.Time) {
	a, is := port.Egress().(*attachment)
	switch {
	case !is:
	case len(o.l.questions) >= maxSquatting:
		o.l.overrun.Add(1)
	default:
		o.l.hand(question4{s: o.s, a: a, squats: squatter{mac, addr}})
	}
}

func (l *lessor) hand(q question4) {
	select {
	case l.questions <- q:
	default:
		l.overrun.Add(1)
	}
}

// applyLeasesLocked makes the services be those of the state.
func (d *Daemon) applyLeasesLocked(now time.Time) {
	states := map[policy.VNI]*dhcpd.State{}
	for vni, s := range d.segments {
		st := d.serviceLocked(vni)
		if st == nil {
			s.sw.SetServer(nil)
			continue
		}
		states[vni] = st
		s.sw.SetServer(lessorOf{d.lessor, s})
	}
	d.lessor.set(states, d.segments, now)
	for about := range d.problems {
		if name, is := cutAbout(about); is && !slices.ContainsFunc(slices.Collect(maps.Keys(states)), func(v policy.VNI) bool { return d.segments[v].name == name }) {
			delete(d.problems, about)
		}
	}
}

// set takes the state of each service. Who has waited for it is answered.
func (l *lessor) set(states map[policy.VNI]*dhcpd.State, segments map[policy.VNI]*segment, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for vni := range l.services {
		if states[vni] == nil || l.services[vni].seg != segments[vni] {
			delete(l.services, vni)
		}
	}
	for vni, st := range states {
		x := l.services[vni]
		if x == nil {
			x = &leasing{Service: dhcpd.New(), name: segments[vni].name, seg: segments[vni], at: map[policy.Identity]*attachment{}}
			l.services[vni] = x
		}
		l.postLocked(x, x.Set(st, now))
	}
	l.wake()
}

func (l *lessor) wake() {
	select {
	case l.news <- struct{}{}:
	default:
	}
}

// postLocked puts answers into the queue of those to be sent.
func (l *lessor) postLocked(x *leasing, replies []dhcpd.Reply) {
	for _, r := range replies {
		if a := x.at[r.Attachment]; a != nil {
			l.out = append(l.out, frame4{a, r.Frame})
		}
	}
}

// run answers questions, until the daemon stops.
func (l *lessor) run(ctx context.Context) error {
	lane, ok := l.d.lanes.take(0)
	if !ok {
		return fmt.Errorf("too many goroutines carry frames: lower tap.queues")
	}
	defer l.d.lanes.release(lane)
	tick := time.NewTicker(lessorTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case q := <-l.questions:
			l.take(q, time.Now())
		case <-l.news:
		case now := <-tick.C:
			l.tick(now)
		}
		l.send(lane)
	}
}

func (l *lessor) take(q question4, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.services[q.s.vni]
	if x == nil || x.seg != q.s {
		return
	}
	x.at[q.a.id] = q.a
	if q.frame == nil {
		x.Squats(q.a.id, q.squats.mac, addrOf4(q.squats.addr), now)
		return
	}
	l.postLocked(x, x.Ask(dhcpd.Question{Attachment: q.a.id, Who: q.who, Frame: q.frame}, now))
}

func (l *lessor) tick(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.services {
		l.postLocked(x, x.Tick(now))
	}
}

// send sends what is to be sent, with nothing locked.
func (l *lessor) send(lane vswitch.Lane) {
	l.mu.Lock()
	out := l.out
	l.out = nil
	l.mu.Unlock()
	for _, f := range out {
		f.a.Send(f.frame, ether.Offload{}, vswitch.Tag{}, lane)
	}
}

// report tells the controllers what machines have asked for, until the daemon stops, and an administrator what is wrong.
func (l *lessor) report(ctx context.Context) error {
	tick := time.NewTicker(lessorTick)
	defer tick.Stop()
	var idle time.Time // until when nothing is told, because no controller has taken it
	problems := map[string]string{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			l.tellProblems(problems, now)
			if now.After(idle) && !l.tell(ctx, now) {
				idle = time.Now().Add(reportRetry)
			}
		}
	}
}

// tell tells of each service what is to be told; false if no controller takes it.
func (l *lessor) tell(ctx context.Context, now time.Time) bool {
	for vni, list := range l.due(now) {
		reports := make([]*controlv1.LeaseReport, 0, len(list))
		for _, r := range list {
			reports = append(reports, reportProto(vni, r))
		}
		ctx, cancel := context.WithTimeout(ctx, reportWait)
		refused, err := l.d.client.ReportLeases(ctx, reports)
		cancel()
		if err != nil {
			return false // it is told again
		}
		l.told(vni, list, refused)
	}
	return true
}

func (l *lessor) due(now time.Time) map[policy.VNI][]*dhcpd.Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[policy.VNI][]*dhcpd.Report{}
	for vni, x := range l.services {
		if list := x.Reports(now); len(list) > 0 {
			out[vni] = list
		}
	}
	return out
}

func (l *lessor) told(vni policy.VNI, list []*dhcpd.Report, refused []*controlv1.LeaseRefusal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.services[vni]
	if x == nil {
		return
	}
	var no []dhcpd.Refusal
	for _, r := range refused {
		if int(r.GetReport()) < len(list) {
			no = append(no, dhcpd.Refusal{Report: list[r.GetReport()], Reason: r.GetReason(), Full: r.GetFull()})
		}
	}
	l.postLocked(x, x.Told(list, no, time.Now()))
	l.wake()
}

func reportProto(vni policy.VNI, r *dhcpd.Report) *controlv1.LeaseReport {
	acts := map[dhcpd.Act]controlv1.LeaseAct{
		dhcpd.Ask: controlv1.LeaseAct_LEASE_ACT_ASK, dhcpd.Bind: controlv1.LeaseAct_LEASE_ACT_BIND,
		dhcpd.Renew: controlv1.LeaseAct_LEASE_ACT_BIND, dhcpd.Release: controlv1.LeaseAct_LEASE_ACT_RELEASE,
		dhcpd.Decline: controlv1.LeaseAct_LEASE_ACT_DECLINE, dhcpd.LetGo: controlv1.LeaseAct_LEASE_ACT_LET_GO,
	}
	out := &controlv1.LeaseReport{Vni: uint32(vni), Attachment: uint32(r.Attachment), Mac: r.MAC[:], Act: acts[r.Act], Name: r.Name}
	if r.Address.IsValid() {
		out.Address = r.Address.String()
	}
	return out
}
