package fdb

import (
	"slices"

	"github.com/etherloom/etherloom/ether"
)

// journal knows in which order our own entries have changed last. They are its list themselves, so it needs no more room than
// they do, however often an address moves; of those that are gone it keeps the last graveyard.
type journal[P comparable] struct {
	version uint64   // of the last change
	head    entry[P] // sentinel of a ring, least recently changed first
	gone    []grave  // oldest first
	lost    uint64   // the version of the last one that was forgotten
}

type grave struct {
	mac     ether.MAC
	version uint64
}

const graveyard = 1024

func (j *journal[P]) init() { j.head.older, j.head.newer = &j.head, &j.head }

func (j *journal[P]) unlink(e *entry[P]) {
	e.older.newer, e.newer.older = e.newer, e.older
	e.older, e.newer = nil, nil
}

func (j *journal[P]) push(e *entry[P]) {
	if e.older != nil {
		j.unlink(e)
	}
	j.version++
	e.version = j.version
	e.older, e.newer = j.head.older, &j.head
	e.older.newer, j.head.older = e, e
}

// drop notes that an entry is ours no more, if it was.
func (j *journal[P]) drop(e *entry[P]) {
	if e.older == nil {
		return
	}
	j.unlink(e)
	j.version++
	if len(j.gone) == graveyard {
		// Half at once, so that it costs little for each.
		j.lost = j.gone[graveyard/2-1].version
		j.gone = append(j.gone[:0], j.gone[graveyard/2:]...)
	}
	j.gone = append(j.gone, grave{e.mac, j.version})
}

// noteLocked notes that an entry has changed.
func (t *Table[P]) noteLocked(e *entry[P]) {
	if t.own(e) {
		t.log.push(e)
	} else {
		t.log.drop(e)
	}
}

// Change is what has become of an address of our own.
type Change[P comparable] struct {
	MAC  ether.MAC
	Gone bool   // it is ours no more
	Port P      // not of one that is gone
	Seq  uint32 // the same
}

// Changes lists the addresses of our own, behind no announcer, that are new, have moved or are gone since it was asked last: since
// is what it has returned as next, at first 0. If all is set, that cannot be told any more, and the list is of all that are ours now.
func (t *Table[P]) Changes(since uint64) (list []Change[P], next uint64, all bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	j := &t.log
	all = since == 0 || since < j.lost || since > j.version
	for e := j.head.older; e != &j.head && (all || e.version > since); e = e.older {
		list = append(list, Change[P]{MAC: e.mac, Port: e.port, Seq: e.seq})
	}
	for i := len(j.gone) - 1; i >= 0 && !all && j.gone[i].version > since; i-- {
		g := &j.gone[i]
		if e := t.shard(g.mac).entries[g.mac]; e == nil || e.older == nil {
			list = append(list, Change[P]{MAC: g.mac, Gone: true})
		}
	}
	slices.Reverse(list)
	return list, j.version, all
}
