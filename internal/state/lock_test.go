package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestHolderIsWhoHasTheLock: asking for the holder of a lock tells who has it,
// and never takes it.
func TestHolderIsWhoHasTheLock(t *testing.T) {
	s := New(t.TempDir(), Options{})
	if h, held := s.Holder("watch"); held {
		t.Errorf("before there was a lock: %v", h)
	}
	if entries, _ := os.ReadDir(s.Dir()); len(entries) > 0 {
		t.Errorf("asking made %v", entries)
	}
	l, err := s.Lock("watch", "integrity watch")
	if err != nil {
		t.Fatal(err)
	}
	h, held := s.Holder("watch")
	if !held || h.PID != os.Getpid() || !strings.HasPrefix(h.String(), "integrity watch (pid ") {
		t.Errorf("%v, %v", h, held)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if h, held := s.Holder("watch"); held {
		t.Errorf("after it was given back: %v", h)
	}
	// One that was killed leaves its words behind, and another process may have
	// its number by now; this one has.
	file := filepath.Join(s.Dir(), "locks", "watch.lock")
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := writeHolder(f, "integrity watch"); err != nil {
		t.Fatal(err)
	}
	if h, held := s.Holder("watch"); held {
		t.Errorf("of a lock that nobody has: %v", h)
	}
	if l, err = s.Lock("watch", "integrity watch"); err != nil {
		t.Errorf("asking took the lock: %v", err)
	} else if err := l.Release(); err != nil {
		t.Error(err)
	}
}
