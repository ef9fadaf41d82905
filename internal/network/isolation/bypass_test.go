package isolation

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSocketsThatBypassRulesAreNamed(t *testing.T) {
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW, 0)
	if err == unix.EPERM {
		t.Skip("needs root: AF_XDP sockets")
	}
	if err != nil {
		t.Skipf("this kernel has no AF_XDP: %v", err)
	}
	ours := "(pid " + strconv.Itoa(os.Getpid()) + ") can send by AF_XDP"
	named := func() bool {
		return slices.ContainsFunc(bypassing(), func(s string) bool { return strings.Contains(s, ours) })
	}
	if !named() {
		t.Errorf("not named: %q", bypassing())
	}
	unix.Close(fd)
	if named() {
		t.Errorf("still named: %q", bypassing())
	}
}

func TestCountOfSockets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "protocols")
	text := "protocol  size sockets  memory\nPACKET    1600      2      -1\nXDP       1088      3      -1   NI\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for protocol, want := range map[string]int{"XDP": 3, "PACKET": 2, "TCP": 0} {
		if got, err := inUse(path, protocol); err != nil || got != want {
			t.Errorf("%s: %d %v, want %d", protocol, got, err, want)
		}
	}
}
