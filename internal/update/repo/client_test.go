package repo

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

func TestAHostSeesWhatIsPublished(t *testing.T) {
	w := newWorld(t)
	for _, source := range []string{"", w.dir, "file://" + w.dir} {
		w.source, w.state = source, t.TempDir()
		c := w.host()
		f, err := c.Refresh(w.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if len(f.Roles) != 4 || f.Roles[0].Version != 1 || f.Roles[3].Version != 2 || f.Expired != nil || f.Offline || !f.Checked.Equal(w.clock) {
			t.Errorf("%q: %+v", source, f)
		}
		list := w.available(c)
		if len(list) != 2 || list[0].Release != release("1.0", 1) || list[1].Release != release("1.1", 2) || list[1].Severity != "critical" || !list[1].Signed ||
			list[1].Length != 600000 || list[1].Rollout != (Rollout{100, "platform-1.1"}) {
			t.Fatalf("%q: %+v", source, list)
		}
		dst := filepath.Join(t.TempDir(), "package")
		var seen int64
		if err := c.Download(w.ctx, list[1], dst, func(n int64) { seen += n }); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(dst); !bytes.Equal(got, bytes.Repeat([]byte("second"), 100000)) || seen != list[1].Length {
			t.Errorf("%q: another file arrived, %d bytes were counted", source, seen)
		}
		if err := c.DownloadSignature(w.ctx, list[1], dst+".minisig"); err != nil {
			t.Fatal(err)
		}
		if entries, _ := os.ReadDir(filepath.Dir(dst)); len(entries) != 2 {
			t.Errorf("%q: left beside them: %v", source, entries)
		}
	}
}

// What was verified once can be looked at when the source is out of reach, also
// after it has expired, but not be applied.
func TestLookingOffline(t *testing.T) {
	w := newWorld(t)
	c := w.host()
	if _, err := c.Available(w.ctx); CodeOf(err) != CodeNever || failure.KindOf(err) != failure.NotReady {
		t.Fatalf("before the first check: %v", err)
	}
	w.refreshed()
	w.srv.Close()
	c = w.host()
	_, err := c.Refresh(w.ctx)
	refused(t, err, CodeUnreachable, failure.Failed)
	list := w.available(c)
	if f, ok := c.Freshness(); !ok || !f.Offline || !f.Checked.Equal(w.clock) || f.Expired != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", f, list)
	}
	checked := w.clock
	w.clock = w.clock.Add(10 * 24 * time.Hour)
	c = w.host()
	if list = w.available(c); len(list) != 2 {
		t.Fatal(list)
	}
	f, _ := c.Freshness()
	if e := f.Expired; e == nil || e.Role != "timestamp" || !f.Checked.Equal(checked) {
		t.Fatalf("%+v", f)
	} else if want := "the timestamp of the repository expired 3 days ago, at 2026-11-29T12:00:00Z"; e.Msg != want {
		t.Errorf("got %q, want %q", e.Msg, want)
	}
	dst := filepath.Join(t.TempDir(), "package")
	refused(t, c.Download(w.ctx, list[0], dst, nil), CodeUnreachable, failure.Failed)
	if _, err := os.Lstat(dst); err == nil {
		t.Error("it was downloaded")
	}
}

func TestWhatCannotBeOpened(t *testing.T) {
	w := newWorld(t)
	for _, source := range []string{"", "ftp://example.org/", "http://", "https:///x", "https://example.org/?q", "file://elsewhere/x", "file:relative", "http://user:secret\x7f@h/"} {
		c, err := Open(Options{Source: source, Root: w.pin(), Dir: t.TempDir(), State: w.host().opts.State})
		if source == "file:relative" { // the name of a directory
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%q was opened: %v", source, c)
		} else if bytes.Contains([]byte(err.Error()), []byte("secret")) {
			t.Errorf("a password is shown: %v", err)
		}
	}
	w.source = filepath.Join(t.TempDir(), "not-mounted")
	_, err := w.host().Refresh(w.ctx)
	refused(t, err, CodeUnreachable, failure.Failed)
	w.source = t.TempDir()
	_, err = w.host().Refresh(w.ctx)
	refused(t, err, CodeMissing, failure.Failed)
	for _, root := range []string{"x", "{}", `{"signed":{"_type":"root"}}`, string(tree(t, w.dir)["/metadata/timestamp.json"])} {
		_, err := w.hostWith(Options{Source: w.dir, Root: []byte(root)}).Refresh(w.ctx)
		refused(t, err, CodeRoot, failure.Untrustworthy)
	}
}
