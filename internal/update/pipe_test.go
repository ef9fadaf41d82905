package update_test

import (
	"context"
	"syscall"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/update"
)

// TestPipeIsNoPackage: nobody is waited for at its other end.
func TestPipeIsNoPackage(t *testing.T) {
	s := newSite(t)
	path := s.dir + "/pipe.tar.zst"
	if err := syscall.Mkfifo(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.engine().Apply(context.Background(), update.Request{Path: path}, nil); failure.KindOf(err) != failure.Usage {
		t.Errorf("a pipe: %v", err)
	}
}
