package finding

import (
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/state"
)

func TestResolveLetsGoOfSingleFindings(t *testing.T) {
	store := state.New(t.TempDir(), state.Options{})
	now := time.Now()
	a := Finding{Source: "s", Rule: "r", Subject: "a"}
	b := Finding{Source: "s", Rule: "r", Subject: "b"}
	update := func(fn func(tx *state.Tx) (Summary, error)) (sum Summary) {
		t.Helper()
		if err := store.Update(t.Context(), func(tx *state.Tx) (err error) { sum, err = fn(tx); return err }); err != nil {
			t.Fatal(err)
		}
		return sum
	}
	update(func(tx *state.Tx) (Summary, error) { return Report(tx, "s", "one", []Finding{a, b}, now) })
	update(func(tx *state.Tx) (Summary, error) { return Report(tx, "s", "two", []Finding{b}, now) })

	// a is in one scope alone, b also in another one; c nobody ever reported.
	gone := []Finding{a, b, {Rule: "r", Subject: "c"}}
	if sum := update(func(tx *state.Tx) (Summary, error) { return Resolve(tx, "s", "one", gone, "as before", now) }); sum.Resolved != 1 {
		t.Errorf("%+v", sum)
	}
	if sum := update(func(tx *state.Tx) (Summary, error) { return Resolve(tx, "s", "one", gone, "as before", now) }); sum.Resolved != 0 {
		t.Errorf("the second time: %+v", sum)
	}
	err := store.View(t.Context(), func(tx *state.Tx) error {
		for subject, want := range map[string]State{"a": Resolved, "b": Open} {
			f := Finding{Source: "s", Rule: "r", Subject: subject}
			r, err := Get(tx, f.Fingerprint().String(), now)
			if err != nil {
				return err
			}
			if r.State != want {
				t.Errorf("%s is %v", subject, r.State)
			}
			if n := len(r.History); want == Resolved && (n == 0 || r.History[n-1].Why != "as before") {
				t.Errorf("%s: %+v", subject, r.History)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
