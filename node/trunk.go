package node

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/etherloom/etherloom/bridge"
	"github.com/etherloom/etherloom/bridge/lacp"
	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/ether"
	"github.com/etherloom/etherloom/identity"
	"github.com/etherloom/etherloom/policy"
	vswitch "github.com/etherloom/etherloom/switch"
)

// device is what a wire leads to: a NIC, or a bridge of this machine.
type device struct{ nic, bridge string }

func deviceOf(a *controlv1.Attachment) device { return device{a.GetNic(), a.GetBridge()} }

func (v device) String() string {
	if v.bridge != "" {
		return "bridge " + v.bridge
	}
	return "nic " + v.nic
}

func compareDevices(a, b device) int { return strings.Compare(a.String(), b.String()) }

// trunk is a NIC that this node, a gateway, has taken from the host, or a bridge that it has joined: a wire, and whose each of its
// VLANs is.
type trunk struct {
	d       *Daemon
	to      device
	done    chan struct{} // closed with the trunk
	wire    *bridge.Wire
	members atomic.Pointer[bridge.Trunk[*attachment]]
	copied  atomic.Bool          // somebody wants copies of what comes in
	foreign atomic.Uint64        // frames of VLANs that are nobody's
	slow    atomic.Bool          // the NIC speaks LACP
	writers [maxLanes]*tagWriter // each belongs to the goroutine of its lane
	rooms   [maxLanes][]byte     // the same; scratch for frames that the NIC cannot take as they are
	fault   error                // guarded by Daemon.mu: what is wrong with the NIC
	lost    error                // the same: why a queue is read no more
	untold  error                // the same: what a bridge cannot be told
	active  int                  // the same: the part of a bond that sent when it was looked at last
	list    []*attachment        // guarded by Daemon.mu
}

// attachment is a port onto one VLAN of a NIC.
type attachment struct {
	id      policy.Identity // of those behind it whom nobody named
	tagging bridge.Tagging
	seg     *segment
	trunk   *trunk
	port    *vswitch.Port
	refused atomic.Uint64 // frames for the VLAN that cannot be sent there
	copies  copies
}

func (a *attachment) String() string { return a.port.Name }

// open reports whether the port is neither shut nor disabled by a fault: then it carries what its gate lets pass.
func (a *attachment) open(now time.Time) bool {
	return !a.port.Attributes().Shut && a.port.Fault(now) == nil
}

// tagWriter writes frames with one tag.
type tagWriter struct {
	*bridge.Writer

	tag ether.Tag
}

// Write writes a frame with the tag.
func (w *tagWriter) Write(frame []byte, undone ether.Offload) error {
	return w.WriteTagged(frame, w.tag, undone)
}

// Send gives a frame of the switch's to the VLAN. A probe is none, whoever has made it look like one.
func (a *attachment) Send(frame []byte, undone ether.Offload, _ vswitch.Tag, n vswitch.Lane) {
	if isProbe(frame) {
		a.refused.Add(1)
		return
	}
	a.put(frame, undone, n)
}

func (a *attachment) put(frame []byte, undone ether.Offload, n vswitch.Lane) {
	t := a.trunk
	tag, err := t.members.Load().Egress(a.tagging, frame)
	if err != nil {
		a.refused.Add(1)
		return
	}
	w := t.writer(n)
	w.tag = tag
	a.copies.leaveTagged(frame, tag, undone, n)
	t.rooms[n] = give(w, t.wire.Offloads(), frame, undone, t.rooms[n])
}

// writer is the way onto the wire of who carries a lane.
func (t *trunk) writer(n vswitch.Lane) *tagWriter {
	w := t.writers[n]
	if w == nil {
		queues := t.wire.Queues()
		w = &tagWriter{Writer: queues[t.d.lanes.state[n].queue%len(queues)].NewWriter()}
		t.writers[n] = w
	}
	return w
}

// forward gives a frame that the NIC has received to the switch of the segment whose VLAN it is on.
func (t *trunk) forward(frame []byte, undone ether.Offload, n vswitch.Lane, now time.Time) {
	members := t.members.Load()
	if t.copied.Load() {
		if a, err := members.Owner(frame); err == nil {
			a.copies.enter(frame, undone, n)
		}
	}
	if t.slow.Load() && lacp.Is(frame) {
		t.d.sentinel.hearSlow(t, frame, now)
		return
	}
	a, frame, undone, err := members.Ingress(frame, undone)
	if err != nil {
		t.foreign.Add(1)
		return
	}
	if isProbe(frame) {
		t.d.sentinel.hear(a, frame, now)
		return
	}
	if undone, ok := t.d.travelling(frame, undone); ok {
		a.seg.sw.Forward(a.port, frame, undone, vswitch.Tag{}, n, now)
	}
}

// journalOf is the file that says what was changed on a NIC.
func (d *Daemon) journalOf(nic string) string {
	return d.dir.Path("nic-" + strings.ReplaceAll(nic, "/", "_") + ".json")
}

func (d *Daemon) wireConfig(to device, move bool) bridge.WireConfig {
	return bridge.WireConfig{
		NIC: to.nic, Bridge: to.bridge, Move: move, Journal: d.journalOf(to.nic), Queues: d.cfg.queues(), NoOffload: d.cfg.TAP.Offload == "off",
	}
}

// openTrunkLocked takes a NIC or joins a bridge, and starts carrying frames.
func (d *Daemon) openTrunkLocked(cfg bridge.WireConfig, to device, now time.Time) (*trunk, error) {
	wire, err := bridge.NewWire(cfg)
	if err != nil {
		if bridge.CanTake(cfg) == nil {
			d.failedLocked(to.String(), err, now)
		}
		return nil, err
	}
	delete(d.attempts, to.String())
	t := &trunk{d: d, to: to, wire: wire, done: make(chan struct{})}
	none, _ := bridge.NewTrunk[*attachment]() // of nobody: nothing to collide
	t.members.Store(none)
	for i, q := range wire.Queues() {
		d.group.Go(func() error { return t.carry(q, i) })
	}
	d.group.Go(t.watch)
	d.log.Info("wire is joined", "to", to.String(), "port", wire.Name())
	return t, nil
}

// carry takes frames from one queue of the wire, until it is closed.
func (t *trunk) carry(q *bridge.Queue, queue int) error {
	err := t.d.carry(q, queue, t.forward)
	if err == nil {
		return nil
	}
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	if t.d.trunks[t.to] == t {
		t.lost = unread(t.wire.Name(), t.wire.Name()+", so its VLANs are cut off", err)
		t.d.problemLocked(t.to.String(), errors.Join(t.fault, t.lost))
	}
	return nil
}

// applyTrunksLocked makes the attachments be those of the state. A daemon that stops takes no NIC.
func (d *Daemon) applyTrunksLocked() {
	if d.ctx.Err() != nil {
		return
	}
	wanted := make(map[device][]*controlv1.Attachment)
	for _, a := range d.attachmentsLocked() {
		if d.segments[policy.VNI(a.GetVni())] != nil {
			wanted[deviceOf(a)] = append(wanted[deviceOf(a)], a)
		}
	}
	for to, t := range d.trunks {
		if wanted[to] == nil {
			d.closeTrunkLocked(t)
		}
	}
	d.restoreAgainLocked(time.Now())
	for about := range d.problems {
		if d.wireless(about, wanted) {
			delete(d.problems, about)
		}
	}
	maps.DeleteFunc(d.attempts, func(about string, _ *attempt) bool { return d.wireless(about, wanted) })
	for _, to := range slices.SortedFunc(maps.Keys(wanted), compareDevices) {
		d.problemLocked(to.String(), d.applyTrunkLocked(to, wanted[to]))
	}
	d.applyMirrorsLocked()
	d.scheduleMovesLocked(time.Now())
	d.againLocked(time.Now())
}

// wireless reports whether a problem is about a wire that nobody wants any more.
func (d *Daemon) wireless(about string, wanted map[device][]*controlv1.Attachment) bool {
	if !strings.HasPrefix(about, "nic ") && !strings.HasPrefix(about, "bridge ") {
		return false
	}
	for to := range wanted {
		if to.String() == about {
			return false
		}
	}
	return true
}

func (d *Daemon) applyTrunkLocked(to device, wanted []*controlv1.Attachment) error {
	if !slices.Contains(d.cert.Load().Roles, identity.RoleGateway) {
		return errors.New("this node's certificate does not make it a gateway, so it takes no NIC: join it anew with a token of `token create --role gateway`")
	}
	t, now := d.trunks[to], time.Now()
	if s := d.sinks[cmp.Or(to.nic, to.bridge)]; s != nil && t == nil {
		return fmt.Errorf("copies of frames go to %s, and would get onto its VLANs: `etherloom mirror remove --to %s`", to, s.name)
	}
	move, why := d.mayMoveLocked(to.nic, wanted, now)
	if t != nil && !move {
		if name, _ := t.wire.Moved(); name != "" {
			d.closeTrunkLocked(t)
			t = nil
		}
	}
	began := false
	if t == nil {
		cfg := d.wireConfig(to, move)
		if err := d.pausesLocked(cfg, to, now); err != nil {
			return errors.Join(why, err)
		}
		began = move && d.movingLocked(to.nic, now)
		var err error
		if t, err = d.openTrunkLocked(cfg, to, now); err != nil {
			return errors.Join(why, err)
		}
		d.trunks[to] = t
	}
	d.movedLocked(t, began, time.Now())
	var others error
	if !t.wire.Filters() {
		wanted, others = oneVLAN(to.nic, wanted)
	}
	return errors.Join(t.setLocked(wanted), others, t.fault, t.lost)
}

// setLocked makes these be the trunk's attachments.
func (t *trunk) setLocked(wanted []*controlv1.Attachment) error {
	slices.SortFunc(wanted, func(a, b *controlv1.Attachment) int { return int(a.GetId()) - int(b.GetId()) })
	var next []*attachment
	var members []bridge.Member[*attachment]
	for _, w := range wanted {
		a := &attachment{
			id: policy.Identity(w.GetId()), seg: t.d.segments[policy.VNI(w.GetVni())], trunk: t,
			tagging: bridge.Tagging{
				VLAN: uint16(w.GetVlan()), Native: bridge.Native(w.GetNative()), //nolint:gosec // checked by control/state
				Service: w.GetService(), Priority: bridge.Priority(w.GetPriority()),
			},
		}
		a.tagging.Transparent = a.seg.transparent
		if i := slices.IndexFunc(t.list, func(o *attachment) bool { return o.same(a, w.GetPort()) }); i >= 0 {
			a = t.list[i]
		} else {
			a.port = vswitch.NewPort(w.GetPort(), vswitch.Attached, a.id, a)
		}
		next = append(next, a)
		members = append(members, bridge.Member[*attachment]{Tagging: a.tagging, Port: a})
	}
	table, err := bridge.NewTrunk(members...)
	if err != nil {
		return err
	}
	cfg, on := t.d.aggregatorOf(wanted)
	errs := []error{t.d.sentinel.aggregate(t, cfg, on)} // who leaves says so to the switch first
	if !on {
		t.d.problemLocked(aboutLACP(t), nil)
	}
	for _, a := range t.list {
		if !slices.Contains(next, a) {
			t.d.sentinel.remove(a)
		}
	}
	for i, a := range next {
		others := t.d.otherGateways(a.id)
		if slices.Contains(t.list, a) {
			errs = append(errs, t.d.sentinel.set(a, wanted[i], others))
			continue
		}
		t.d.dressLocked(a.seg, a.port)
		a.port.SetCarrier(t.wire.Up())
		errs = append(errs, t.d.sentinel.add(a, wanted[i], others))
		a.seg.sw.AddPort(a.port)
	}
	t.members.Store(table)
	for _, a := range t.list {
		if !slices.Contains(next, a) {
			a.seg.sw.RemovePort(a.port)
			t.d.problemLocked(aboutSharing(a.port), nil)
		}
	}
	t.list = next
	return errors.Join(errs...)
}

// otherGateways are the nodes that have a port on an attachment, too.
func (d *Daemon) otherGateways(attachment policy.Identity) []policy.Identity {
	m := d.contents.Machines[transportID(attachment)]
	return slices.DeleteFunc(identities(m.GetGateways()), func(id policy.Identity) bool { return id == d.self() })
}

// same reports whether an attachment is still what is wanted.
func (a *attachment) same(b *attachment, port string) bool {
	return a.id == b.id && a.seg == b.seg && a.tagging == b.tagging && a.port.Name == port
}

func (d *Daemon) closeTrunksLocked() {
	for _, t := range d.trunks {
		d.closeTrunkLocked(t)
	}
}

// closeTrunkLocked gives a NIC back to the host.
func (d *Daemon) closeTrunkLocked(t *trunk) {
	delete(d.trunks, t.to)
	close(t.done)
	if err := t.setLocked(nil); err != nil {
		d.log.Error("attachments are not ended", "to", t.to.String(), "err", err)
	}
	err := t.wire.Close()
	d.problemLocked(t.to.String(), err)
	d.log.Info("wire is cut", "to", t.to.String())
}

// wireEvery is how often a wire is looked after without notice: the kernel tells nobody when filters are removed.
const wireEvery = 2 * time.Second

// watch looks after the wire, until it is closed.
func (t *trunk) watch() error {
	tick := time.NewTicker(wireEvery)
	defer tick.Stop()
	for {
		select {
		case <-t.d.ctx.Done():
			return nil
		case <-t.done:
			return nil
		case <-tick.C:
			if t.look() {
				t.tellBridge(t.wire, time.Now())
			}
		}
	}
}

// look sees what has become of a wire; false if it is closed.
func (t *trunk) look() bool {
	t.d.mu.Lock()
	defer t.d.mu.Unlock()
	if t.d.trunks[t.to] != t {
		return false
	}
	t.followLocked()
	t.d.problemLocked(t.to.String(), errors.Join(t.fault, t.lost))
	return true
}

// followLocked looks what has become of the NIC.
func (t *trunk) followLocked() {
	changed, err := t.wire.Follow()
	t.fault = err
	for _, a := range t.list {
		a.port.SetCarrier(t.wire.Up())
	}
	if changed {
		t.d.log.Info("wire has changed", "to", t.to.String(), "up", t.wire.Up())
	}
	if now := t.wire.Active(); now != t.active {
		t.failedOver(t.active, now)
		t.active = now
	}
}

// failedOver shows the switches that everybody elsewhere is reached by another part of the bond now: they would go on sending to the one
// before until somebody speaks. The bond does so itself for addresses that it has, and those behind the gateway are not its own.
func (t *trunk) failedOver(before, now int) {
	if before == 0 || now == 0 {
		return // nobody was reached by it, or nobody is
	}
	for _, a := range t.list {
		t.d.sentinel.show(a, slices.Collect(maps.Keys(a.reached(time.Now())))...)
	}
	t.d.log.Info("a bond has failed over", "to", t.to.String())
}

// drops are the frames that went nowhere between the NIC and the segments.
func (t *trunk) drops() (out []Drop) {
	if n := t.foreign.Load(); n > 0 {
		out = append(out, Drop{t.to.String(), "foreign-vlan", "frame of a VLAN, or without one, that no attachment here has; or cut inside its tag", n})
	}
	refused := uint64(0)
	for _, a := range t.list {
		refused += a.refused.Load()
	}
	if refused > 0 {
		out = append(out, Drop{t.to.String(), "tag-inside", "frame for a VLAN that is sent untagged and begins with a tag of its own, or that looks like a probe", refused})
	}
	return out
}

// problems are those that somebody else makes on the machine.
func (t *trunk) problems() (out []Problem) {
	out = t.moveProblemLocked()
	for _, text := range t.wire.Problems() {
		out = append(out, Problem{t.to.String(), text})
	}
	if t.untold != nil {
		out = append(out, Problem{t.to.String(), t.untold.Error()})
	}
	out = append(out, t.dead(t.wire.Up())...)
	for _, a := range t.list {
		if text := a.narrow(t.wire.MTU()); text != "" {
			out = append(out, Problem{t.to.String(), text})
		}
	}
	return out
}

// dead says of each attachment that it carries nothing, and where to look, while the NIC or the bridge has no carrier or cannot be used.
func (t *trunk) dead(up bool) (out []Problem) {
	if up {
		return nil
	}
	why := fmt.Sprintf("NIC %s has no carrier: look at the cable, at the switch's port, and whether `ip link show %s` says UP", t.to.nic, t.to.nic)
	switch {
	case t.fault != nil:
		why = t.fault.Error()
	case t.to.bridge != "":
		why = fmt.Sprintf("bridge %s has no carrier: look at its ports with `bridge link`, and whether `ip link show %s` says UP", t.to.bridge, t.to.bridge)
	}
	for _, a := range t.list {
		out = append(out, Problem{"attachment " + a.port.Name, "it carries nothing, since " + why})
	}
	return out
}

// tagRoom is how many bytes the tags inside a transparent segment take.
const tagRoom = 4 * ether.MaxInner

// narrow says that a NIC has no room for the tags inside a transparent segment; empty if it has. One tag passes beside the MTU of nearly
// every NIC: it was counted in when frames got longer (IEEE 802.3 section 3.2.7).
func (a *attachment) narrow(mtu int) string {
	if !a.seg.transparent || a.trunk.to.nic == "" || mtu >= a.seg.mtu+tagRoom-4 {
		return ""
	}
	return fmt.Sprintf("its MTU is %d, so frames of full length with the tags of segment %s may be lost: `ip link set %s mtu %d`, and the same on the "+
		"switch's port", mtu, a.seg.name, a.trunk.to.nic, a.seg.mtu+tagRoom)
}
