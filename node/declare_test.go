package node

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/etherloom/etherloom/control/controlv1"
	"github.com/etherloom/etherloom/control/state"
	"github.com/etherloom/etherloom/identity"
)

// port is a port onto a VLAN as the controllers sign it.
func signedPort(id uint32, name string, edit func(*controlv1.Attachment)) *controlv1.Resource {
	a := &controlv1.Attachment{Id: id, Vni: 1, Port: name, Nic: "no-such-nic", Vlan: 10, ProbeKey: make([]byte, 32), Declared: true}
	edit(a)
	return &controlv1.Resource{Kind: &controlv1.Resource_Attachment{Attachment: a}}
}

func as(*controlv1.Attachment) {}

// TestDeclarationCheck: what is wrong with a declaration is said before anybody is asked.
func TestDeclarationCheck(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*Declaration)
		want string // "": it is good
	}{
		"as it is":         {func(*Declaration) {}, ""},
		"on a bridge":      {func(a *Declaration) { a.NIC, a.Bridge = "", "br0" }, ""},
		"VLAN 4094":        {func(a *Declaration) { a.VLAN = 4094 }, ""},
		"confirm 0":        {func(a *Declaration) { a.Confirm = "0" }, ""},
		"no port":          {func(a *Declaration) { a.Port = "" }, "port:"},
		"a node's port":    {func(a *Declaration) { a.Port = "gw/lan" }, "port:"},
		"no segment":       {func(a *Declaration) { a.Segment = "" }, "of which segment"},
		"nothing":          {func(a *Declaration) { a.NIC = "" }, "--nic eth1), or on which bridge"},
		"both":             {func(a *Declaration) { a.Bridge = "br0" }, "one of the two"},
		"VLAN 4095":        {func(a *Declaration) { a.VLAN = 4095 }, "VLAN is 4095"},
		"VLAN -1":          {func(a *Declaration) { a.VLAN = -1 }, "VLAN is -1"},
		"preference":       {func(a *Declaration) { a.Preference = 65536 }, "preference is 65536"},
		"confirm, no time": {func(a *Declaration) { a.Confirm = "soon" }, `confirm is "soon"`},
		"confirm, before":  {func(a *Declaration) { a.Confirm = "-1s" }, `confirm is "-1s"`},
	} {
		a := Declaration{Port: "lan", Segment: "lan", NIC: "eth1", VLAN: 10}
		c.edit(&a)
		cfg := Defaults()
		cfg.Attachments = []Declaration{a}
		if err := cfg.Check(); (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "attachments: ")) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
	cfg := Defaults()
	cfg.Attachments = []Declaration{{Port: "lan", Segment: "lan", NIC: "eth1"}, {Port: "lan", Segment: "dmz", NIC: "eth2"}}
	wantError(t, cfg.Check(), "port lan is there twice")
	for text, want := range map[string]time.Duration{"": time.Minute, "0": 0, "90s": 90 * time.Second} {
		a := Declaration{Confirm: text}
		if got := a.proto().GetConfirm().AsDuration(); got != want {
			t.Errorf("confirm %q is %v", text, got)
		}
	}
}

// TestDeclaredIsTaken: what this node has declared is taken up as long as it declares it; what an administrator has made is, always.
func TestDeclaredIsTaken(t *testing.T) {
	s := newSite(t)
	must(t, writeJSON(s.dir.Path("attachments.json"), declaredFile{Schema, []Declaration{{Port: "mine", Segment: "lan", NIC: "eth1"}, {Port: "later", Segment: "lan", NIC: "eth1"}}}))
	d := s.daemon()
	must(t, d.take(s.delta(told{version: 1, resources: []*controlv1.Resource{
		netSettings(), self(),
		{Kind: &controlv1.Resource_Segment{Segment: &controlv1.Segment{Vni: 1, Name: "lan", Mtu: 1500}}},
		signedPort(20, "mine", as), signedPort(21, "old", as), signedPort(22, "theirs", func(a *controlv1.Attachment) { a.Declared = false }),
	}})))
	var got []string
	for _, a := range d.Attachments() {
		got = append(got, a.Port+" "+a.Origin+" "+a.State)
	}
	if text := strings.Join(got, ", "); text != "mine command signed, later command waits, theirs administrator signed" {
		t.Errorf("attachments are %s", text)
	}
	select {
	case <-d.undeclared:
	default:
		t.Error("nobody tells the controllers that one is not declared any more")
	}
	d.declareOnce(t.Context())
	if text := d.problems["attachment later"]; !strings.Contains(text, "waits for a controller") || d.problems["attachment mine"] != "" {
		t.Errorf("problems are %v", d.problems)
	}
	_, err := d.RemoveAttachment(AttachmentAsk{Port: "theirs"})
	wantError(t, err, "was made by an administrator")
	_, err = d.RemoveAttachment(AttachmentAsk{Port: "old"})
	wantError(t, err, "has no attachment", "`etherloom attachment list`")
	out, err := d.RemoveAttachment(AttachmentAsk{Port: "mine"})
	must(t, err)
	if out.State != "removed" || !strings.Contains(out.Why, "until a controller hears of this") || len(d.Attachments()) != 2 {
		t.Errorf("removed is %+v; left are %+v", out, d.Attachments())
	}
	again := s.daemon()
	if len(again.declared) != 1 || again.declared[0].Port != "later" {
		t.Errorf("kept is %+v", again.declared)
	}
	_, err = d.AddAttachment(Declaration{Port: "theirs", Segment: "lan", NIC: "eth1"})
	wantError(t, err, "was made by an administrator", "attachment set self/theirs")
	_, err = d.AddAttachment(Declaration{Port: "new", Segment: "lan", NIC: "no-such-nic"})
	wantError(t, err, "there is no network device no-such-nic")
	d.cfg.Attachments = []Declaration{{Port: "conf", Segment: "lan", NIC: "eth1"}}
	_, err = d.AddAttachment(Declaration{Port: "conf", Segment: "lan", NIC: "eth1"})
	wantError(t, err, "declared in the configuration")
	_, err = d.RemoveAttachment(AttachmentAsk{Port: "conf"})
	wantError(t, err, "declared in the configuration")
	if len(d.declared) != 1 {
		t.Errorf("after what was refused there are %+v", d.declared)
	}
}

// TestRefusalsAreTold: what was refused is a problem until it is not any more.
func TestRefusalsAreTold(t *testing.T) {
	d := newSite(t).daemon()
	d.declared = []Declaration{{Port: "a", Segment: "lan", NIC: "eth1"}, {Port: "b", Segment: "lan", NIC: "eth1"}}
	d.refused = map[string]string{"a": "no such segment"}
	d.tellRefusals(nil)
	if d.problems["attachment a"] != "no such segment" || d.problems["attachment b"] != "" {
		t.Errorf("problems are %v", d.problems)
	}
	d.tellRefusals(errNoController)
	if d.problems["attachment a"] != "no such segment" || !strings.Contains(d.problems["attachment b"], "waits") {
		t.Errorf("problems are %v", d.problems)
	}
	d.refused = nil
	d.tellRefusals(nil)
	if d.problems["attachment a"] != "" || d.problems["attachment b"] != "" {
		t.Errorf("problems are %v", d.problems)
	}
}

// TestRefusedCommandLeavesNothing: what was refused to a command is no problem afterwards, and what was declared before is declared again.
func TestRefusedCommandLeavesNothing(t *testing.T) {
	s := newSite(t)
	d := s.daemon()
	before := []Declaration{{Port: "b", Segment: "lan", NIC: "eth1"}}
	d.declared = append(slices.Clone(before), Declaration{Port: "a", Segment: "ofice", NIC: "eth1"})
	d.refused = map[string]string{"a": "no such segment", "b": "its own"}
	d.tellRefusals(nil)
	wantError(t, d.takeBackLocked("a", "no such segment", before), "no such segment")
	if d.problems["attachment a"] != "" || d.problems["attachment b"] != "its own" || d.refused["a"] != "" || len(d.Attachments()) != 1 {
		t.Errorf("problems are %v, attachments %+v", d.problems, d.Attachments())
	}
	if again := s.daemon(); !slices.Equal(again.declared, before) {
		t.Errorf("kept is %+v", again.declared)
	}
	d.declared, d.refused = nil, nil
	if !d.hasDeclared() {
		t.Error("nobody looks after the problem that is left of a declaration")
	}
}

// TestUngrantedIsTold: whoever lists a gateway's attachments sees by which ones nothing passes, since no grant names who is there.
func TestUngrantedIsTold(t *testing.T) {
	a := &controlv1.Attachment{Id: 20, Vni: 1, Port: "site"}
	for name, c := range map[string]struct {
		edit    func(*state.Contents)
		granted bool
	}{
		"no grant":        {func(*state.Contents) {}, false},
		"another's":       {func(c *state.Contents) { c.Grants[1] = &controlv1.Grant{Sources: []uint32{21, 31}} }, false},
		"those behind it": {func(c *state.Contents) { c.Grants[1] = &controlv1.Grant{Sources: []uint32{20}} }, true},
		"its host":        {func(c *state.Contents) { c.Reaches[1] = &controlv1.Reach{Sources: []uint32{21}, Targets: []uint32{30}} }, true},
		"with limits":     {func(c *state.Contents) { c.Reaches[1] = &controlv1.Reach{Sources: []uint32{20}, Segment: true} }, true},
	} {
		d := newSite(t).daemon()
		d.contents = &state.Contents{
			Segments: map[uint32]*controlv1.Segment{1: {Vni: 1, Name: "office"}}, Grants: map[uint32]*controlv1.Grant{}, Reaches: map[uint32]*controlv1.Reach{},
			Machines: map[identity.ID]*controlv1.Machine{30: {Id: 30, Attachments: []uint32{20}}, 31: {Id: 31, Attachments: []uint32{22}}},
		}
		c.edit(d.contents)
		got := d.ungrantedLocked(a)
		if (got == "") != c.granted || got != "" && !strings.Contains(got, "--from attachment:self/site --to segment:office") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// step is what happens to a move: an attachment that asks for it, some time that passes, or something else.
type step struct {
	ask     uint64 // number of the request; 0: nobody asks any more
	passes  time.Duration
	does    func(t *testing.T, d *Daemon, now time.Time)
	may     bool
	outcome string // then; "none": there is no record
}

// TestMayMove: the host is moved once for each request, and stays so only if somebody says in time that it is reached.
func TestMayMove(t *testing.T) {
	moved := func(_ *testing.T, d *Daemon, now time.Time) { d.movingLocked("eth0", now) }
	confirmed := func(_ *testing.T, d *Daemon, _ time.Time) { d.moves["eth0"].Outcome = moveConfirmed }
	restart := func(t *testing.T, d *Daemon, _ time.Time) {
		d.moves = nil
		must(t, d.loadMoves())
	}
	crash := func(t *testing.T, d *Daemon, now time.Time) {
		must(t, os.WriteFile(d.journalOf("eth0"), nil, 0o600))
		restart(t, d, now)
		d.crashedMoves()
		must(t, os.Remove(d.journalOf("eth0")))
	}
	for name, steps := range map[string][]step{
		"nobody asks":           {{may: false, outcome: "none"}},
		"confirmed":             {{ask: 1, may: true}, {ask: 1, does: moved, may: true}, {ask: 1, does: confirmed, may: true, outcome: moveConfirmed}, {ask: 1, passes: time.Hour, may: true, outcome: moveConfirmed}},
		"not confirmed":         {{ask: 1, may: true}, {ask: 1, does: moved, may: true}, {ask: 1, passes: 59 * time.Second, may: true}, {ask: 1, passes: time.Second, outcome: moveTakenBack}, {ask: 1, passes: time.Hour, outcome: moveTakenBack}},
		"asked for anew":        {{ask: 1, may: true}, {ask: 1, does: moved, may: true}, {ask: 1, passes: time.Minute, outcome: moveTakenBack}, {ask: 2, may: true}},
		"never moved":           {{ask: 1, may: true}, {ask: 1, passes: time.Hour, may: true}},
		"restarted in time":     {{ask: 1, may: true}, {ask: 1, does: moved, may: true}, {ask: 1, does: restart, passes: 30 * time.Second, may: true}, {ask: 1, passes: 30 * time.Second, outcome: moveTakenBack}},
		"restarted too late":    {{ask: 1, may: true}, {ask: 1, does: moved, may: true}, {ask: 1, does: restart, passes: time.Minute, outcome: moveTakenBack}},
		"killed":                {{ask: 1, may: true}, {ask: 1, does: moved, may: true}, {ask: 1, does: crash, outcome: moveTakenBack}},
		"killed, but confirmed": {{ask: 1, may: true}, {ask: 1, does: moved, may: true}, {ask: 1, does: confirmed, may: true, outcome: moveConfirmed}, {ask: 2, may: true, outcome: moveConfirmed}},
		"withdrawn":             {{ask: 1, may: true}, {ask: 1, does: moved, may: true}, {may: false, outcome: "none"}, {ask: 1, may: true}},
	} {
		t.Run(name, func(t *testing.T) {
			d := newSite(t).daemon()
			now := time.Now()
			for i, s := range steps {
				if s.does != nil {
					s.does(t, d, now)
				}
				now = now.Add(s.passes)
				a := &controlv1.Attachment{Port: "lan", Nic: "eth0", MoveHost: s.ask > 0, Asked: s.ask, Confirm: durationpb.New(time.Minute)}
				may, err := d.mayMoveLocked("eth0", []*controlv1.Attachment{a}, now)
				outcome := "none"
				if m := d.moves["eth0"]; m != nil {
					outcome = m.Outcome
				}
				if may != s.may || outcome != s.outcome || (err != nil) != (s.outcome == moveTakenBack) {
					t.Errorf("step %d: may %v, %q, %v; want %v, %q", i, may, outcome, err, s.may, s.outcome)
				}
			}
		})
	}
}

// TestMoveNeedsNoConfirmation where an administrator has given one already, or wants none.
func TestMoveNeedsNoConfirmation(t *testing.T) {
	for name, edit := range map[string]func(*controlv1.Attachment){
		"confirmed by the network": func(a *controlv1.Attachment) { a.Confirmed = true },
		"confirm 0":                func(a *controlv1.Attachment) { a.Confirm = durationpb.New(0) },
	} {
		d := newSite(t).daemon()
		a := &controlv1.Attachment{Port: "lan", Nic: "eth0", MoveHost: true, Asked: 1, Confirm: durationpb.New(time.Minute)}
		edit(a)
		if may, err := d.mayMoveLocked("eth0", []*controlv1.Attachment{a}, time.Now()); !may || err != nil || d.moves["eth0"].Outcome != moveConfirmed || d.movingLocked("eth0", time.Now()) {
			t.Errorf("%s: %v, %v, %+v", name, may, err, d.moves["eth0"])
		}
	}
}

// TestMoveCommands: a move is confirmed and repeated by command only when that means something.
func TestMoveCommands(t *testing.T) {
	s := newSite(t)
	d := s.daemon()
	must(t, d.take(s.delta(told{version: 1, resources: []*controlv1.Resource{
		netSettings(), self(),
		{Kind: &controlv1.Resource_Segment{Segment: &controlv1.Segment{Vni: 1, Name: "lan", Mtu: 1500}}},
		signedPort(20, "lan", func(a *controlv1.Attachment) {
			a.Declared, a.MoveHost, a.Confirm = false, true, durationpb.New(time.Minute)
		}),
		signedPort(21, "plain", func(a *controlv1.Attachment) { a.Declared, a.Nic = false, "another-nic" }),
	}})))
	_, err := d.ConfirmAttachment(AttachmentAsk{Port: "nowhere"})
	wantError(t, err, "has no attachment")
	_, err = d.ConfirmAttachment(AttachmentAsk{Port: "plain"})
	wantError(t, err, "moves nothing of this host's")
	d.moves["no-such-nic"] = &hostMove{Port: "lan", Confirm: time.Minute, Until: time.Now().Add(time.Minute)}
	_, err = d.MoveAttachment(AttachmentAsk{Port: "lan"})
	wantError(t, err, "is moved already")
	_, err = d.ConfirmAttachment(AttachmentAsk{Port: "lan"})
	must(t, err)
	if d.moves["no-such-nic"].Outcome != moveConfirmed {
		t.Errorf("confirmed is %+v", d.moves["no-such-nic"])
	}
	d.moves["no-such-nic"].Outcome = moveTakenBack
	_, err = d.ConfirmAttachment(AttachmentAsk{Port: "lan"})
	wantError(t, err, "nobody has confirmed in time", "`etherloom attachment move lan`")
	_, err = d.MoveAttachment(AttachmentAsk{Port: "lan", Confirm: "soon"})
	wantError(t, err, `confirm is "soon"`)
	_, err = d.MoveAttachment(AttachmentAsk{Port: "lan", Confirm: "5m"})
	must(t, err)
	if m := d.moves["no-such-nic"]; m.Outcome != "" || m.Confirm != 5*time.Minute {
		t.Errorf("moved again is %+v", m)
	}
}

// TestOneVLAN: on a bridge that does not filter by VLAN, the first VLAN alone is attached, and the others are named.
func TestOneVLAN(t *testing.T) {
	list := []*controlv1.Attachment{{Port: "a", Vlan: 10}, {Port: "b", Vlan: 20}, {Port: "c", Vlan: 10, Service: true}, {Port: "d", Vlan: 10}}
	one, err := oneVLAN("eth0", list)
	if len(one) != 2 || one[0].GetPort() != "a" || one[1].GetPort() != "d" {
		t.Errorf("attached are %v", one)
	}
	wantError(t, err, "port b is not attached", "port c is not attached", "CONFIG_BRIDGE_VLAN_FILTERING")
	if one, err := oneVLAN("eth0", list[:1]); len(one) != 1 || err != nil {
		t.Errorf("of one: %v, %v", one, err)
	}
}

// TestKeptOfAttachments: a file that cannot be read is said to be so, and not replaced.
func TestKeptOfAttachments(t *testing.T) {
	for name, text := range map[string]string{"attachments.json": `{"schema":7}`, "moves.json": `{"schema":`} {
		s := newSite(t)
		must(t, os.WriteFile(s.dir.Path(name), []byte(text), 0o600))
		_, err := New(config(), s.dir, quiet())
		wantError(t, err, name, "move it away")
		if got, _ := os.ReadFile(s.dir.Path(name)); string(got) != text {
			t.Errorf("%s became %s", name, got)
		}
	}
	if !slices.Contains(strings.Fields(fmt.Sprint(Defaults().Attachments)), "[]") {
		t.Errorf("by default there are %v", Defaults().Attachments)
	}
}
