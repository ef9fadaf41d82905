package store

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
)

// TestFollowGoesFromOneGenerationToTheNext follows a writer that begins new
// generations: what was there before is left out, and nothing after.
func TestFollowGoesFromOneGenerationToTheNext(t *testing.T) {
	s, _ := newStore(t, nil)
	w := writer(t, s)
	appendTo(t, w, batch("a", 0, 10))
	snap, err := s.Snapshot(ctx, Everything())
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	stop, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	var mu sync.Mutex
	var got []string
	done := make(chan error, 1)
	go func() {
		done <- snap.Follow(stop, func(o *event.Origin, r *event.Record) error {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, o.Source+"|"+string(r.Raw))
			if len(got) == 70 {
				cancel()
			}
			return nil
		})
	}()
	for i := range 7 {
		time.Sleep(followEvery / 2)
		appendTo(t, w, batch("a", 10+i*10, 20+i*10))
		if i%2 == 1 { // a new generation, while the old one is there
			w.mu.Lock()
			err := w.rollOver()
			w.mu.Unlock()
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if want := lines("a", 10, 80); !slices.Equal(got, want) {
		t.Errorf("%d records, from %q on", len(got), got[:min(2, len(got))])
	}
}
