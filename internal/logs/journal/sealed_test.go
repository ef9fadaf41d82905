package journal

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSealedFileEqualsJournalctl reads a file with seals of the kind that
// journald makes. Its key has to lie where only the system has it, so a
// filesystem of the test's own takes that place, for its processes alone.
func TestSealedFileEqualsJournalctl(t *testing.T) {
	needSystemd(t)
	if os.Getuid() != 0 {
		t.Skip("sealed journals can be made by root only")
	}
	if id, err := os.ReadFile("/etc/machine-id"); err != nil || len(id) < 32 {
		t.Skip("no /etc/machine-id (systemd-machine-id-setup): journalctl makes no keys for sealing")
	}
	path := filepath.Join(t.TempDir(), "sealed.journal")
	const script = `set -e
mount -t tmpfs none /var/log
mkdir -p "/var/log/journal/$(cat /etc/machine-id)"
journalctl --setup-keys --interval=10s --force >/dev/null
` + remotePath + ` --seal=yes -o /var/log/journal/x.journal -
cp /var/log/journal/x.journal "$1"`
	cmd := exec.Command("unshare", "-m", "sh", "-c", script, "sh", path)
	cmd.Stdin = bytes.NewReader(generate(spec{seed: 4, n: 1500, binary: true}))
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "mount") || strings.Contains(string(out), "unshare") {
			t.Skipf("no filesystem of its own can be mounted here: %s", out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	header := journalctl(t, "--header", "--file", path)
	if !bytes.Contains(header, []byte("SEALED")) || !bytes.Contains(header, []byte("Tag objects: ")) {
		t.Fatalf("the file is not sealed:\n%s", header)
	}
	got := exportAll(t, open(t, Options{}, path), variant(t))
	if n := bytes.Count(got, []byte("\n__REALTIME_TIMESTAMP=")); n != 1500 {
		t.Fatalf("%d entries of 1500", n)
	}
	sameExport(t, got, journalctl(t, "-o", "export", "--file", path))
}
