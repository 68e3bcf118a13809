package store

import (
	"strings"
	"testing"

	"github.com/etherloom/etherloom/control/model"
)

// TestVerdictGoesWithItsGrant: a verdict is stored under a note, and is deleted with its grant.
func TestVerdictGoesWithItsGrant(t *testing.T) {
	dir := shortDir(t)
	s := openAt(t, dir, new(logs))
	found(t, s)
	must(t, s.Update(t.Context(), tester, func(tx *Tx) error {
		for range 2 {
			g := &model.Grant{ID: tx.NextGrant(), Label: "a=b", VNI: 1, When: "true"}
			tx.Put("grant.add", g)
			tx.PutNoted("grant.verdict", &model.Verdict{Grant: g.ID}, map[string]string{"gained": "nobody"})
		}
		return nil
	}))
	if n := len(s.Model().Verdicts); n != 2 {
		t.Fatalf("%d verdicts", n)
	}
	must(t, s.Update(t.Context(), tester, func(tx *Tx) error {
		tx.Delete("grant.remove", tx.Model.Grants[1])
		return nil
	}))
	if m := s.Model(); m.Verdicts[1] != nil || m.Verdicts[2] == nil {
		t.Errorf("verdicts are %v", m.Verdicts)
	}
	entries, _, err := s.Audit(t.Context(), 0, 1000)
	must(t, err)
	last, noted := entries[len(entries)-1], entries[len(entries)-2]
	if last.GetAction() != "grant.remove" || noted.GetObject() != "verdict/2" || !strings.Contains(noted.GetDetail(), `"gained":"nobody"`) {
		t.Errorf("audit: %v, %v", noted, last)
	}
	must(t, verify(t, s))
}
