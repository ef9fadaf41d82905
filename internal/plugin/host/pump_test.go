package host

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

// pumped runs a pump until done returns true after a delivery.
func pumped(t *testing.T, opts PumpOptions, done func([]Event) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	deliver := opts.Deliver
	over := false
	opts.Deliver = func(ctx context.Context, events []Event) error {
		if deliver != nil {
			if err := deliver(ctx, events); err != nil {
				return err
			}
		}
		if over = done(events); over {
			cancel()
		}
		return nil
	}
	if err := Pump(ctx, opts); !errors.Is(err, context.Canceled) || !over {
		t.Fatalf("pump: %v", err)
	}
}

func TestPumpGoesOnWhereItEnded(t *testing.T) {
	store := newStore(t)
	grow(t, store, 0, 10)
	act(t, store, "x")
	n := 0
	count := func(until int) func([]Event) bool {
		return func(events []Event) bool { n += len(events); return n >= until }
	}
	opts := PumpOptions{Store: store, Name: "probe/hook-0", From: "oldest", Batch: 4}
	pumped(t, opts, count(11))
	if at := saved(t, store, opts.Name); at != (position{10, 1}) {
		t.Errorf("saved %v", at)
	}
	opts.From = "saved"
	opts.Filter = func(e *Event) bool { return e.Type == TypeFinding && e.Finding.Severity >= finding.High }
	grow(t, store, 10, 10)
	act(t, store, "y")
	pumped(t, opts, count(15))
	if n != 15 {
		t.Errorf("%d events, want 15", n)
	}
	// A pump that is new begins now, and remembers that.
	opts.Name = "probe/hook-1"
	first, cancel := context.WithCancel(t.Context())
	began := make(chan error, 1)
	opts.Deliver = func(context.Context, []Event) error { return nil }
	go func() { began <- Pump(first, opts) }()
	for deadline := time.Now().Add(patience); saved(t, store, opts.Name) != (position{20, 2}); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the pump does not begin")
		}
	}
	cancel()
	<-began
	update(t, store, func(tx *state.Tx) error { return Forget(tx, "probe") })
	if at := saved(t, store, opts.Name); at != (position{}) {
		t.Errorf("after Forget: %v", at)
	}
	if err := Pump(t.Context(), PumpOptions{Store: store, Name: "x", Types: []string{"gap"}, Deliver: opts.Deliver}); failure.KindOf(err) != failure.Usage {
		t.Error(err)
	}
}

func TestPoisonIsPutAside(t *testing.T) {
	store := newStore(t)
	grow(t, store, 0, 6)
	poison, attempts, flaky := "", 0, 0
	opts := PumpOptions{Store: store, Name: "probe/hook-0", Types: []string{TypeFinding}, From: "oldest", Batch: 2, Backoff: time.Millisecond}
	opts.Deliver = func(_ context.Context, events []Event) error {
		switch {
		case strings.HasPrefix(events[0].ID, "f3-"):
			poison = events[0].ID
			attempts++
			return errors.New("exit status 1:\nbad\x1b[2J")
		case strings.HasPrefix(events[0].ID, "f1-") && flaky < 2:
			flaky++
			return errors.New("not yet")
		}
		return nil
	}
	var came []string
	pumped(t, opts, func(events []Event) bool {
		for _, e := range events {
			came = append(came, e.ID[:2])
		}
		return len(came) == 4
	})
	if got := strings.Join(came, " "); got != "f1 f2 f5 f6" || attempts != 1+maxRetries || flaky != 2 {
		t.Errorf("came %s after %d attempts of the poison", got, attempts)
	}
	var dead []DeadBatch
	read := func() (total uint64) {
		dead = nil
		if err := store.View(t.Context(), func(tx *state.Tx) (err error) {
			total, err = Dead(tx, opts.Name, func(d DeadBatch) error { dead = append(dead, d); return nil })
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return total
	}
	if total := read(); total != 1 || len(dead) != 1 {
		t.Fatalf("%d of %d batches were put aside", len(dead), total)
	}
	d := dead[0]
	var e event
	if err := json.Unmarshal(d.Events[0], &e); err != nil || e.ID != poison || d.Count != 2 || d.From != "f2.a0" || d.To != "f4.a0" || d.Error != "exit status 1: bad [2J" || d.Attempts != 6 {
		t.Errorf("put aside: %+v, %v", d, err)
	}
	update(t, store, func(tx *state.Tx) error {
		for range MaxDead + 10 {
			if err := putAside(tx, opts.Name, DeadBatch{}, nil); err != nil {
				return err
			}
		}
		return nil
	})
	if total := read(); total != MaxDead+11 || len(dead) != MaxDead {
		t.Errorf("%d of %d batches are kept", len(dead), total)
	}
	update(t, store, func(tx *state.Tx) error { return Forget(tx, "probe") })
	if total := read(); total != 0 {
		t.Errorf("%d batches after Forget", total)
	}
}

func TestDamagedCursorIsUntrustworthy(t *testing.T) {
	store := newStore(t)
	update(t, store, func(tx *state.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(cursorBucket))
		return errors.Join(err, b.Put([]byte("probe"), []byte(`{"cursor":"f1"}`)))
	})
	err := Pump(t.Context(), PumpOptions{Store: store, Name: "probe", Deliver: func(context.Context, []Event) error { return nil }})
	if failure.KindOf(err) != failure.Untrustworthy {
		t.Error(err)
	}
}

func FuzzCursor(f *testing.F) {
	f.Add("f1.a2")
	f.Add("f-1.a+2")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := parsePosition(text); err == nil && p.String() != text {
			t.Errorf("%q is %v", text, p)
		}
	})
}
