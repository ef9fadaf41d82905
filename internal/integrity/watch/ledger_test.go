package watch

import (
	"fmt"
	"testing"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/state"
)

// TestEventsAreBounded: whoever runs programs of ever new names does not fill
// the state, and what is left out is said.
func TestEventsAreBounded(t *testing.T) {
	l := newLedger(state.New(t.TempDir(), state.Options{}), "default")
	subjects := map[string]bool{}
	for i := range maxOpen + 5000 {
		l.event("watch-exec-denied", fmt.Sprint("/tmp/", i), finding.Finding{Severity: finding.High})
		for _, f := range l.once {
			subjects[f.Rule+f.Subject] = true
		}
		l.once = l.once[:0]
	}
	if len(subjects) != maxOpen+1 || !subjects["watch-too-many-events"+"watch-events:default"] {
		t.Errorf("%d findings", len(subjects))
	}
	l.event("watch-exec-denied", "/tmp/1", finding.Finding{})
	if l.once[0].Subject != "/tmp/1" {
		t.Errorf("one that is known is now %s", l.once[0].Subject)
	}
}
