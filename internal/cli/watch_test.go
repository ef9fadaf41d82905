package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
)

// On a busy machine a short --for can be over before the watch has begun. Then
// nothing was watched, and that is neither clean nor a failure.
func TestAWatchWhoseTimeIsOverBeforeItBegins(t *testing.T) {
	over, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	dir := t.TempDir()
	env := map[string]string{"MOBILEOPS_STATE_DIR": filepath.Join(dir, "state"), "MOBILEOPS_CONFIG": filepath.Join(dir, "config.yaml")}
	if err := os.WriteFile(env["MOBILEOPS_CONFIG"], nil, 0o644); err != nil {
		t.Fatal(err)
	}
	// Where there is no state, there is nothing to wait for.
	if err := state.New(env["MOBILEOPS_STATE_DIR"], state.Options{}).Update(t.Context(), func(*state.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	streams, _, errs := ui.Test(nil)
	a := app.New(streams, func(name string) string { return env[name] })
	where, err := execute(over, a, NewRoot(a), []string{"mobileops", "integrity", "watch", "--for", "1h"})
	report(streams, where, err)
	if failure.KindOf(err) != failure.Incomplete || !strings.Contains(errs.String(), "--for passed before anything was watched") {
		t.Errorf("%v: %s", failure.KindOf(err), errs)
	}
}
