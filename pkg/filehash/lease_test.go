package filehash

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLease: a file under a write lease is read once its holder gives it up,
// which the attempt to open it asks for.
func TestLease(t *testing.T) {
	defer func(n int) { leaseRetries = n }(leaseRetries)
	leaseRetries = 1000 // on a busy machine it may come to that late
	dir := t.TempDir()
	f, err := os.OpenFile(filepath.Join(dir, "leased"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGIO)
	defer signal.Stop(asked)
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-asked:
			unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		case <-time.After(40 * time.Second):
		}
	}()
	var got Content
	err = Walk(context.Background(), dir, Options{}, func(b *Batch) error {
		for _, e := range b.Entries {
			got = e.Content
		}
		return nil
	})
	<-done
	if err != nil || got != Hashed {
		t.Errorf("content state %d, error %v", got, err)
	}
}
