package network

import (
	"fmt"
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
)

// TestAFindingNamesWhatToCutOff stores findings as a sensor does, and asks for
// them by the ID that mobileops finding list shows.
func TestAFindingNamesWhatToCutOff(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	a := app.New(&ui.Streams{Out: io.Discard, Err: io.Discard}, func(key string) string {
		return map[string]string{"MOBILEOPS_STATE_DIR": dir, "MOBILEOPS_CONFIG": "", "HOME": dir}[key]
	})
	now := time.Now()
	found := []finding.Finding{
		{Rule: "beacon", Severity: finding.High, Title: "a beacon", Subject: "203.0.113.7:443", Observed: now,
			Evidence: map[string]string{"remote_ip": "203.0.113.7", "src.mac": "02:00:00:00:00:07", "peer": "[2001:db8::7]:8443", "count": "17", "ip": "no address"}},
		{Rule: "file-changed", Severity: finding.High, Title: "a file", Subject: "/etc/passwd", Observed: now, Evidence: map[string]string{"size": "10"}},
	}
	err := state.New(dir, state.Options{}).Update(t.Context(), func(tx *state.Tx) error {
		_, err := finding.Report(tx, "trial", "", found, now)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"[ip:203.0.113.7 ip:2001:db8::7 mac:02:00:00:00:00:07]", "[]"} {
		found[i].Source = "trial"
		print := found[i].Fingerprint()
		for _, id := range []string{print.ID(), print.String()} {
			name, reason, targets, skipped, err := namedThreat(t.Context(), a, id, now)
			if err != nil || name != "finding:"+print.String() || reason != found[i].Title || len(skipped) > 0 || fmt.Sprint(targets) != want {
				t.Errorf("%s: %q %q %v %v %v, want %s", id, name, reason, targets, skipped, err, want)
			}
		}
	}
	if _, _, _, _, err := namedThreat(t.Context(), a, "F-0000000000", now); err == nil {
		t.Error("a finding that is not there was found")
	}
}
