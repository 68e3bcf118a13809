package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/etherloom/etherloom/bridge"
	"github.com/etherloom/etherloom/control/controlv1"
)

// AttachmentStatus is a port onto a VLAN as this gateway sees it.
type AttachmentStatus struct {
	Declaration

	Origin string     `json:"origin"` // config, command, or administrator: of the network
	State  string     `json:"state"`  // signed, refused, or waits: for a controller
	Why    string     `json:"why,omitempty"`
	Moved  string     `json:"moved_to,omitempty"`      // the bridge that has what the host had on the NIC
	Until  *time.Time `json:"confirm_until,omitempty"` // when that is taken back
}

// AttachmentAsk is about one attachment.
type AttachmentAsk struct {
	Port    string `json:"port"`
	Confirm string `json:"confirm"` // of a move: a time; empty: as it was asked for
}

// Attachments lists the ports onto VLANs that this node has, and those that it wants.
func (d *Daemon) Attachments() []AttachmentStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []AttachmentStatus{}
	for _, w := range d.declarationsLocked() {
		out = append(out, d.attachmentLineLocked(w))
	}
	if d.contents == nil {
		return out
	}
	for _, a := range d.attachmentsLocked() {
		if !slices.ContainsFunc(out, func(o AttachmentStatus) bool { return o.Port == a.GetPort() }) {
			out = append(out, d.attachmentLineLocked(d.declarationOf(a)))
		}
	}
	return out
}

// declarationOf is an attachment of the state in the words of a declaration.
func (d *Daemon) declarationOf(a *controlv1.Attachment) Declaration {
	out := Declaration{
		Port: a.GetPort(), NIC: a.GetNic(), Bridge: a.GetBridge(), VLAN: int(a.GetVlan()), Native: a.GetNative(), Service: a.GetService(),
		Priority: a.GetPriority(), Preference: int(a.GetPreference()), MoveHost: a.GetMoveHost(),
	}
	if seg := d.contents.Segments[a.GetVni()]; seg != nil {
		out.Segment = seg.GetName()
	}
	if out.MoveHost {
		out.Confirm = a.GetConfirm().AsDuration().String()
	}
	return out
}

func (d *Daemon) attachmentLineLocked(w Declaration) AttachmentStatus {
	out := AttachmentStatus{Declaration: w, Origin: "command", State: "signed", Why: d.refused[w.Port]}
	signed := d.attachmentLocked(w.Port)
	if d.configured(w.Port) != nil {
		out.Origin = "config"
	}
	if signed != nil && !signed.GetDeclared() {
		out.Origin = "administrator"
	}
	to := device{w.NIC, w.Bridge}
	switch {
	case out.Why != "":
		out.State = "refused"
	case signed == nil:
		out.State, out.Why = "waits", "no controller has signed it yet"
		if d.client.Connected() {
			out.Why = "it is not in the signed state: if an administrator has removed it, `etherloom attachment add`, or a restart, asks for it anew"
		}
	default:
		out.Why = cmp.Or(d.problems[to.String()], d.ungrantedLocked(signed))
	}
	if t := d.trunks[to]; t != nil {
		out.Moved, _ = t.wire.Moved()
		if m := d.moves[w.NIC]; m != nil && m.Outcome == "" && !m.Until.IsZero() && out.Moved != "" {
			out.Until = &m.Until
		}
	}
	return out
}

// ungrantedLocked says that no grant names those behind an attachment, so that nothing passes; empty if one does.
func (d *Daemon) ungrantedLocked(a *controlv1.Attachment) string {
	behind := map[uint32]bool{a.GetId(): true}
	for id, m := range d.contents.Machines {
		if slices.Contains(m.GetAttachments(), a.GetId()) {
			behind[uint32(id)] = true
		}
	}
	named := func(ids []uint32) bool { return slices.ContainsFunc(ids, func(id uint32) bool { return behind[id] }) }
	for _, g := range d.contents.Grants {
		if named(g.GetSources()) {
			return ""
		}
	}
	for _, g := range d.contents.Reaches {
		if named(g.GetSources()) || named(g.GetTargets()) {
			return ""
		}
	}
	name, segment := d.member.Name+"/"+a.GetPort(), d.contents.Segments[a.GetVni()].GetName()
	return fmt.Sprintf("nothing passes until an administrator grants it: `etherloom grant add --from attachment:%s --to segment:%s`", name, segment)
}

// AddAttachment declares a port onto a VLAN, or declares one of its own anew, and waits until that has come to something.
func (d *Daemon) AddAttachment(w Declaration) (*AttachmentStatus, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	before, err := d.declared, d.mayAddLocked(w)
	if err == nil {
		next := slices.DeleteFunc(slices.Clone(before), func(o Declaration) bool { return o.Port == w.Port })
		if err = d.saveDeclared(append(next, w)); err == nil {
			d.declared = append(next, w)
		}
	}
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	err = d.declareNow()
	d.mu.Lock()
	defer d.mu.Unlock()
	if text := d.refused[w.Port]; err == nil && text != "" {
		return nil, d.takeBackLocked(w.Port, text, before)
	}
	if err == nil {
		d.log.Info("attachment was declared by command", "port", w.Port)
		d.awaitLocked(func() bool {
			a := d.attachmentLocked(w.Port)
			return a != nil && same(d.declarationOf(a), w) && (d.trunks[deviceOf(a)] != nil || d.problems[deviceOf(a).String()] != "")
		})
	}
	out := d.attachmentLineLocked(w)
	return &out, nil
}

// takeBackLocked makes what is declared be what it was before a port was refused, of which nothing stays: whoever asked is told why.
func (d *Daemon) takeBackLocked(port, why string, before []Declaration) error {
	d.declared = before
	delete(d.refused, port)
	delete(d.waiting, port)
	d.problemLocked("attachment "+port, nil)
	d.declareSoon()
	return errors.Join(errors.New(why), d.saveDeclared(before))
}

// same reports whether a port is as it is declared.
func same(a, b Declaration) bool {
	a.Confirm, b.Confirm = "", ""
	return a == b
}

// mayAddLocked refuses what cannot be, before anybody is asked.
func (d *Daemon) mayAddLocked(w Declaration) error {
	if d.configured(w.Port) != nil {
		return fmt.Errorf("port %s is declared in the configuration: change it there, and start the daemon again", w.Port)
	}
	if a := d.attachmentLocked(w.Port); a != nil && !a.GetDeclared() {
		return fmt.Errorf("port %s was made by an administrator of the network: choose another name, or have it changed with `etherloom attachment set %s/%s`",
			w.Port, d.member.Name, w.Port)
	}
	if d.trunks[device{w.NIC, w.Bridge}] != nil {
		return nil
	}
	return bridge.CanTake(bridge.WireConfig{NIC: w.NIC, Bridge: w.Bridge, Move: w.MoveHost})
}

// declareNow tells the controllers what is declared. Without one it is told later, which is no error.
func (d *Daemon) declareNow() error {
	if !d.client.Connected() {
		d.declareSoon()
		return errNoController
	}
	err := d.tellControllers(d.ctx)
	d.tellRefusals(err)
	if err != nil {
		d.declareSoon()
	}
	return err
}

// awaitLocked waits a little for the state to be something, and gives the lock away meanwhile.
func (d *Daemon) awaitLocked(ok func() bool) {
	const most, step = 5 * time.Second, 20 * time.Millisecond
	for end := time.Now().Add(most); !ok() && time.Now().Before(end) && d.ctx.Err() == nil; {
		d.mu.Unlock()
		time.Sleep(step)
		d.mu.Lock()
	}
}

// RemoveAttachment takes a port away that was added by command: at once here, and from the network as soon as a controller hears of it.
func (d *Daemon) RemoveAttachment(r AttachmentAsk) (*AttachmentStatus, error) {
	d.mu.Lock()
	i := slices.IndexFunc(d.declared, func(o Declaration) bool { return o.Port == r.Port })
	err := d.mayRemoveLocked(r.Port, i >= 0)
	var out AttachmentStatus
	if err == nil {
		out = d.attachmentLineLocked(d.declared[i])
		next := slices.Delete(slices.Clone(d.declared), i, i+1)
		if err = d.saveDeclared(next); err == nil {
			d.declared = next
		}
	}
	if err == nil && d.contents != nil {
		d.applyLocked(time.Now())
	}
	d.mu.Unlock()
	if err != nil {
		return nil, err
	}
	d.log.Info("attachment was removed by command", "port", r.Port)
	out.State, out.Why, out.Moved, out.Until = "removed", "", "", nil
	if err := d.declareNow(); err != nil {
		out.Why = "the network keeps it until a controller hears of this: " + err.Error()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if text := d.refused[r.Port]; text != "" {
		out.Why = text
	}
	return &out, nil
}

func (d *Daemon) mayRemoveLocked(port string, declared bool) error {
	switch {
	case declared:
		return nil
	case d.configured(port) != nil:
		return fmt.Errorf("port %s is declared in the configuration: take it out there, and start the daemon again", port)
	case d.attachmentLocked(port) != nil:
		return fmt.Errorf("port %s was made by an administrator of the network: `etherloom attachment remove %s/%s`, with his credential, removes it",
			port, d.member.Name, port)
	}
	return noAttachment(port)
}

func noAttachment(port string) error {
	return fmt.Errorf("this node has no attachment %q: `etherloom attachment list` shows those there are", port)
}

// ConfirmAttachment leaves the host moved.
func (d *Daemon) ConfirmAttachment(r AttachmentAsk) (*AttachmentStatus, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, m, err := d.moveOfLocked(r.Port)
	if err != nil {
		return nil, err
	}
	if m.Outcome == moveTakenBack {
		return nil, fmt.Errorf("what this host had on %s is there again, because nobody has confirmed in time: `etherloom attachment move %s` moves it again", a.GetNic(), r.Port)
	}
	if m.Outcome == "" {
		m.Outcome = moveConfirmed
		d.saveMovesLocked()
		d.log.Info("the host's move was confirmed by command", "nic", a.GetNic(), "port", r.Port)
		d.scheduleMovesLocked(time.Now())
	}
	out := d.attachmentLineLocked(d.declarationOf(a))
	return &out, nil
}

// MoveAttachment moves the host once more, after a move was taken back.
func (d *Daemon) MoveAttachment(r AttachmentAsk) (*AttachmentStatus, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	a, m, err := d.moveOfLocked(r.Port)
	if err != nil {
		return nil, err
	}
	if m.Outcome != moveTakenBack {
		return nil, fmt.Errorf("what this host has on %s is moved already: `etherloom attachment list` shows until when that is to be confirmed", a.GetNic())
	}
	again := hostMove{Port: r.Port, Asked: m.Asked, Confirm: a.GetConfirm().AsDuration()}
	if r.Confirm != "" {
		if again.Confirm, err = time.ParseDuration(r.Confirm); err != nil || again.Confirm < 0 {
			return nil, fmt.Errorf("confirm is %q, expected a time such as 60s, or 0", r.Confirm)
		}
	}
	*m = again
	d.applyTrunksLocked()
	d.setUnderlayLocked()
	out := d.attachmentLineLocked(d.declarationOf(a))
	return &out, nil
}

// moveOfLocked is what became of the move that an attachment has asked for.
func (d *Daemon) moveOfLocked(port string) (*controlv1.Attachment, *hostMove, error) {
	a := d.attachmentLocked(port)
	if a == nil {
		return nil, nil, noAttachment(port)
	}
	m := d.moves[a.GetNic()]
	if m == nil {
		return nil, nil, fmt.Errorf("attachment %s moves nothing of this host's, so there is nothing to confirm: `etherloom attachment add %s ... --move-host` asks for it", port, port)
	}
	return a, m, nil
}

func (d *Daemon) localAttachments(mux *http.ServeMux) {
	mux.HandleFunc("POST /attachment/add", answering(d.AddAttachment))
	mux.HandleFunc("POST /attachment/remove", answering(d.RemoveAttachment))
	mux.HandleFunc("POST /attachment/confirm", answering(d.ConfirmAttachment))
	mux.HandleFunc("POST /attachment/move", answering(d.MoveAttachment))
}

// AddAttachment declares a port onto a VLAN.
func (l *Local) AddAttachment(ctx context.Context, w Declaration) (out *AttachmentStatus, err error) {
	err = l.do(ctx, http.MethodPost, "attachment/add", w, &out)
	return out, err
}

// ChangeAttachment does one of these to an attachment: remove, confirm, move.
func (l *Local) ChangeAttachment(ctx context.Context, what string, r AttachmentAsk) (out *AttachmentStatus, err error) {
	err = l.do(ctx, http.MethodPost, "attachment/"+what, r, &out)
	return out, err
}
