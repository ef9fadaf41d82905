package store

import (
	"slices"
	"testing"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// The newer half of a day is read before the older one, as it happens with a
// file and the one that a rotation made.
func TestSegmentsAreInTheOrderOfTime(t *testing.T) {
	s, _ := newStore(t, nil)
	w := writer(t, s)
	o := event.Origin{Source: "a"}
	const hour = nanosecondsOfDay / 24
	at := func(h int64, text string) event.Record { return event.Record{Time: h * hour, Raw: []byte(text)} }
	appendTo(t, w, Batch{Key: "k", Origin: o, Records: []event.Record{at(8, "8"), at(9, "9 first"), at(9, "9 second")}})
	appendTo(t, w, Batch{Key: "l", Origin: o, Records: []event.Record{at(1, "1"), at(7, "7")}})
	flushed(t, w)
	got, _ := all(t, s, Everything())
	if want := []string{"a|1", "a|7", "a|8", "a|9 first", "a|9 second"}; !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
}

func TestMergingMakesNoSegmentAroundAnother(t *testing.T) {
	o := event.Origin{Source: "a"}
	segment := func(id uint64, o event.Origin, from, to int64) entry {
		return entry{SegmentRecord: SegmentRecord{ID: id, Origin: o, MinTime: from * nanosecondsOfDay, MaxTime: to*nanosecondsOfDay + 1}}
	}
	x := &index{entries: []entry{
		segment(1, o, 0, 3), segment(2, o, 4, 5), segment(3, o, 6, 6), segment(4, o, 7, 9),
		segment(5, o, 10, 12), segment(6, o, 6, 6), segment(7, event.Origin{Source: "b"}, 11, 14),
	}}
	var got [][]uint64
	for _, list := range x.mergeable() {
		var ids []uint64
		for _, e := range list {
			ids = append(ids, e.ID)
		}
		got = append(got, ids)
	}
	want := [][]uint64{{1, 2}, {3, 6}, {4, 5}}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%v; want %v", got, want)
	}
}
