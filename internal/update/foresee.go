package update

import (
	"context"
	"fmt"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/update/store"
)

// Foresee says what Apply would do with a request: it proves the package and asks
// for the change as that does, and refuses what that would refuse, but changes
// nothing. Hooks and health checks are not run, so whether the host would go back
// is not known.
func (e *Engine) Foresee(ctx context.Context, r Request, n *Notice) (*store.Foreseen, error) {
	if n == nil {
		n = new(Notice)
	}
	f, p, downgrade, err := e.examine(ctx, &r)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if h, busy := state.New(e.store.Dir(), state.Options{}).Holder("update"); busy {
		return nil, &state.HeldError{Name: "update", Holder: h}
	}
	if trial, err := e.Pending(); err != nil {
		return nil, err
	} else if trial != nil {
		return nil, failure.Hint(failure.New(failure.Busy, fmt.Sprintf("generation %d is on trial, and nobody conducts that any more", trial.To)), "have it decided: mobileops update reconcile")
	}
	var seen *store.Foreseen
	_, err = e.lay(ctx, func(ctx context.Context, req store.Request) (*store.Generation, error) {
		seen, err = e.store.Foresee(ctx, req)
		return nil, err
	}, f, p, &r, downgrade, n)
	if err != nil {
		return nil, trust.About(r.Path, err)
	}
	return seen, nil
}
