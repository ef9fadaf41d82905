package watch

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What waits in a group that is drained is read yet; in one that is closed, it is not.
func TestDrain(t *testing.T) {
	for _, drained := range []bool{true, false} {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(p[1])
		g, err := newGroup(p[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(p[1], []byte("event")); err != nil {
			t.Fatal(err)
		}
		if drained {
			g.drain(time.Hour)
			buf := make([]byte, 100)
			if n, err := g.read(buf); string(buf[:max(n, 0)]) != "event" || err != nil {
				t.Errorf("%q, %v", buf[:max(n, 0)], err)
			}
		} else {
			g.close()
		}
		if n, err := g.read(make([]byte, 100)); !errors.Is(err, os.ErrClosed) {
			t.Errorf("drained %v: %d, %v", drained, n, err)
		}
	}
}
