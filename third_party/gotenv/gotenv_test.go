package gotenv

import (
	"strings"
	"testing"
)

// TestRefuses: silence would pass for a file without settings.
func TestRefuses(t *testing.T) {
	if env, err := StrictParse(strings.NewReader("STATE_DIR=/x\n")); err == nil || env != nil {
		t.Errorf("%v, %v", env, err)
	}
}
