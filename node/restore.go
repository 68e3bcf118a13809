package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/etherloom/etherloom/bridge"
)

// This file changes back what a daemon that crashed has left on NICs. One that cannot be changed back, such as one whose journal is damaged, is a problem that
// an administrator is told of, and no reason for the others, and the segments, to be away.

const aboutRestoring = "restore "

// restoreNICs does so before anything else is done to NICs.
func (d *Daemon) restoreNICs() {
	d.crashedMoves()
	d.mu.Lock()
	defer d.mu.Unlock()
	files, err := os.ReadDir(d.dir.Path(""))
	d.problemLocked("restore", err)
	for _, f := range files {
		if strings.HasPrefix(f.Name(), "nic-") && strings.HasSuffix(f.Name(), ".json") { // as journalOf calls them
			d.restoreLocked(d.dir.Path(f.Name()), time.Now())
		}
	}
}

// restoreLocked changes back what a journal says, or has that be tried again.
func (d *Daemon) restoreLocked(journal string, now time.Time) {
	about := aboutRestoring + filepath.Base(journal)
	err := bridge.RestoreNIC(journal)
	if err == nil {
		delete(d.attempts, about)
		d.problemLocked(about, nil)
		return
	}
	d.failedLocked(about, err, now)
	d.problemLocked(about, fmt.Errorf("what a daemon that crashed has left on a NIC is not changed back: %w", err))
}

// restoreAgainLocked tries again what could not be changed back, unless a wire has the NIC by now: that has done so, and the journal is its own.
func (d *Daemon) restoreAgainLocked(now time.Time) {
	for about, a := range d.attempts {
		name, is := strings.CutPrefix(about, aboutRestoring)
		if !is {
			continue
		}
		journal := d.dir.Path(name)
		if d.journaledLocked(journal) {
			delete(d.attempts, about)
			d.problemLocked(about, nil)
		} else if !now.Before(a.next) {
			d.restoreLocked(journal, now)
		}
	}
}

// journaledLocked reports whether a journal is that of a wire that there is.
func (d *Daemon) journaledLocked(journal string) bool {
	for to := range d.trunks {
		if to.nic != "" && d.journalOf(to.nic) == journal {
			return true
		}
	}
	return false
}
