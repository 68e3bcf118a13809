package bridge

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/etherloom/etherloom/ether"
)

// What a wire has changed on a NIC is as before when it is closed, and what others have there stays.
func TestCloseRestoresTheNIC(t *testing.T) {
	for name, prepare := range map[string][][]string{
		"untouched": nil,
		"down":      {{"ip", "link", "set", "lan0", "down"}},
		"promiscuous and with a clsact and filters of somebody's": {
			{"ip", "link", "set", "lan0", "promisc", "on"},
			{"tc", "qdisc", "add", "dev", "lan0", "clsact"},
			{"tc", "filter", "add", "dev", "lan0", "ingress", "protocol", "all", "pref", "65535", "u32", "match", "u32", "0xffffffff", "0xffffffff", "at", "0", "flowid", "1:1"},
			{"tc", "filter", "add", "dev", "lan0", "ingress", "protocol", "ip", "pref", "7", "u32", "match", "ip", "dst", "192.0.2.1", "flowid", "4c6f:6f6d"},
			{"tc", "filter", "add", "dev", "lan0", "egress", "protocol", "ip", "pref", "7", "u32", "match", "ip", "dst", "192.0.2.1", "flowid", "1:1"},
		},
		"with somebody's ingress": {
			{"tc", "qdisc", "add", "dev", "lan0", "ingress"},
			{"tc", "filter", "add", "dev", "lan0", "ingress", "protocol", "ip", "pref", "7", "u32", "match", "ip", "dst", "192.0.2.1", "flowid", "1:1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			for _, args := range prepare {
				s.run(t, args...)
			}
			before := s.state(t, "lan0")
			w := s.wire(t)
			in, far, frame := read(w), newFar(t, s.cable.B), long(t, "8100 000a abcd", 64)
			far.send(t, frame, ether.Offload{})
			if err := in.sees(seen{frame, ether.Offload{}}); err != nil {
				t.Error(err)
			}
			if taken := s.state(t, "lan0"); taken == before {
				t.Error("a wire changes nothing, so that this proves nothing")
			}
			text, err := os.ReadFile(s.journal)
			if err != nil || !strings.Contains(string(text), `"nic":"lan0"`) {
				t.Errorf("journal: %s, %v", text, err)
			}
			for range 2 { // closing twice is closing once
				if err := w.Close(); err != nil {
					t.Error(err)
				}
			}
			if after := s.state(t, "lan0"); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if _, err := os.Stat(s.journal); err == nil {
				t.Error("the journal is still there")
			}
		})
	}
}

// A clsact that the wire has added stays if somebody uses it meanwhile.
func TestCloseLeavesWhatOthersAdded(t *testing.T) {
	for _, side := range []string{"ingress", "egress"} {
		s := newSite(t)
		w := s.wire(t)
		s.run(t, "tc", "filter", "add", "dev", "lan0", side, "protocol", "ip", "pref", "7", "u32", "match", "ip", "dst", "192.0.2.1", "flowid", "1:1")
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		out, err := s.gate.Run(ctx, "tc", "filter", "show", "dev", "lan0", side)
		if err != nil || !strings.Contains(out, "pref 7 u32") || strings.Contains(out, "mirred") {
			t.Errorf("%s: %s, %v", side, out, err)
		}
	}
}

// TestMain is also the process that TestCrash kills.
func TestMain(m *testing.M) {
	if journal := os.Getenv("LOOM_TEST_JOURNAL"); journal != "" {
		if _, err := NewWire(WireConfig{NIC: "lan0", Journal: journal}); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("joined")
		time.Sleep(time.Minute) // it is killed before
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// crash takes the NIC in a process that is killed.
func (s *site) crash(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := s.gate.Command(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "LOOM_TEST_JOURNAL="+s.journal)
	child, err := cmd.StartLogged()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.WaitLog(ctx, "joined"); err != nil {
		text, _ := child.Log()
		t.Fatal(err, text)
	}
	// While it lives, the NIC is its own.
	on(t, s.gate, func() error {
		if err := RestoreNIC(s.journal); err == nil || !strings.Contains(err.Error(), "is joined to wire0 already") {
			t.Errorf("RestoreNIC beside a process that has the NIC: %v", err)
		}
		return nil
	})
	if err := child.Signal(os.Kill); err != nil {
		t.Fatal(err)
	}
	<-child.Done()
	if state := s.state(t, "lan0"); !strings.Contains(state, "mirred") {
		t.Fatal("the process has left nothing, so that this proves nothing")
	}
}

// After kill -9 the NIC is as it was once the journal has been read: by the next wire, or by RestoreNIC.
func TestCrash(t *testing.T) {
	s := newSite(t)
	s.run(t, "ip", "link", "set", "lan0", "down")
	before := s.state(t, "lan0")
	same := func(after string) {
		t.Helper()
		if state := s.state(t, "lan0"); state != before {
			t.Errorf("before:\n%s\nafter %s:\n%s", before, after, state)
		}
	}
	s.crash(t)
	on(t, s.gate, func() error { return RestoreNIC(s.journal) })
	same("RestoreNIC")
	on(t, s.gate, func() error { return RestoreNIC(s.journal) }) // there is nothing to do

	s.crash(t)
	w := s.wire(t)
	in, far, frame := read(w), newFar(t, s.cable.B), long(t, "8100 000a abcd", 64)
	far.send(t, frame, ether.Offload{})
	if err := in.sees(seen{frame, ether.Offload{}}); err != nil {
		t.Error("after a crash:", err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	same("the next wire")

	// Without the journal the redirection is known by its marks, and replaced.
	s.crash(t)
	if err := os.Remove(s.journal); err != nil {
		t.Fatal(err)
	}
	w = s.wire(t)
	in = read(w)
	far.send(t, frame, ether.Offload{})
	if err := in.sees(seen{frame, ether.Offload{}}); err != nil {
		t.Error("after a crash whose journal is lost:", err)
	}
}

// What a journal says is not done to another device, or after a reboot, or if it is not understood.
func TestJournalOfAnother(t *testing.T) {
	s := newSite(t)
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	var index int
	var mac string
	on(t, s.gate, func() error {
		link, err := netlink.LinkByName("lan0")
		if err == nil {
			index, mac = link.Attrs().Index, link.Attrs().HardwareAddr.String()
		}
		return err
	})
	right := fmt.Sprintf(`{"schema":1,"boot":%q,"nic":"lan0","index":%d,"mac":%q,"down":true}`, boot, index, mac)
	for name, c := range map[string]struct {
		old, new string
		want     string // in the error
		down     bool
	}{
		"right":            {"", "", "", true},
		"another boot":     {boot, "b", "", false},
		"another device":   {mac, "02:00:00:00:00:99", "", false},
		"a device gone":    {fmt.Sprintf(`"index":%d`, index), `"index":4711`, "", false},
		"another schema":   {`"schema":1`, `"schema":2`, "schema 2, want 1", false},
		"not JSON":         {`{`, `[`, "remove what is not wanted, and the file", false},
		"an empty journal": {right, "", "remove what is not wanted, and the file", false},
	} {
		s.run(t, "ip", "link", "set", "lan0", "up")
		text := right
		if c.old != "" {
			text = strings.Replace(right, c.old, c.new, 1)
		}
		if err := os.WriteFile(s.journal, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		on(t, s.gate, func() error {
			err := RestoreNIC(s.journal)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s: %v; want %q", name, err, c.want)
			}
			link, err := netlink.LinkByName("lan0")
			if err == nil && (link.Attrs().RawFlags&1 == 0) != c.down {
				t.Errorf("%s: down is %v", name, !c.down)
			}
			return err
		})
		_, err := os.Stat(s.journal)
		if (err == nil) != (c.want != "") {
			t.Errorf("%s: the journal: %v", name, err)
		}
	}
}

// A wire whose journal cannot be written changes nothing.
func TestWireNeedsItsJournal(t *testing.T) {
	s := newSite(t)
	before := s.state(t, "lan0")
	on(t, s.gate, func() error {
		for journal, want := range map[string]string{"": "needs a journal", filepath.Join(t.TempDir(), "none", "lan0.json"): "no such file"} {
			cfg := s.config()
			cfg.Journal = journal
			if _, err := NewWire(cfg); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("with journal %q: %v", journal, err)
			}
		}
		if _, err := netlink.LinkByName("wire0"); err == nil {
			t.Error("a TAP is left")
		}
		return nil
	})
	if after := s.state(t, "lan0"); !bytes.Equal([]byte(before), []byte(after)) {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// A NIC that has got another MAC meanwhile, as a bond does that fails over, is given back all the same: by Close, and after a crash.
func TestOtherMACIsGivenBack(t *testing.T) {
	const other = "02:00:5e:00:53:99"
	for name, crash := range map[string]bool{"closed": false, "crashed": true} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			before := strings.ReplaceAll(s.state(t, "lan0"), s.mac(t, "lan0"), other)
			if crash {
				s.crash(t)
			}
			var w *Wire
			if !crash {
				w = s.wire(t)
			}
			s.run(t, "ip", "link", "set", "lan0", "address", other)
			if crash {
				on(t, s.gate, func() error { return RestoreNIC(s.journal) })
			} else if err := w.Close(); err != nil {
				t.Error(err)
			}
			if after := s.state(t, "lan0"); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
			if _, err := os.Stat(s.journal); err == nil {
				t.Error("the journal is still there")
			}
		})
	}
}

// A NIC that was down when it was taken, and that the host uses by now, stays up.
func TestUsedNICStaysUp(t *testing.T) {
	s := newSite(t)
	s.run(t, "ip", "link", "set", "lan0", "down")
	w := s.wire(t)
	s.run(t, "ip", "addr", "add", "198.51.100.1/24", "dev", "lan0")
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if state := s.state(t, "lan0"); !strings.Contains(state, ",UP") || strings.Contains(state, "clsact") {
		t.Errorf("it is\n%s", state)
	}
	if routes := s.say(t, "ip route"); !strings.Contains(routes, "198.51.100.0/24 dev lan0") {
		t.Errorf("its route is gone: %s", routes)
	}
}
