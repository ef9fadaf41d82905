package change_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/change"
	"github.com/mobileops/mobileops/internal/cli"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
)

// run plays one command on the state in dir.
func run(t *testing.T, dir string, args ...string) (status int, out, errs string) {
	t.Helper()
	conf := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(conf, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	streams, stdout, stderr := ui.Test(nil)
	status = cli.Main(t.Context, append([]string{"mobileops"}, args...), streams, func(name string) string {
		return map[string]string{"MOBILEOPS_STATE_DIR": filepath.Join(dir, "state"), "MOBILEOPS_CONFIG": conf}[name]
	})
	return status, stdout.String(), stderr.String()
}

// What cron runs every hour says nothing while all is well, names what waits for
// its approval, and fails once that is overdue, with a finding until somebody
// approves.
func TestOverdueEmergencyIsMailed(t *testing.T) {
	dir := t.TempDir()
	store := state.New(filepath.Join(dir, "state"), state.Options{})
	update := func(fn func(tx *state.Tx) error) {
		t.Helper()
		if err := store.Update(context.Background(), fn); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(about string, status int, says string, args ...string) {
		t.Helper()
		got, out, errs := run(t, dir, args...)
		if got != status || says == "" && out != "" || !strings.Contains(out, says) {
			t.Errorf("%s: %q: status %d, want %d; want %q in\n%s%s", about, args, got, status, says, out, errs)
		}
	}
	// emergency stores a change that was applied some time ago.
	emergency := func(ago time.Duration) (id string) {
		t.Helper()
		now := time.Now().Add(-ago)
		update(func(tx *state.Tx) error {
			c, err := change.Request(tx, change.Change{
				Kind: change.Update, Name: "platform", Digest: strings.Repeat("a1", 64), Risk: change.High, Reason: "incident 42", Until: now.Add(time.Hour),
				Emergency: true, Required: 1, Requester: change.Identity{Actor: audit.Actor{UID: 0, LoginUID: 4001}},
			}, nil, now)
			if err != nil {
				return err
			}
			id = c.ID
			if err := change.Authorize(tx, id, change.Wanted{Digest: c.Digest}, now); err != nil {
				return err
			}
			_, err = change.Applied(tx, id, now)
			return err
		})
		return id
	}
	expect("nothing", 0, "", "change", "list", "--quiet")
	young := emergency(time.Hour)
	expect("waits", 0, young+"  applied, emergency ", "change", "list", "--quiet")
	expect("waits", 0, "somebody else than uid 0 (login uid 4001) approves it until", "change", "show", young)
	old := emergency(25 * time.Hour)
	expect("overdue", 1, old+"  applied, emergency, overdue", "change", "list", "--quiet")
	expect("overdue, as JSON", 1, `"overdue":true`, "change", "list", "--output", "jsonl")
	expect("whatever is listed", 1, "", "change", "list", "--quiet", "--state", "rejected")
	expect("overdue", 0, "overdue: somebody else than", "change", "show", old)
	expect("the finding", 0, "Emergency change "+old+" was applied and not approved within 24 hours", "finding", "list", "--source", "change")
	update(func(tx *state.Tx) error {
		for _, id := range []string{old, young} {
			if _, err := change.Approve(tx, id, change.Consent{By: change.Identity{Actor: audit.Actor{UID: 0, LoginUID: 4002}}}, nil, time.Now()); err != nil {
				return err
			}
		}
		return nil
	})
	expect("approved, late", 0, "", "change", "list", "--quiet")
	expect("resolved", 0, "", "finding", "list", "--quiet", "--source", "change")
	expect("kept", 0, "1 of 1", "change", "list", "--state", "applied")
}
