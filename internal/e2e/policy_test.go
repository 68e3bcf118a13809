package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etherloom/etherloom/internal/lab"
)

// document writes a policy document and returns its path.
func (r *rig) document(text string) string {
	r.Helper()
	file := filepath.Join(r.Dir(), "policy.yaml")
	r.ok(os.WriteFile(file, []byte(text), 0o600))
	return file
}

const (
	openPolicy = "grants:\n  - {from: node:a, to: segment:lan}\n  - {from: node:b, to: segment:lan}\n"
	itsTests   = "tests:\n  - {from: node:a, to: node:b, segment: lan, what: icmp, expect: allow}\n" +
		"  - {from: node:a, to: node:b, segment: dmz, what: icmp, expect: deny}\n"
)

// An administrator cuts his own path by a document that he does not live to confirm: it comes back by itself.
func TestPolicyTakenBack(t *testing.T) {
	r := newRig(t)
	a := r.site("a", lab.PortPreserving)
	b := r.site("b", lab.PortPreserving)
	r.ok(r.tried("segment", "add", "dmz"))
	r.ok(r.tried("policy", "apply", r.document(openPolicy+itsTests)))
	addr := r.addresses(a, b)
	r.pings(a.Host, addr[1], 10*time.Second)

	applied := time.Now()
	out, err := r.Admin(r.ctx, "policy", "apply", r.document("version: 1\ngrants: []\n"), "--confirm", "6s")
	r.ok(err)
	if !strings.Contains(out, "a to b on lan: everything") || !strings.Contains(out, "policy confirm") {
		t.Errorf("policy apply printed\n%s", out)
	}
	time.Sleep(time.Second)
	r.silent(a.Host, addr[1])
	if out, err := r.Admin(r.ctx, "grant", "add", "--from", "node:a", "--to", "segment:dmz"); err == nil || !strings.Contains(err.Error(), "policy undo") {
		t.Errorf("while a change waits: %s, %v", out, err)
	}
	r.pings(a.Host, addr[1], 10*time.Second)
	if took := time.Since(applied); took < 6*time.Second {
		t.Errorf("it came back after %v", took)
	}
	r.ok(r.tried("policy", "check"))

	// Confirmed, the same change stays.
	r.ok(r.tried("policy", "apply", r.document("version: 3\ngrants: []\n"), "--confirm", "6s"))
	r.ok(r.tried("policy", "confirm"))
	time.Sleep(7 * time.Second)
	r.silent(a.Host, addr[1])
}

// tried runs a command of which only the error counts.
func (r *rig) tried(args ...string) error {
	_, err := r.Admin(r.ctx, args...)
	return err
}

// A document whose tests fail changes nothing; one that was forced does not keep a controller from starting.
func TestPolicyTests(t *testing.T) {
	r := newRig(t)
	a := r.site("a", lab.PortPreserving)
	b := r.site("b", lab.PortPreserving)
	r.ok(r.tried("segment", "add", "dmz"))
	r.ok(r.tried("policy", "apply", r.document(openPolicy+itsTests)))
	addr := r.addresses(a, b)
	r.pings(a.Host, addr[1], 10*time.Second)
	before, err := r.Admin(r.ctx, "policy", "show")
	r.ok(err)

	broken := r.document("version: 1\ngrants: []\n" + itsTests)
	err = r.tried("policy", "apply", broken)
	if err == nil || !strings.Contains(err.Error(), "line 4: node:a to node:b on lan: icmp: expected allow, found a to b: denied") {
		t.Errorf("a document whose tests fail: %v", err)
	}
	if out, err := r.Admin(r.ctx, "policy", "check", broken); err == nil || !strings.Contains(out, "FAILED line 4: node:a to node:b") {
		t.Errorf("policy check: %v\n%s", err, out)
	}
	if err := r.tried("grant", "remove", "1"); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("a grant that a test needs: %v", err)
	}
	if after, err := r.Admin(r.ctx, "policy", "show"); err != nil || after != before {
		t.Errorf("after all that the policy is\n%s\nand was\n%s\n%v", after, before, err)
	}
	r.pings(a.Host, addr[1], 5*time.Second)

	r.ok(r.tried("policy", "apply", broken, "--force"))
	r.killController()
	r.killRelay()
	r.ok(r.StartController(r.ctx))
	log, err := r.ControllerProcess().Log()
	r.ok(err)
	if !strings.Contains(log, "tests of the policy fail") {
		t.Errorf("the controller's log does not say that tests fail:\n%s", log)
	}
	r.silent(a.Host, addr[1])
	r.ok(r.tried("policy", "apply", r.document("version: 2\n"+openPolicy+itsTests)))
	r.pings(a.Host, addr[1], 15*time.Second)
}
