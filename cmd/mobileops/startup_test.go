package main

import (
	"os/exec"
	"testing"
	"time"
)

// Completion and cron call the binary all the time. The best of many runs is
// what counts: the machine of a test is rarely idle.
func TestStartsFast(t *testing.T) {
	const limit = 20 * time.Millisecond
	for _, args := range [][]string{{"version"}, {"__complete", "integrity", ""}} {
		best := time.Hour
		for try := 0; try < 40 || best > limit && try < 400; try++ {
			began := time.Now()
			if err := exec.Command("mobileops", args...).Run(); err != nil {
				t.Fatal(err)
			}
			best = min(best, time.Since(began))
		}
		t.Logf("mobileops %q: %v", args, best)
		if best > limit {
			t.Errorf("mobileops %q takes %v at best, more than %v: look for work in package init (GODEBUG=inittrace=1)", args, best, limit)
		}
	}
}
