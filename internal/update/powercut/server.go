package powercut

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Descriptors that a server is started with.
const (
	fdContent   = 3
	fdLog       = 4
	fdFuse      = 5
	fdNamespace = 6 // of the machine
)

// connect mounts a file that a server is to serve over what it returns. Who
// looks at the file before that waits for the server, or gets an error when
// nobody has the connection any more.
func connect(file string) (*os.File, error) {
	// Not by os.OpenFile, which would make it non-blocking.
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/fuse: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=%o,user_id=0,group_id=0", fd, unix.S_IFREG|0o600)
	if err := unix.Mount("powercut", file, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mount: %w", err)
	}
	return os.NewFile(uintptr(fd), "/dev/fuse"), nil
}

// leave goes to the mount namespace of the machine, and serves there. It
// returns only when it cannot.
func leave() error {
	runtime.LockOSThread()
	// setns(2): not while other threads share its root and working directory.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if err := unix.Setns(fdNamespace, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("setns: %w", err)
	}
	unix.CloseOnExec(fdNamespace)
	return again(serves, "")
}

// serve is the process that serves a disk. It ends when the file is no longer
// mounted anywhere.
func serve() int {
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	content, recorded := os.NewFile(fdContent, "content"), os.NewFile(fdLog, "log")
	info, err := content.Stat()
	if err == nil {
		s := &server{dev: fdFuse, size: info.Size(), content: content, log: &log{file: recorded}}
		err = s.run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
