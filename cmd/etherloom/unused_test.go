package main

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "github.com/etherloom/etherloom/control/controlv1"
)

func TestUnused(t *testing.T) {
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	ago := func(days int) *timestamppb.Timestamp { return timestamppb.New(now.AddDate(0, 0, -days)) }
	list := []*v1.GrantRule{
		{Id: 1, Created: ago(90)},
		{Id: 2, Created: ago(3)},
		{Id: 3, Created: ago(90), LastUsed: ago(60)},
		{Id: 4, Created: ago(90), LastUsed: ago(3)},
		{Id: 5, Created: ago(90), LastUsed: ago(30)},
	}
	for days, want := range map[int][]uint32{30: {1, 3}, 2: {1, 2, 3, 4, 5}, 0: {1, 2}, 365: nil} {
		var got []uint32
		for _, g := range unused(list, days, now) {
			got = append(got, g.GetId())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d days: %v, want %v", days, got, want)
		}
	}
}
