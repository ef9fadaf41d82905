package update_test

import (
	"os"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/update"
)

// FuzzPending: the file of a trial is read, or is untrustworthy and says what to
// do; what was read names a generation that can be current.
func FuzzPending(f *testing.F) {
	dir := f.TempDir()
	e := update.New(update.Options{Dir: dir, Target: dir + "/app"})
	for _, seed := range []string{
		"", "null", "{}", "[]",
		`{"schema":"mobileops.update.pending/v1","from":4,"to":5,"since":"2026-12-01T22:00:00Z","deadline":"2026-12-01T22:01:30Z","boot":"4b1f","event":"apply","by":"alice"}`,
		`{"schema":"mobileops.update.pending/v1","from":0,"to":1}`,
		`{"schema":"mobileops.update.pending/v1","from":-1,"to":1}`,
		`{"schema":"mobileops.update.pending/v1","from":1,"to":0}`,
		`{"schema":"mobileops.update.pending/v2","from":4,"to":5}`,
		`{"schema":"mobileops.update.pending/v1","to":5,"deadline":"tomorrow"}`,
		`{"schema":"mobileops.update.pending/v1","to":1e99}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(dir+"/pending", data, 0o644); err != nil {
			t.Fatal(err)
		}
		p, err := e.Pending()
		switch {
		case err != nil && failure.KindOf(err) != failure.Untrustworthy:
			t.Fatalf("%v is of kind %v", err, failure.KindOf(err))
		case err == nil && p == nil:
			t.Fatal("there is a file, and no trial")
		case err == nil && p.To < 1:
			t.Fatalf("generation %d is on trial", p.To)
		}
	})
}
