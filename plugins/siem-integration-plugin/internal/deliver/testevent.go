package deliver

import (
	"crypto/rand"
	"time"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// testEvent is what Probe sends: a finding of severity info that says that it
// is a test, in everything that a receiver may show of it.
func testEvent() *pluginsdk.Event {
	now := time.Now().UTC()
	return &pluginsdk.Event{
		ID: "test-" + rand.Text(), Type: pluginsdk.TypeFinding, Time: now, Change: pluginsdk.ChangeOpened,
		Finding: &pluginsdk.Finding{
			Source: "plugin/siem-integration-plugin", Rule: "test", Severity: pluginsdk.Info,
			Title: "Test of the connection to this receiver; nothing has to be done", Subject: "siem-integration-plugin",
			Tags: []string{"test"}, Observed: now, ID: "0000000000", Fingerprint: "00000000000000000000000000000000",
			State: pluginsdk.Open, FirstSeen: now, LastSeen: now, TimesSeen: 1,
		},
	}
}
