//go:build goexperiment.jsonv2

package secret

import (
	"testing"

	"github.com/aquasecurity/trivy/pkg/fanal/secret"
)

// TestBuiltinRulesHaveAnchors: a rule without would be run on every file that has its
// keyword, and a large automaton would be slow.
func TestBuiltinRulesHaveAnchors(t *testing.T) {
	e, err := newEngine(secret.NewScanner(nil).Global)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(e.automaton)
	for _, r := range e.rules {
		if r.gate != byAnchor {
			t.Errorf("%s has no anchors: %v of rarity %g", r.ID, len(r.expression.Anchors), r.expression.Rarity)
		} else {
			t.Logf("%s: %v, %.1g", r.ID, r.expression.Anchors, r.expression.Rarity)
		}
	}
	if e.automaton.Large() {
		t.Errorf("the automaton is large: %v", e.automaton)
	}
}

func BenchmarkNew(b *testing.B) {
	global := secret.NewScanner(nil).Global
	for b.Loop() {
		if _, err := newEngine(global); err != nil {
			b.Fatal(err)
		}
		if _, err := newPaths(global); err != nil {
			b.Fatal(err)
		}
	}
}
