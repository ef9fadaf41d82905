package conformance

import (
	"os"
	"testing"
)

// The test binary is also the plugins that the tests check: called with
// "as-plugin KIND" it is one.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "as-plugin" {
		switch kind := os.Args[2]; kind {
		case "good":
			os.Exit(goodService())
		case "good-hook":
			os.Exit(goodHook())
		case "good-command":
			os.Exit(goodCommand())
		default:
			os.Exit(badPlugin(kind))
		}
	}
	os.Exit(m.Run())
}
