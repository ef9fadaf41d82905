package scan

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/scan/ledger"
)

// TestHostKeys: a host key of sshd is expected at its usual place, where its owner
// alone can read it, and nowhere else.
func TestHostKeys(t *testing.T) {
	root := t.TempDir()
	me := uint32(os.Getuid())
	for name, mode := range map[string]os.FileMode{
		"etc/ssh/ssh_host_rsa_key": 0o600, "etc/ssh/ssh_host_ecdsa_key": 0o400, "etc/ssh/ssh_host_dsa_key": 0o640, "etc/ssh/ssh_host_rsa_key.bak": 0o600,
		"etc/ssh/sub/ssh_host_rsa_key": 0o600, "srv/etc/ssh/ssh_host_rsa_key": 0o600, "etc/ssh/ssh_host_suid_key": 0o600,
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "etc/ssh/ssh_host_suid_key"), 0o600|os.ModeSetuid); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("ssh_host_rsa_key", filepath.Join(root, "etc/ssh/ssh_host_link_key")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, rule, path string
		owner            uint32
		expected         bool
		message          string
	}{
		{"at its place", "private-key", "etc/ssh/ssh_host_rsa_key", me, true, ""},
		{"read-only", "private-key", "etc/ssh/ssh_host_ecdsa_key", me, true, ""},
		{"a group can read it", "private-key", "etc/ssh/ssh_host_dsa_key", me, false, "chmod 600"},
		{"with a special bit", "private-key", "etc/ssh/ssh_host_suid_key", me, false, "chmod 600"},
		{"somebody else's", "private-key", "etc/ssh/ssh_host_rsa_key", me + 1, false, "chown root"},
		{"another name", "private-key", "etc/ssh/ssh_host_rsa_key.bak", me, false, ""},
		{"further down", "private-key", "etc/ssh/sub/ssh_host_rsa_key", me, false, ""},
		{"elsewhere", "private-key", "srv/etc/ssh/ssh_host_rsa_key", me, false, ""},
		{"a link", "private-key", "etc/ssh/ssh_host_link_key", me, false, "chmod 600"},
		{"gone", "private-key", "etc/ssh/ssh_host_gone_key", me, false, ""},
		{"another secret", "aws-access-key-id", "etc/ssh/ssh_host_rsa_key", me, false, ""},
	} {
		list := []ledger.Sighting{{Class: ledger.Secret, ID: c.rule, Paths: []string{c.path}}}
		if err := expect(root, c.owner, list); err != nil {
			t.Fatal(err)
		}
		if s := list[0]; (s.Expected != "") != c.expected || (s.Message == "") != (c.message == "") || !strings.Contains(s.Message, c.message) {
			t.Errorf("%s: expected %q, message %q", c.name, s.Expected, s.Message)
		}
	}
}
