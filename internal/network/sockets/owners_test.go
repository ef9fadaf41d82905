package sockets

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOwnersOfThreadsOnTheirOwn: a thread that does not share its descriptors
// with the first one of its process hides nothing.
func TestOwnersOfThreadsOnTheirOwn(t *testing.T) {
	inode, done, ended := make(chan uint64), make(chan struct{}), make(chan struct{})
	var own func()
	own = func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // the first one: its descriptors are those of the process
			defer runtime.UnlockOSThread()
			go own()
			<-ended
			return
		}
		// Never unlocked: the thread ends with this.
		defer close(ended)
		defer close(inode)
		if err := unix.Unshare(unix.CLONE_FILES); err != nil {
			t.Error(err)
			return
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Error(err)
			return
		}
		inode <- st.Ino
		<-done
	}
	go own()
	defer func() { close(done); <-ended }()
	n, ok := <-inode
	if !ok {
		return
	}
	if owners := Owners()[n]; len(owners) != 1 || owners[0].PID != unix.Getpid() {
		t.Errorf("%+v", owners)
	}
}
