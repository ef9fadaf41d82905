package repo

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
)

// Any web server will do: Python's, which knows no ranges and gives no
// encoding, serves the directory as it is.
func TestAPlainWebServer(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("THIS TEST DID NOT RUN: python3 is not installed, see make test")
	}
	w, content := big(t)
	cmd := exec.CommandContext(w.ctx, python, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", w.dir, "0")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	t.Cleanup(stop)
	line, err := bufio.NewReader(out).ReadString('\n') // "Serving HTTP on 127.0.0.1 port 40381 (http://127.0.0.1:40381/) ..."
	if err != nil {
		t.Fatal(err)
	}
	url := regexp.MustCompile(`http://[0-9.:]+/`).FindString(line)
	if url == "" {
		t.Fatalf("it says %q", line)
	}
	w.source = url
	c := w.refreshed()
	target := w.newest(c)
	dst := filepath.Join(t.TempDir(), "package")
	// What is left cannot be gone on with there, so it begins anew.
	mustWrite(t, partName(dst, target.SHA256()[:16]), content[:1<<20])
	if err := c.Download(w.ctx, target, dst, nil); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(dst); !bytes.Equal(got, content) {
		t.Error("another content")
	}
	// The publisher goes on while it is served.
	w.add("3.0", 30, []byte("x"))
	w.publish()
	if list := w.available(w.refreshed()); len(list) != 4 {
		t.Errorf("%d packages", len(list))
	}
	stop()
	_, err = w.host().Refresh(w.ctx)
	refused(t, err, CodeUnreachable, failure.Failed)
}
