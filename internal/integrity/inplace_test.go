package integrity

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/mobileops/mobileops/internal/state"
)

// cancelAfter is a context that ends when it was asked a number of times.
type cancelAfter struct {
	context.Context
	left *int
}

func (c cancelAfter) Err() error {
	if *c.left--; *c.left < 0 {
		return context.Canceled
	}
	return nil
}

// TestImportInPlace: after state.db was lost, a baseline is imported from where
// it lies in the state directory. However early or late that is interrupted,
// the file, which may be the only one, stays, and can be imported.
func TestImportInPlace(t *testing.T) {
	b := newBench(t, plainPolicy)
	b.put("f", "x")
	c := b.take().Entry
	data, err := os.ReadFile(b.file(c))
	b.must(err)
	interrupted := 0
	for asked := range 12 {
		b.Store = state.New(t.TempDir(), state.Options{})
		b.must(b.makeDir())
		b.must(os.WriteFile(b.file(c), data, 0o600))
		left := asked
		if _, err := b.Import(cancelAfter{t.Context(), &left}, b.file(c), ""); errors.Is(err, context.Canceled) {
			interrupted++
		} else if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Compare(t.Context(), CompareOptions{Name: "default"}); err != nil && !errors.Is(err, ErrNoBaseline) {
			t.Fatal(err)
		}
		b.takeOther() // takes the lock of the name, and with it cleans up
		if _, err := os.Stat(b.file(c)); err != nil {
			t.Fatalf("interrupted when asked %d times: %v", asked, err)
		}
	}
	if interrupted == 0 {
		t.Error("no import was interrupted")
	}
}

// takeOther takes a baseline of the same name, and takes it out again.
func (b *bench) takeOther() {
	b.Helper()
	other := b.take().Entry
	_, err := b.Remove(context.Background(), other.Name+"@"+other.ID)
	b.must(err)
}
