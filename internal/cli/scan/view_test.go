package scan

import (
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/scan"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// TestWhatAnOlderDatabaseDoesNotKnow: open vulnerabilities that were left unseen for
// it make the answer an incomplete one.
func TestWhatAnOlderDatabaseDoesNotKnow(t *testing.T) {
	item := ledger.Item{State: ledger.Open, Unseen: true}
	item.Class = ledger.Vulnerability
	for _, older := range []bool{false, true} {
		v := &view{Report: &engine.Report{Scanned: &protocol.Report{}, Older: older, Items: []ledger.Item{item}}}
		want := failure.None
		if older {
			want = failure.Incomplete
		}
		if got := v.verdict(&targetOptions{}); got != want || v.Complete() == older {
			t.Errorf("older %t: verdict %v, complete %t", older, got, v.Complete())
		}
	}
}
