package serve

import (
	"slices"
	"testing"

	"github.com/mobileops/mobileops/internal/network/segment"
)

// TestNoMachineTakesANameThatOthersLookFor holds the names that a lease must not
// carry: browsers ask for wpad, and Windows for isatap, in the domain of a zone,
// and believe whoever has it (VU#598349).
func TestNoMachineTakesANameThatOthersLookFor(t *testing.T) {
	doc, err := segment.Parse("trial.yaml", []byte("version: 1\nzones:\n  dev: {subnets: [10.60.0.0/24], dhcp: true, dns: {domain: dev.internal}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := segment.Arrange([]*segment.Document{doc}, segment.Given{Seed: []byte("trial")})
	if err != nil {
		t.Fatal(err)
	}
	names := dhcpConfig(l, &l.Zones[0], t.TempDir()).Names
	for _, name := range []string{"gateway", "localhost", "wpad", "isatap"} {
		if !slices.Contains(names, name) {
			t.Errorf("a machine can be called %s", name)
		}
	}
}
