package failure

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestKindOf(t *testing.T) {
	busy := New(Busy, "state is locked")
	for _, tc := range []struct {
		err    error
		kind   Kind
		status int
	}{
		{nil, None, 0},
		{Silent(No), No, 1},
		{fmt.Errorf("flag: %w", New(Usage, "unknown")), Usage, 2},
		{fs.ErrNotExist, Failed, 3},
		{New(NotAllowed, "root only"), NotAllowed, 4},
		{Errorf(Untrustworthy, "baseline: %w", fs.ErrInvalid), Untrustworthy, 5},
		{Silent(Worse(No, Incomplete)), Incomplete, 6},
		{Wrap(NotReady, fs.ErrNotExist), NotReady, 7},
		{Hint(fmt.Errorf("check: %w", busy), "wait"), Busy, 8},
		{Errorf(Failed, "hash: %w", context.Canceled), Interrupted, 130},
	} {
		if k := KindOf(tc.err); k != tc.kind || k.Status() != tc.status {
			t.Errorf("KindOf(%v) = %v, status %d; want %v, %d", tc.err, k, k.Status(), tc.kind, tc.status)
		}
	}
}

func TestHintIsShownAndUnwraps(t *testing.T) {
	sentinel := New(NotReady, `no baseline named "default"`)
	err := Hint(sentinel, "create one: mobileops integrity baseline")
	if got, want := err.Error(), `no baseline named "default" (create one: mobileops integrity baseline)`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(err, sentinel) {
		t.Error("the sentinel is lost")
	}
	if Hint(nil, "x") != nil || Wrap(Failed, nil) != nil || Silent(None) != nil {
		t.Error("nil must stay nil")
	}
}
