package format

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func builtinSet(t testing.TB) *Set {
	t.Helper()
	s, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCases runs the cases beside every built-in format.
func TestCases(t *testing.T) {
	s := builtinSet(t)
	for _, name := range s.Names() {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("formats", name+".cases.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			n, wrong, err := s.RunCases(name, data)
			if err != nil {
				t.Fatal(err)
			}
			if n < 5 {
				t.Errorf("only %d cases", n)
			}
			if len(wrong) > 0 {
				t.Error(strings.Join(wrong, "\n"))
			}
		})
	}
}
