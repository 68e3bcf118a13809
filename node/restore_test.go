package node

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"time"
)

// What cannot be changed back on a NIC after a crash is a problem, and is tried again; the daemon starts. Once a wire has the NIC the journal is that one's,
// and nobody touches it.
func TestJournalThatCannotBeRead(t *testing.T) {
	s := newSite(t)
	d := s.daemon()
	journal, about := d.journalOf("gone0"), "restore nic-gone0.json"
	write := func(path, text string) { must(t, os.WriteFile(path, []byte(text), 0o600)) }
	there := func(path string) bool {
		_, err := os.Stat(path)
		return !errors.Is(err, fs.ErrNotExist)
	}
	write(journal, "damaged")
	write(d.journalOf("other0"), `{"schema":1,"boot":"another","nic":"other0"}`)
	write(d.dir.Path("nicer.json"), "no journal")
	d.restoreNICs()
	if a := d.attempts[about]; a == nil || len(d.attempts) != 1 || !there(journal) || there(d.journalOf("other0")) || !there(d.dir.Path("nicer.json")) {
		t.Errorf("attempts %v, problems %v", d.attempts, d.problems)
	}
	wantError(t, errors.New(d.problems[about]), "is not changed back", journal, "remove what is not wanted, and the file")

	d.restoreAgainLocked(time.Now())
	if a := d.attempts[about]; a.wait != againFirst {
		t.Errorf("it is tried again before its time: %+v", a)
	}
	d.restoreAgainLocked(time.Now().Add(againFirst))
	if a := d.attempts[about]; a.wait != 2*againFirst || d.problems[about] == "" {
		t.Errorf("it is not tried again: %+v", a)
	}
	write(journal, `{"schema":1,"boot":"another","nic":"gone0"}`)
	d.trunks[device{nic: "gone0"}] = &trunk{}
	d.restoreAgainLocked(time.Now().Add(time.Hour))
	if !there(journal) || len(d.attempts) != 0 || d.problems[about] != "" {
		t.Errorf("beside a wire that has the NIC: the journal is there: %v; attempts %v, problems %v", there(journal), d.attempts, d.problems)
	}
	clear(d.trunks)
	d.failedLocked(about, errTest, time.Now())
	d.restoreAgainLocked(time.Now().Add(time.Hour))
	if there(journal) || len(d.attempts) != 0 {
		t.Errorf("when it can be read it is not heeded: attempts %v", d.attempts)
	}
}
