package repo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

type (
	tufRoot      = metadata.Metadata[metadata.RootType]
	tufTimestamp = metadata.Metadata[metadata.TimestampType]
	tufSnapshot  = metadata.Metadata[metadata.SnapshotType]
	tufTargets   = metadata.Metadata[metadata.TargetsType]
)

// attacks are what somebody who holds the web server can do to its files. The
// host has seen version 2 of everything before.
func attacks() []struct {
	name string
	do   func(w *world)
	code Code
	role string
} {
	put := func(from, to string) func(w *world) {
		return func(w *world) {
			data, err := os.ReadFile(filepath.Join(w.dir, "metadata", from))
			if err != nil {
				w.t.Fatal(err)
			}
			mustWrite(w.t, filepath.Join(w.dir, "metadata", to), data)
		}
	}
	raw := func(name, content string) func(w *world) {
		return func(w *world) { mustWrite(w.t, filepath.Join(w.dir, "metadata", name), []byte(content)) }
	}
	return []struct {
		name string
		do   func(w *world)
		code Code
		role string
	}{
		{"another publication from a backup", func(w *world) {
			old := copyDir(w.t, w.dir)
			w.add("1.2", 3, []byte("third"))
			w.publish()
			w.refreshed()
			w.dir = old
		}, CodeRollback, "timestamp"},
		{"freeze", func(w *world) { w.clock = w.clock.Add(8 * 24 * time.Hour) }, CodeExpired, "timestamp"},
		{"an old snapshot with a fresh timestamp", func(w *world) {
			forge(w, "timestamp.json", func(m *tufTimestamp) {
				m.Signed.Version++
				m.Signed.Meta["snapshot.json"] = metadata.MetaFile(1)
			}, w.keys["timestamp"])
		}, CodeRollback, "snapshot"},
		{"old targets with a fresh snapshot", func(w *world) {
			forge(w, "2.snapshot.json", func(m *tufSnapshot) {
				m.Signed.Version = 3
				m.Signed.Meta["targets.json"] = metadata.MetaFile(1)
			}, w.keys["snapshot"])
			put("2.snapshot.json", "3.snapshot.json")(w)
			forge(w, "timestamp.json", func(m *tufTimestamp) {
				m.Signed.Version++
				m.Signed.Meta["snapshot.json"] = metadata.MetaFile(3)
			}, w.keys["timestamp"])
		}, CodeRollback, "targets"},
		{"the snapshot of another publication", func(w *world) {
			w.add("1.2", 3, []byte("third"))
			w.publish()
			put("2.snapshot.json", "3.snapshot.json")(w)
		}, CodeMix, "snapshot"},
		{"the targets of another publication", func(w *world) {
			w.add("1.2", 3, []byte("third"))
			w.publish()
			put("2.targets.json", "3.targets.json")(w)
		}, CodeMix, "targets"},
		{"a snapshot of the wrong version, without digests", func(w *world) {
			forge(w, "timestamp.json", func(m *tufTimestamp) {
				m.Signed.Version++
				m.Signed.Meta["snapshot.json"] = metadata.MetaFile(3)
			}, w.keys["timestamp"])
			put("2.snapshot.json", "3.snapshot.json")(w)
		}, CodeMix, "snapshot"},
		{"a timestamp by another key", func(w *world) {
			forge(w, "timestamp.json", func(m *tufTimestamp) { m.Signed.Version++ }, newKey(w.t))
		}, CodeSignature, "timestamp"},
		{"a timestamp by the key of another role", func(w *world) {
			forge(w, "timestamp.json", func(m *tufTimestamp) { m.Signed.Version++ }, w.keys["targets"])
		}, CodeSignature, "timestamp"},
		{"a timestamp that was changed", func(w *world) {
			forge(w, "timestamp.json", func(m *tufTimestamp) { m.Signed.Expires = m.Signed.Expires.Add(time.Hour) })
		}, CodeSignature, "timestamp"},
		{"a root by another key", func(w *world) {
			forge(w, "1.root.json", func(m *tufRoot) { m.Signed.Version = 2 }, newKey(w.t))
			put("1.root.json", "2.root.json")(w)
		}, CodeSignature, "root"},
		{"the first root as the second", put("1.root.json", "2.root.json"), CodeRollback, "root"},
		{"a root below its threshold", func(w *world) {
			other := newKey(w.t)
			forge(w, "1.root.json", func(m *tufRoot) {
				k, err := tufKey(other)
				if err == nil {
					err = m.Signed.AddKey(k, "root")
				}
				if err != nil {
					w.t.Fatal(err)
				}
				m.Signed.Version, m.Signed.Roles["root"].Threshold = 2, 2
			}, w.keys["root"])
			put("1.root.json", "2.root.json")(w)
		}, CodeThreshold, "root"},
		{"an expired root", func(w *world) { w.clock = w.clock.Add(366 * 24 * time.Hour) }, CodeExpired, "root"},
		{"expired targets", func(w *world) {
			forge(w, "timestamp.json", func(m *tufTimestamp) {
				m.Signed.Version++
				m.Signed.Expires = m.Signed.Expires.Add(300 * 24 * time.Hour)
			}, w.keys["timestamp"])
			w.clock = w.clock.Add(29 * 24 * time.Hour)
			w.refreshed()
			w.clock = w.clock.Add(100 * 24 * time.Hour)
		}, CodeExpired, "snapshot"},
		{"an endless timestamp", raw("timestamp.json", strings.Repeat("x", 1<<20)), CodeTooLarge, "timestamp"},
		{"an endless root", raw("2.root.json", strings.Repeat(" ", 1<<20)), CodeTooLarge, "root"},
		{"a snapshot that is longer than the timestamp says", func(w *world) {
			w.add("1.2", 3, []byte("third"))
			w.publish()
			raw("3.snapshot.json", strings.Repeat(" ", 4000))(w)
		}, CodeTooLarge, "snapshot"},
		{"no JSON", raw("timestamp.json", "<html>captive portal</html>"), CodeMalformed, "timestamp"},
		{"an empty file", raw("timestamp.json", ""), CodeMalformed, "timestamp"},
		{"deep JSON", raw("timestamp.json", strings.Repeat("[", 60000)), CodeMalformed, "timestamp"},
		{"a timestamp without a snapshot", func(w *world) {
			forge(w, "timestamp.json", func(m *tufTimestamp) {
				m.Signed.Version++
				m.Signed.Meta = nil
			}, w.keys["timestamp"])
		}, CodeMalformed, "timestamp"},
		{"a timestamp with nothing as the snapshot", func(w *world) {
			forge(w, "timestamp.json", func(m *tufTimestamp) {
				m.Signed.Version++
				m.Signed.Meta["snapshot.json"] = nil
			}, w.keys["timestamp"])
		}, CodeMalformed, "timestamp"},
		{"a snapshot without targets", func(w *world) {
			forge(w, "2.snapshot.json", func(m *tufSnapshot) {
				m.Signed.Version = 3
				delete(m.Signed.Meta, "targets.json")
			}, w.keys["snapshot"])
			put("2.snapshot.json", "3.snapshot.json")(w)
			forge(w, "timestamp.json", func(m *tufTimestamp) {
				m.Signed.Version++
				m.Signed.Meta["snapshot.json"] = metadata.MetaFile(3)
			}, w.keys["timestamp"])
		}, CodeMalformed, "snapshot"},
		{"the targets in place of the timestamp", put("2.targets.json", "timestamp.json"), CodeMalformed, "timestamp"},
		{"a timestamp that is a directory", func(w *world) {
			name := filepath.Join(w.dir, "metadata", "timestamp.json")
			if err := os.Remove(name); err != nil {
				w.t.Fatal(err)
			}
			if err := os.Mkdir(name, 0o755); err != nil {
				w.t.Fatal(err)
			}
		}, CodeMalformed, "timestamp"},
		{"no timestamp", func(w *world) {
			if err := os.Remove(filepath.Join(w.dir, "metadata", "timestamp.json")); err != nil {
				w.t.Fatal(err)
			}
		}, CodeMissing, "timestamp"},
	}
}

func TestAttacksAreRefusedAndLeaveNothing(t *testing.T) {
	for _, a := range attacks() {
		for _, source := range []string{"http", "directory"} {
			t.Run(a.name+", "+source, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.refreshed()
				pin := w.pin()
				a.do(w)
				if source == "directory" {
					w.source = w.dir
				}
				before := tree(t, filepath.Join(w.state, "update"))
				c := w.hostWith(Options{Source: cmp(w.source, w.srv.URL), Root: pin})
				_, err := c.Refresh(w.ctx)
				e := refused(t, err, a.code, a.code.kind())
				if e.Role != a.role {
					t.Errorf("it is about %q, not %q: %v", e.Role, a.role, err)
				}
				if e.Code == CodeExpired && (e.Expired.IsZero() || !strings.Contains(e.Msg, " ago, at 20")) {
					t.Errorf("it does not say since when: %v", e)
				}
				if after := tree(t, filepath.Join(w.state, "update")); !maps.Equal(before, after) {
					t.Errorf("files changed:\n%s\nafter:\n%s", describe(before), describe(after))
				}
				dst := filepath.Join(t.TempDir(), "package")
				if err := c.Download(w.ctx, Target{Path: "platform-1.0.tar.zst"}, dst, nil); CodeOf(err) != a.code {
					t.Errorf("a download after it: %v", err)
				}
			})
		}
	}
}

func cmp(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// An attack right at the first contact has no version to be compared with, but
// everything else holds.
func TestAttacksAtFirstContact(t *testing.T) {
	for _, a := range attacks() {
		if a.code == CodeRollback && a.role != "root" || strings.Contains(a.name, "expired targets") {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			pin := w.pin()
			a.do(w)
			_, err := w.hostWith(Options{Source: w.srv.URL, Root: pin}).Refresh(w.ctx)
			refused(t, err, a.code, a.code.kind())
			if left := tree(t, filepath.Join(w.state, "update")); len(left) > 0 {
				t.Errorf("left behind:\n%s", describe(left))
			}
		})
	}
}

// A server can also misbehave on the line.
func TestServersThatMisbehave(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a redirect to another host was followed") }))
	t.Cleanup(elsewhere.Close)
	for _, tc := range []struct {
		name  string
		serve func(w *world) http.HandlerFunc
		code  Code
	}{
		{"redirects to another host", func(*world) http.HandlerFunc {
			return func(rw http.ResponseWriter, r *http.Request) {
				http.Redirect(rw, r, elsewhere.URL+r.URL.Path, http.StatusFound)
			}
		}, CodeRedirect},
		{"redirects for ever", func(*world) http.HandlerFunc {
			return func(rw http.ResponseWriter, r *http.Request) {
				http.Redirect(rw, r, r.URL.Path+"x", http.StatusFound)
			}
		}, CodeRedirect},
		{"redirects to a file", func(*world) http.HandlerFunc {
			return func(rw http.ResponseWriter, r *http.Request) {
				http.Redirect(rw, r, "file:///etc/passwd", http.StatusFound)
			}
		}, CodeRedirect},
		{"an error", func(*world) http.HandlerFunc {
			return func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusBadGateway) }
		}, CodeUnreachable},
		{"hangs up", func(*world) http.HandlerFunc {
			return func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
		}, CodeUnreachable},
		{"never answers", func(*world) http.HandlerFunc {
			return func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		}, CodeStalled},
		{"a byte now and then", func(*world) http.HandlerFunc {
			return func(rw http.ResponseWriter, r *http.Request) {
				for r.Context().Err() == nil {
					_, _ = rw.Write([]byte(" "))
					_ = http.NewResponseController(rw).Flush()
					time.Sleep(10 * time.Millisecond)
				}
			}
		}, CodeStalled},
		{"endless", func(*world) http.HandlerFunc {
			return func(rw http.ResponseWriter, r *http.Request) {
				chunk := bytes.Repeat([]byte(" "), 64<<10)
				for {
					if _, err := rw.Write(chunk); err != nil {
						return
					}
				}
			}
		}, CodeTooLarge},
		{"endless header", func(*world) http.HandlerFunc {
			return func(rw http.ResponseWriter, r *http.Request) {
				conn, buf, err := http.NewResponseController(rw).Hijack()
				if err != nil {
					return
				}
				defer conn.Close()
				fmt.Fprint(buf, "HTTP/1.1 200 OK\r\n")
				for range 1 << 20 {
					if _, err := fmt.Fprint(buf, "X: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
						return
					}
				}
			}
		}, CodeUnreachable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.limits = Limits{Request: 500 * time.Millisecond}
			if tc.code != CodeStalled {
				w.limits.Request = 2 * time.Minute
			}
			w.serve = tc.serve(w)
			_, err := w.host().Refresh(w.ctx)
			refused(t, err, tc.code, tc.code.kind())
		})
	}
}

func TestRedirects(t *testing.T) {
	req := func(u string) *http.Request {
		r, err := http.NewRequest(http.MethodGet, u, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, tc := range []struct {
		from, to string
		ok       bool
	}{
		{"https://a/x", "https://a/y", true},
		{"https://a/x", "https://A/y", true},
		{"http://a/x", "https://a/x", true},
		{"http://a:8080/x", "https://a/x", true},
		{"https://a/x", "http://a/x", false},
		{"https://a/x", "https://a:444/x", false},
		{"https://a/x", "https://b/x", false},
		{"http://a/x", "http://169.254.169.254/", false},
		{"http://a/x", "ftp://a/x", false},
		{"http://a/x", "file:///etc/passwd", false},
	} {
		err := checkRedirect(req(tc.to), []*http.Request{req(tc.from)})
		if (err == nil) != tc.ok {
			t.Errorf("%s to %s: %v", tc.from, tc.to, err)
		}
		if err != nil && CodeOf(err) != CodeRedirect {
			t.Errorf("%v has the code %q", err, CodeOf(err))
		}
	}
}

// A server that moves files about on itself is none of our business.
func TestARedirectOnTheSameServerIsFollowed(t *testing.T) {
	w := newWorld(t)
	w.serve = func(rw http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/moved"); ok {
			r.URL.Path = rest
			w.file(rw, r)
			return
		}
		http.Redirect(rw, r, "/moved"+r.URL.Path, http.StatusMovedPermanently)
	}
	if list := w.available(w.refreshed()); len(list) != 2 {
		t.Error(list)
	}
}

// A package whose custom metadata nobody understands is named and left out; the
// others stay.
func TestUnusablePackagesAreNamed(t *testing.T) {
	w := newWorld(t)
	custom := []byte(`{"mobileops":{"name":"Bad Name"}}`)
	other := []byte(`{"somebody":"else"}`)
	forge(w, "2.targets.json", func(m *tufTargets) {
		sum := metadata.Hashes{"sha256": make([]byte, 32)}
		m.Signed.Version = 3
		m.Signed.Targets["bad.tar.gz"] = &metadata.TargetFiles{Length: 1, Hashes: sum, Custom: (*json.RawMessage)(&custom)}
		m.Signed.Targets["../../etc/passwd"] = &metadata.TargetFiles{Length: 1, Hashes: sum, Custom: m.Signed.Targets["platform-1.0.tar.zst"].Custom}
		m.Signed.Targets["md5.tar"] = &metadata.TargetFiles{Length: 1, Hashes: metadata.Hashes{"md5": make([]byte, 16)}, Custom: m.Signed.Targets["platform-1.0.tar.zst"].Custom}
		m.Signed.Targets["else.tar.gz"] = &metadata.TargetFiles{Length: 1, Hashes: sum, Custom: (*json.RawMessage)(&other)}
	}, w.keys["targets"])
	if err := os.Rename(filepath.Join(w.dir, "metadata/2.targets.json"), filepath.Join(w.dir, "metadata/3.targets.json")); err != nil {
		t.Fatal(err)
	}
	forge(w, "2.snapshot.json", func(m *tufSnapshot) {
		m.Signed.Version, m.Signed.Meta["targets.json"] = 3, metadata.MetaFile(3)
	}, w.keys["snapshot"])
	if err := os.Rename(filepath.Join(w.dir, "metadata/2.snapshot.json"), filepath.Join(w.dir, "metadata/3.snapshot.json")); err != nil {
		t.Fatal(err)
	}
	forge(w, "timestamp.json", func(m *tufTimestamp) {
		m.Signed.Version++
		m.Signed.Meta["snapshot.json"] = metadata.MetaFile(3)
	}, w.keys["timestamp"])
	c := w.host()
	f, err := c.Refresh(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Unusable) != 3 || f.Unusable[0].Path != "../../etc/passwd" || f.Unusable[1].Path != "bad.tar.gz" || f.Unusable[2].Path != "md5.tar" {
		t.Errorf("%+v", f.Unusable)
	}
	if list := w.available(c); len(list) != 2 {
		t.Errorf("%+v", list)
	}
	dst := filepath.Join(t.TempDir(), "x")
	refused(t, c.Download(w.ctx, Target{Path: "../../etc/passwd"}, dst, nil), CodeMalformed, failure.Untrustworthy)
	refused(t, c.Download(w.ctx, Target{Path: "md5.tar"}, dst, nil), CodeMalformed, failure.Untrustworthy)
	refused(t, c.Download(w.ctx, Target{Path: "nothing"}, dst, nil), CodeNotFound, failure.No)
}

// A root that names broken keys is refused, and nothing panics.
func TestBrokenKeysInARoot(t *testing.T) {
	w := newWorld(t)
	pin := w.pin()
	for _, public := range []string{"", "00", "zz", strings.Repeat("00", 31), strings.Repeat("00", 33)} {
		broken := bytes.Clone(pin)
		good := fmt.Sprintf("%x", []byte(w.keys["timestamp"].Public().Ed25519))
		broken = bytes.ReplaceAll(broken, []byte(good), []byte(public))
		forgeRoot(t, w, broken, w.keys["root"])
		_, err := w.hostWith(Options{Source: w.dir, Root: pinOf(t, w)}).Refresh(w.ctx)
		if failure.KindOf(err) != failure.Untrustworthy || CodeOf(err) == "" {
			t.Errorf("a key of %q: %v", public, err)
		}
	}
}

func forgeRoot(t *testing.T, w *world, data []byte, signers ...trust.Signer) {
	t.Helper()
	mustWrite(t, filepath.Join(w.dir, "metadata", "9.root.json"), data)
	forge(w, "9.root.json", func(*tufRoot) {}, signers...)
}

func pinOf(t *testing.T, w *world) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join(w.dir, "metadata", "9.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
