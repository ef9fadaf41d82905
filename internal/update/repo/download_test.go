package repo

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// big makes a repository with a package that is larger than every buffer on the
// way.
func big(t *testing.T) (*world, []byte) {
	w := newWorld(t)
	content := noise(8 << 20)
	w.add("2.0", 9, content)
	w.publish()
	return w, content
}

func (w *world) newest(c *Client) Target {
	list := w.available(c)
	return list[len(list)-1]
}

func parts(t *testing.T, dst string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(filepath.Dir(dst), ".*"+partEnd))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// cutting answers with at most n bytes of a package, and counts the bytes that
// it was asked for.
func cutting(w *world, n int, ranges *[]string) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/targets/") {
			w.file(rw, r)
			return
		}
		*ranges = append(*ranges, r.Header.Get("Range"))
		w.file(&cutWriter{ResponseWriter: rw, left: n}, r)
	}
}

type cutWriter struct {
	http.ResponseWriter
	left int
}

func (c *cutWriter) Write(b []byte) (int, error) {
	if len(b) > c.left {
		_, _ = c.ResponseWriter.Write(b[:c.left])
		_ = http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	c.left -= len(b)
	return c.ResponseWriter.Write(b)
}

func TestADownloadGoesOnWhereItWasCut(t *testing.T) {
	w, content := big(t)
	var ranges []string
	w.serve = cutting(w, 1<<20, &ranges)
	c := w.refreshed()
	dst := filepath.Join(t.TempDir(), "package")
	err := c.Download(w.ctx, w.newest(c), dst, nil)
	refused(t, err, CodeUnreachable, failure.Failed)
	if len(ranges) != attempts || ranges[0] != "" || !strings.HasPrefix(ranges[1], "bytes=") {
		t.Fatalf("it was asked for %q", ranges)
	}
	left := parts(t, dst)
	if len(left) != 1 {
		t.Fatalf("left: %v", left)
	}
	st, err := os.Stat(left[0])
	if err != nil || st.Size() < 4<<20 || st.Size() >= int64(len(content)) {
		t.Fatalf("%d bytes are left, %v", st.Size(), err)
	}
	if _, err := os.Lstat(dst); err == nil {
		t.Fatal("half a package has its name")
	}
	// Another process, later.
	ranges = nil
	c = w.refreshed()
	var seen int64
	if err := c.Download(w.ctx, w.newest(c), dst, func(n int64) { seen += n }); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(ranges[0], "bytes=") {
		t.Errorf("it was asked for %q", ranges)
	}
	if got, _ := os.ReadFile(dst); !bytes.Equal(got, content) || seen != int64(len(content)) {
		t.Errorf("another content; counted %d", seen)
	}
	if left := parts(t, dst); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestWhatIsLeftIsProvedOnlyAtTheEnd(t *testing.T) {
	w, content := big(t)
	for name, tc := range map[string]struct {
		left   []byte
		noRest bool // the server knows no ranges
		from   string
	}{
		"right":                       {content[:3<<20], false, "bytes=3145728-"},
		"right, no ranges":            {content[:3<<20], true, "bytes=3145728-"},
		"wrong":                       {append(noise(1000), content[1000:3<<20]...), false, "bytes=3145728-"},
		"wrong, no ranges":            {noise(1000), true, "bytes=1000-"},
		"whole":                       {content, false, "nothing"},
		"whole and wrong":             {noise(len(content) + 1)[1:], false, ""},
		"longer than the package is":  {append(bytes.Clone(content), 0), false, ""},
		"nothing":                     {nil, false, ""},
		"all but one":                 {content[:len(content)-1], false, "bytes=8388607-"},
		"all but one, last one wrong": {append(bytes.Clone(content[:len(content)-2]), ^content[len(content)-2]), false, "bytes=8388607-"},
	} {
		t.Run(name, func(t *testing.T) {
			var ranges []string
			w.serve = func(rw http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/targets/") {
					ranges = append(ranges, r.Header.Get("Range"))
					if tc.noRest {
						r.Header.Del("Range")
					}
				}
				w.file(rw, r)
			}
			c := w.refreshed()
			target := w.newest(c)
			dst := filepath.Join(t.TempDir(), "package")
			if tc.left != nil {
				mustWrite(t, partName(dst, target.SHA256()[:16]), tc.left)
			}
			var seen int64
			if err := c.Download(w.ctx, target, dst, func(n int64) { seen += n }); err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(dst); !bytes.Equal(got, content) {
				t.Error("another content")
			}
			if first := append(ranges, "nothing")[0]; first != tc.from {
				t.Errorf("it was asked for %q first, not %q", first, tc.from)
			}
			if seen != int64(len(content)) {
				t.Errorf("%d bytes were counted", seen)
			}
			if left := parts(t, dst); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// A package that is not the one that was published never gets its name, and
// nothing of it stays.
func TestAnotherPackageIsRefused(t *testing.T) {
	w, content := big(t)
	other := append(noise(9), content[9:]...)
	for name, tc := range map[string]struct {
		body []byte
		code Code
	}{
		"another content": {other, CodeHash},
		"shorter":         {content[:1000], CodeLength},
		"longer":          {append(bytes.Clone(content), 'x'), CodeLength},
		"empty":           {nil, CodeLength},
	} {
		for _, source := range []string{"http", "directory"} {
			t.Run(name+", "+source, func(t *testing.T) {
				w.source = ""
				c := w.refreshed()
				target := w.newest(c)
				path := filepath.Join(w.dir, filepath.FromSlash(remoteTarget(target.Path, target.Hashes, true)))
				mustWrite(t, path, tc.body)
				defer mustWrite(t, path, content)
				if source == "directory" {
					w.source = w.dir
					c = w.refreshed()
				}
				dst := filepath.Join(t.TempDir(), "package")
				mustWrite(t, dst, []byte("what was here before"))
				refused(t, c.Download(w.ctx, target, dst, nil), tc.code, failure.Untrustworthy)
				if got, _ := os.ReadFile(dst); string(got) != "what was here before" {
					t.Error("the file that was there is gone")
				}
				if left := parts(t, dst); len(left) != 0 {
					t.Errorf("left: %v", left)
				}
			})
		}
	}
	t.Run("endless", func(t *testing.T) {
		w.source = ""
		var sent atomic.Int64
		w.serve = func(rw http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.URL.Path, "/targets/") {
				w.file(rw, r)
				return
			}
			for chunk := noise(64 << 10); ; {
				n, err := rw.Write(chunk)
				sent.Add(int64(n))
				if err != nil {
					return
				}
			}
		}
		c := w.refreshed()
		dst := filepath.Join(t.TempDir(), "package")
		refused(t, c.Download(w.ctx, w.newest(c), dst, nil), CodeLength, failure.Untrustworthy)
		if left := parts(t, dst); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		if n := sent.Load(); n > 64<<20 {
			t.Errorf("%d bytes were taken", n)
		}
	})
	t.Run("gone", func(t *testing.T) {
		w.serve = func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/targets/") {
				http.NotFound(rw, r)
				return
			}
			w.file(rw, r)
		}
		c := w.refreshed()
		dst := filepath.Join(t.TempDir(), "package")
		refused(t, c.Download(w.ctx, w.newest(c), dst, nil), CodeMissing, failure.Failed)
		if left := parts(t, dst); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
	t.Run("a part of another place", func(t *testing.T) {
		w.serve = func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				r.Header.Set("Range", "bytes=5-")
			}
			w.file(rw, r)
		}
		c := w.refreshed()
		target := w.newest(c)
		dst := filepath.Join(t.TempDir(), "package")
		mustWrite(t, partName(dst, target.SHA256()[:16]), content[:100])
		refused(t, c.Download(w.ctx, target, dst, nil), CodeMalformed, failure.Untrustworthy)
	})
}

func TestAStalledTransferIsGivenUp(t *testing.T) {
	w, content := big(t)
	w.limits = Limits{Stall: 3 * time.Second, StallBytes: 1000} // what does arrive is not held up as long on a busy machine
	for name, every := range map[string]time.Duration{"nothing more": time.Hour, "a byte now and then": 20 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			w.serve = func(rw http.ResponseWriter, r *http.Request) {
				if !strings.HasPrefix(r.URL.Path, "/targets/") {
					w.file(rw, r)
					return
				}
				rw.Header().Set("Content-Length", "8388608")
				_, _ = rw.Write(content[:1<<20])
				for at := 1 << 20; ; at++ {
					_ = http.NewResponseController(rw).Flush()
					select {
					case <-r.Context().Done():
						return
					case <-time.After(every):
						_, _ = rw.Write(content[at : at+1])
					}
				}
			}
			c := w.refreshed()
			dst := filepath.Join(t.TempDir(), "package")
			refused(t, c.Download(w.ctx, w.newest(c), dst, nil), CodeStalled, failure.Failed)
			if left := parts(t, dst); len(left) != 1 {
				t.Fatalf("left: %v", left)
			}
			w.serve = nil
			if err := c.Download(w.ctx, w.newest(c), dst, nil); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestAnInterruptedDownloadLeavesAPart(t *testing.T) {
	w, content := big(t)
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	c := w.refreshed()
	dst := filepath.Join(t.TempDir(), "package")
	var seen int64
	err := c.Download(ctx, w.newest(c), dst, func(n int64) {
		if seen += n; seen > 1<<20 {
			cancel()
		}
	})
	if failure.KindOf(err) != failure.Interrupted {
		t.Fatalf("%v", err)
	}
	if left := parts(t, dst); len(left) != 1 {
		t.Fatalf("left: %v", left)
	}
	if err := c.Download(w.ctx, w.newest(c), dst, nil); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(dst); !bytes.Equal(got, content) {
		t.Error("another content")
	}
}

func TestTwoDownloadsOfOnePackage(t *testing.T) {
	w, _ := big(t)
	dst := filepath.Join(t.TempDir(), "package")
	c := w.refreshed()
	target := w.newest(c)
	busy := false
	err := c.Download(w.ctx, target, dst, func(int64) {
		if !busy {
			if err := w.refreshed().Download(w.ctx, target, dst, nil); failure.KindOf(err) != failure.Busy {
				t.Errorf("a second download: %v", err)
			}
			busy = true
		}
	})
	if err != nil || !busy {
		t.Fatal(err)
	}
	// What is left of another version goes once nobody writes it.
	mustWrite(t, partName(dst, "0123456789abcdef"), []byte("x"))
	if err := c.Download(w.ctx, target, dst, nil); err != nil {
		t.Fatal(err)
	}
	if left := parts(t, dst); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// On a full disk nothing wrong gets a name, and with more room the download goes
// on.
func TestAFullDisk(t *testing.T) {
	w, content := big(t)
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small filesystem needs root")
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("THIS TEST DID NOT RUN: no small filesystem can be mounted here: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	c := w.refreshed()
	dst := filepath.Join(dir, "package")
	err := c.Download(w.ctx, w.newest(c), dst, nil)
	refused(t, err, CodeDisk, failure.Failed)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room") {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left: %v", entries)
	}
	// Room that goes while it is on its way.
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=9m"); err != nil {
		t.Fatal(err)
	}
	part := partName(dst, w.newest(c).SHA256()[:16])
	mustWrite(t, part, content[:1<<20])
	d := &transfer{path: "package", length: int64(len(content)), sums: w.newest(c).Hashes, progress: func(int64) {}}
	d.part = noRoom(t)
	d.hashes, _ = digests(d.sums)
	if _, err := d.copy(bytes.NewReader(content), d.part, 1<<20); CodeOf(err) != CodeDisk || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a write without room: %v", err)
	}
	if err := c.Download(w.ctx, w.newest(c), dst, nil); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(dst); !bytes.Equal(got, content) {
		t.Error("another content")
	}
}

func noRoom(t *testing.T) *os.File {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A package goes through a small buffer, whatever its size.
func TestMemoryIsBounded(t *testing.T) {
	w := newWorld(t)
	w.add("3.0", 20, noise(48<<20))
	w.publish()
	w.source = w.dir
	c := w.refreshed()
	target := w.newest(c)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := c.Download(w.ctx, target, filepath.Join(t.TempDir(), "package"), nil); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("%d bytes of memory for a package of %d", n, target.Length)
	}
}
