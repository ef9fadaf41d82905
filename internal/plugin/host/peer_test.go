package host

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPeer shows who connects to a socket that only root may: the plugin's
// account, and not us.
func TestPeer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: only root serves plugins of other accounts")
	}
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, account := range []*Account{nil, {62997, 62996}} {
		s := serve(t, Options{Store: newStore(t), Permissions: Permissions{Unix: []string{path}}, Account: account})
		s.hello()
		s.granted("dial", fmt.Sprintf(`{"network":"unix","address":%q}`, path), nil)
		l.SetDeadline(time.Now().Add(patience))
		conn, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var who *unix.Ucred
		raw.Control(func(fd uintptr) { who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
		want := Account{}
		if account != nil {
			want = *account
		}
		if err != nil || who.Uid != want.UID || who.Gid != want.GID {
			t.Errorf("%+v, %v; want %+v", who, err, want)
		}
	}
	if os.Geteuid() != 0 {
		t.Error("we are somebody else now")
	}
}
