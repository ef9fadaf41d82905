package source

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func TestRenameRotation(t *testing.T) {
	h := newHost(t)
	h.write("app.log", numbered(0, 100))
	h.once()
	h.append("app.log", numbered(100, 150))
	h.rename("app.log", "app.log.1")
	h.write("app.log", numbered(150, 200))
	h.once()
	h.expect(200)
	if got := h.sink.sources(); len(got) != 1 || got[0] != h.path("app.log") {
		t.Errorf("sources %q", got)
	}
	h.once()
	h.expect(200)
	h.rename("app.log.1", "app.log.2")
	h.rename("app.log", "app.log.1")
	h.write("app.log", numbered(200, 201))
	h.once()
	h.expect(201)
}

// Files of many sizes, so that fingerprints are of fewer and of more bytes
// than there can be.
func sizes() []int { return []int{1, 2, 5, 15, 16, 17, 40, 5000} }

func TestCopyTruncate(t *testing.T) {
	for _, n := range sizes() {
		h := newHost(t)
		h.write("app.log", numbered(0, n))
		h.once()
		h.append("app.log", numbered(n, 2*n)) // not read before the rotation
		h.copyTruncate("app.log", "app.log.1")
		h.append("app.log", numbered(2*n, 3*n))
		h.once()
		h.expect(3 * n)
		// The new content is longer than the old one was.
		h.copyTruncate("app.log", "app.log.2")
		h.append("app.log", numbered(3*n, 30*n))
		h.once()
		h.expect(30 * n)
	}
}

func TestCompressedRotation(t *testing.T) {
	for _, tool := range []struct{ command, ext string }{{"gzip", ".gz"}, {"xz", ".xz"}, {"zstd --rm -q", ".zst"}, {"bzip2", ".bz2"}} {
		for _, n := range sizes() {
			h := newHost(t)
			h.write("app.log", numbered(0, n))
			h.once()
			h.append("app.log", numbered(n, 2*n))
			h.rename("app.log", "app.log.1")
			h.write("app.log", numbered(2*n, 3*n))
			run(t, tool.command+" "+h.path("app.log.1"))
			h.once()
			h.expect(3 * n)
			h.rename("app.log.1"+tool.ext, "app.log.2"+tool.ext)
			h.once()
			h.expect(3 * n)
			// Never read before it was compressed.
			h.write("app.log.3", numbered(3*n, 4*n))
			run(t, tool.command+" "+h.path("app.log.3"))
			h.once()
			h.expect(4 * n)
		}
	}
}

func TestDateExtension(t *testing.T) {
	h := newHost(t, "app.log", "web.log")
	h.write("app.log", numbered(0, 50))
	h.once()
	h.append("app.log", numbered(50, 60))
	h.rename("app.log", "app-20261122.log")
	run(t, "gzip "+h.path("app-20261122.log"))
	h.write("app.log", numbered(60, 70))
	h.write("web.log-20261121", numbered(70, 80))
	h.write("web.log-2026-11-20", numbered(80, 90))
	h.write("web.log.20261122-061010", numbered(90, 100))
	h.once()
	h.expect(100)
	if got := strings.Join(h.sink.sources(), " "); got != h.path("app.log")+" "+h.path("web.log") {
		t.Errorf("sources %s", got)
	}
}

func TestCopyIsNoOtherFile(t *testing.T) {
	h := newHost(t, "*.log")
	h.write("app.log", numbered(0, 1000))
	h.once()
	h.write("app.log.bak", numbered(0, 1000))
	h.write("app.log.1", numbered(0, 500)) // a copy that is being made
	h.once()
	h.expect(1000)
	h.append("app.log", numbered(1000, 1100))
	h.copyTruncate("app.log", "app.log.1")
	h.once()
	h.append("app.log", numbered(1100, 1200))
	h.once()
	h.expect(1200)
	// The copies outlive what they are copies of.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(h.path("app.log.bak"), old, old); err != nil {
		t.Fatal(err)
	}
	h.once()
	h.remove("app.log.1")
	h.once()
	h.expect(1200)
}

func TestSameBanner(t *testing.T) {
	banner := strings.Repeat("==== the same at every start of the program ====\n", 40)
	h := newHost(t)
	h.write("app.log", banner+"2026-11-22T06:00:00Z a: line number 0 of the test\n")
	h.write("app.log.1", banner+"2026-11-21T06:00:00Z a: line number 1 of the test\n")
	h.write("app.log.2", banner+"2026-11-20T06:00:00Z a: line number 2 of the test\n")
	run(t, "gzip "+h.path("app.log.2"))
	h.once()
	seen := map[string]int{}
	for _, l := range h.sink.lines() {
		for _, part := range strings.Split(l, "\n") {
			seen[part[strings.LastIndex(part, " a: ")+1:]]++
		}
	}
	for _, want := range []string{"a: line number 0 of the test", "a: line number 1 of the test", "a: line number 2 of the test"} {
		if seen[want] != 1 {
			t.Errorf("%q is there %d times: %v", want, seen[want], seen)
		}
	}
}

// A small file that begins like another one of the log is not that one.
func TestSameShortBeginning(t *testing.T) {
	h := newHost(t)
	h.write("app.log", "started\n")
	h.once()
	h.rename("app.log", "app.log.1")
	h.write("app.log", "started\n")
	h.once()
	h.append("app.log", "stopped\n")
	h.once()
	if got := strings.Join(h.sink.lines(), " "); got != "started started stopped" {
		t.Errorf("read %q", got)
	}
	h.remove("app.log.1")
	h.remove("app.log")
	h.write("app.log", "started\n") // often with the inode that became free
	h.once()
	if got := strings.Join(h.sink.lines(), " "); got != "started started stopped started" {
		t.Errorf("read %q", got)
	}
}

func run(t *testing.T, command string) {
	t.Helper()
	args := strings.Fields(command)
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Skipf("%s is not installed: nothing is known about files that it makes", args[0])
	}
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}
