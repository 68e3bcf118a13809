package audit

import (
	"bytes"
	"fmt"

	"github.com/etherloom/etherloom/control/controlv1"
)

// Damage is what was done to a log.
type Damage string

// The kinds of damage.
const (
	Changed   Damage = "was changed"
	Removed   Damage = "was removed"
	Reordered Damage = "is not in its place"
	Cut       Damage = "and all that followed were cut off"
	Added     Damage = "is beyond the head"
)

// BrokenError says which entry of a log is not what was written.
type BrokenError struct {
	Sequence uint64
	Damage   Damage
}

func (e *BrokenError) Error() string {
	return fmt.Sprintf("audit log is broken: entry %d %s", e.Sequence, e.Damage)
}

// Verify checks a whole log, from entry 1 to the head, as it was read. The error is a *BrokenError that names the
// first entry that is wrong.
func Verify(entries []*controlv1.AuditEntry, head Head) error {
	var last Head
	for i, e := range entries {
		want := last.Sequence + 1
		if e.GetSequence() != want {
			return misplaced(entries[i:], want)
		}
		if !holds(e) {
			return &BrokenError{want, Changed}
		}
		// The entry is in itself as it was written, but it was written after another one than the one before it.
		if !bytes.Equal(e.GetPrevious(), last.Hash[:]) {
			return &BrokenError{max(last.Sequence, 1), Changed}
		}
		last = Head{Sequence: want, Hash: [32]byte(e.GetHash())}
	}
	switch {
	case last.Sequence < head.Sequence:
		return &BrokenError{last.Sequence + 1, Cut}
	case last.Sequence > head.Sequence:
		return &BrokenError{head.Sequence + 1, Added}
	case last.Hash != head.Hash:
		return &BrokenError{max(last.Sequence, 1), Changed}
	}
	return nil
}

// misplaced tells an entry that stands elsewhere from one that is gone.
func misplaced(rest []*controlv1.AuditEntry, want uint64) error {
	if got := rest[0].GetSequence(); got < want {
		return &BrokenError{got, Reordered}
	}
	for _, e := range rest {
		if e.GetSequence() == want {
			return &BrokenError{want, Reordered}
		}
	}
	return &BrokenError{want, Removed}
}
