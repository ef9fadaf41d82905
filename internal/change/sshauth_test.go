package change

import (
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The fingerprints are those that ssh-keygen shows, and a certificate counts as
// the key in it.
func TestFingerprintsAreThoseOfOpenSSH(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("NOT RUN: ssh-keygen is not installed here (see make test): fingerprints are compared with nothing")
	}
	dir := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("ssh-keygen", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("ssh-keygen %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("-q", "-t", "ed25519", "-N", "", "-f", "ca")
	for _, typ := range []string{"ed25519", "rsa", "ecdsa"} {
		run("-q", "-t", typ, "-N", "", "-f", typ)
		want := strings.Fields(run("-l", "-f", typ+".pub"))[1]
		run("-q", "-s", "ca", "-I", "alice", "-n", "alice", typ+".pub")
		for _, file := range []string{typ + ".pub", typ + "-cert.pub"} {
			line, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "auth")
			if err := os.WriteFile(path, append([]byte("password\npublickey "), line...), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := SSHKeys(path, int64(os.Getuid()))
			if err != nil || len(got) != 1 || got[0] != want {
				t.Errorf("%s: %q, %v; want %s", file, got, err, want)
			}
		}
	}
	path := filepath.Join(dir, "auth")
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if keys, err := SSHKeys(path, int64(os.Getuid())); err == nil {
		t.Errorf("a file that everybody can write gave %q", keys)
	}
	if err := os.Symlink("auth", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if keys, err := SSHKeys(filepath.Join(dir, "link"), int64(os.Getuid())); err == nil {
		t.Errorf("a link gave %q", keys)
	}
}

func TestWhatSSHDWritesAndDoesNot(t *testing.T) {
	for text, want := range map[string]int{
		"":                         0,
		"password\n":               0,
		"keyboard-interactive/pam": 0,
		"publickey ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKvUWYzKMAfMLvqPQ0rCb8XmxEw0ZD1FwHhUYVdxTxkY\npublickey ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKvUWYzKMAfMLvqPQ0rCb8XmxEw0ZD1FwHhUYVdxTxkY\n": 1,
		"hostbased ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKvUWYzKMAfMLvqPQ0rCb8XmxEw0ZD1FwHhUYVdxTxkY\n":                                                                                             0,
		"publickey ssh-ed25519 !!!":  -1,
		"publickey ssh-ed25519 AAAA": -1,
		"publickey x " + base64.StdEncoding.EncodeToString([]byte("\x00\x00\x00\x16x-cert-v01@openssh.com..")): -1,
		strings.Repeat("x", maxAuthFile+1): -1,
	} {
		keys, err := ParseSSHAuth([]byte(text))
		if want < 0 && err == nil || want >= 0 && (err != nil || len(keys) != want) {
			t.Errorf("%.80q: %q, %v", text, keys, err)
		}
	}
}
