package anchor

import (
	"bufio"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

func anchorOf(n uint64) Anchor {
	a := Anchor{Host: host, Counter: n, Time: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	a.Digest[0] = byte(n)
	return a
}

func TestParsePlace(t *testing.T) {
	for in, want := range map[string]string{
		"file:/mnt/a/../anchors":     "file:/mnt/anchors",
		"/mnt/anchors":               "file:/mnt/anchors",
		"https://a.example/x?y=1":    "https://a.example/x?y=1",
		"http://127.0.0.1:8080/a":    "http://127.0.0.1:8080/a",
		"syslog:":                    "syslog:/dev/log",
		"syslog:unix:/run/log":       "syslog:/run/log",
		"syslog:/run/log":            "syslog:/run/log",
		"syslog:tcp://logs.example":  "syslog:tcp://logs.example:601",
		"syslog:udp://logs.example":  "syslog:udp://logs.example:514",
		"syslog:udp://[::1]:5514":    "syslog:udp://[::1]:5514",
		"syslog:tcp://10.0.0.1:1":    "syslog:tcp://10.0.0.1:1",
		"anchors":                    "",
		"file:anchors":               "",
		"file://host/anchors":        "",
		"http://anchors.example/":    "",
		"https://me:word@a.example/": "",
		"https://":                   "",
		"ftp://a.example/":           "",
		"syslog:tls://logs.example":  "",
		"syslog:tcp://logs:70000":    "",
		"syslog:tcp://":              "",
		"":                           "",
	} {
		p, err := ParsePlace(in, true, Options{})
		if want == "" {
			if failure.KindOf(err) != failure.Usage {
				t.Errorf("%q: %v, %v", in, p, err)
			}
		} else if err != nil || p.String() != want {
			t.Errorf("%q: %v, %v, want %s", in, p, err, want)
		}
	}
	if _, err := ParsePlace("/mnt/anchors", false, Options{}); err == nil {
		t.Error("a plain path in the configuration")
	}
}

func TestFile(t *testing.T) {
	f := &File{filepath.Join(t.TempDir(), "anchors")}
	if a, err := f.Read(t.Context(), host); a != nil || err != nil {
		t.Errorf("of nothing: %v %v", a, err)
	}
	for n := range uint64(3) {
		if err := f.Write(t.Context(), anchorOf(n+1)); err != nil {
			t.Fatal(err)
		}
		if a, err := f.Read(t.Context(), host); err != nil || a.Counter != n+1 {
			t.Errorf("%v %v", a, err)
		}
	}
	// The line of a crash does not swallow the next one.
	b, err := os.ReadFile(f.Path)
	if err != nil || strings.Count(string(b), "\n") != 3 {
		t.Fatalf("%q %v", b, err)
	}
	if err := os.Truncate(f.Path, int64(len(b)-20)); err != nil {
		t.Fatal(err)
	}
	if a, err := f.Read(t.Context(), host); err != nil || a.Counter != 2 {
		t.Errorf("%v %v", a, err)
	}
	if err := f.Write(t.Context(), anchorOf(4)); err != nil {
		t.Fatal(err)
	}
	if a, err := f.Read(t.Context(), host); err != nil || a.Counter != 4 {
		t.Errorf("%v %v", a, err)
	}
	// A long file is read from near its end.
	if err := os.WriteFile(f.Path, append([]byte(strings.Repeat("# long\n", 300_000)), b...), 0o644); err != nil {
		t.Fatal(err)
	}
	if a, err := f.Read(t.Context(), host); err != nil || a.Counter != 3 {
		t.Errorf("%v %v", a, err)
	}

	for _, path := range []string{t.TempDir(), filepath.Join(t.TempDir(), "missing", "anchors"), "/dev/null"} {
		bad := &File{path}
		if _, err := bad.Read(t.Context(), host); !errors.Is(err, ErrUnreachable) {
			t.Errorf("read %s: %v", path, err)
		}
		if err := bad.Write(t.Context(), anchorOf(1)); err == nil {
			t.Errorf("write %s", path)
		}
	}
}

// Many processes may append to one file of a shared directory.
func TestFileShared(t *testing.T) {
	f := &File{filepath.Join(t.TempDir(), "anchors")}
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for n := range uint64(20) {
				a := anchorOf(n + 1)
				a.Host = fmt.Sprintf("host%d", w)
				if err := f.Write(context.Background(), a); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	b, err := os.ReadFile(f.Path)
	if err != nil || strings.Count(string(b), "\n") != 160 {
		t.Errorf("%d lines, %v", strings.Count(string(b), "\n"), err)
	}
	for w := range 8 {
		if a, err := f.Read(t.Context(), fmt.Sprintf("host%d", w)); err != nil || a.Counter != 20 {
			t.Errorf("%v %v", a, err)
		}
	}
}

// server keeps what is PUT, appends what is POSTed, and wants a token.
type server struct {
	mu     sync.Mutex
	text   string
	token  string
	behave func(w http.ResponseWriter, r *http.Request) bool // true: it answered
}

// answer lets something else answer from now on.
func (s *server) answer(behave func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behave = behave
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.behave != nil && s.behave(w, r) {
		return
	}
	if s.token != "" && r.Header.Get("Authorization") != "Bearer "+s.token {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	body, _ := io.ReadAll(r.Body)
	switch {
	case r.Method == http.MethodPut:
		s.text = string(body)
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodPost:
		s.text += string(body)
	case s.text == "":
		http.NotFound(w, r)
	default:
		io.WriteString(w, s.text)
	}
}

func TestHTTP(t *testing.T) {
	s := &server{token: "a-token"}
	ts := httptest.NewTLSServer(s)
	defer ts.Close()
	ts.Config.ErrorLog = nil
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ts.Certificate().Raw})
	for path, text := range map[string]string{ca: string(cert), token: "a-token\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	place := func(o Options) Place {
		p, err := ParsePlace(ts.URL+"/web1", false, o)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := place(Options{CA: ca, TokenFile: token})
	if a, err := p.Read(t.Context(), host); a != nil || err != nil {
		t.Errorf("of nothing: %v %v", a, err)
	}
	for n := range uint64(2) {
		if err := p.Write(t.Context(), anchorOf(n+1)); err != nil {
			t.Fatal(err)
		}
	}
	if a, err := p.Read(t.Context(), host); err != nil || a.Counter != 2 {
		t.Errorf("%v %v", a, err)
	}
	if err := place(Options{CA: ca, TokenFile: token, Method: http.MethodPost}).Write(t.Context(), anchorOf(3)); err != nil {
		t.Error(err)
	}
	if a, err := p.Read(t.Context(), host); err != nil || a.Counter != 3 || strings.Count(s.text, "\n") != 2 {
		t.Errorf("%v %v", a, err)
	}

	// Another host's anchor, which a PUT would replace, is left alone; one of
	// several lines is not replaced.
	if a, err := p.Read(t.Context(), "another"); a != nil || err != nil {
		t.Errorf("of another host among several: %v %v", a, err)
	}
	s.mu.Lock()
	s.text = s.text[:strings.Index(s.text, "\n")+1]
	s.mu.Unlock()
	if _, err := p.Read(t.Context(), "another"); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "the anchor of another host, "+host) {
		t.Errorf("of another host alone: %v", err)
	}
	if a, err := place(Options{CA: ca, TokenFile: token, Method: http.MethodPost}).Read(t.Context(), "another"); a != nil || err != nil {
		t.Errorf("of another host, and added to: %v %v", a, err)
	}

	unreachable := func(name string, p Place, text string) {
		t.Helper()
		_, err := p.Read(t.Context(), host)
		if !errors.Is(err, ErrUnreachable) || failure.KindOf(err) != failure.Incomplete || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: read: %v", name, err)
		}
		if err := p.Write(t.Context(), anchorOf(9)); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: write: %v", name, err)
		}
	}
	unreachable("no token", place(Options{CA: ca}), "401 Unauthorized")
	unreachable("unknown authority", place(Options{TokenFile: token}), "certificate signed by unknown authority")
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "https://elsewhere.example/", http.StatusFound)
		return true
	})
	unreachable("redirect", place(Options{CA: ca}), "redirects to https://elsewhere.example/")
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		io.WriteString(w, strings.Repeat("x", maxResponse+1))
		return true
	})
	unreachable("endless", place(Options{CA: ca}), "more than")
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		io.WriteString(w, "<html>Please log in</html>")
		return true
	})
	unreachable("portal", place(Options{CA: ca}), "something else than anchors")
	tired := make(chan struct{})
	s.answer(func(w http.ResponseWriter, r *http.Request) bool { <-tired; return true })
	unreachable("slow", place(Options{CA: ca, Timeout: 100 * time.Millisecond}), "")
	close(tired)
	s.answer(func(w http.ResponseWriter, r *http.Request) bool { return r.Method == http.MethodPut }) // takes it, keeps nothing
	if err := p.Write(t.Context(), anchorOf(9)); err == nil || !strings.Contains(err.Error(), "does not give it back") {
		t.Errorf("a server that forgets: %v", err)
	}
	for name, o := range map[string]Options{
		"no CA file": {CA: filepath.Join(dir, "none")}, "no certificate": {CA: token},
		"no token file": {CA: ca, TokenFile: filepath.Join(dir, "none")}, "no token": {CA: ca, TokenFile: ca},
	} {
		if name == "no token" {
			if err := os.WriteFile(filepath.Join(dir, "empty"), []byte("\nx"), 0o600); err != nil {
				t.Fatal(err)
			}
			o.TokenFile = filepath.Join(dir, "empty")
		}
		if _, err := place(o).Read(t.Context(), host); failure.KindOf(err) != failure.NotReady {
			t.Errorf("%s: %v", name, err)
		}
	}
	ts.Close()
	unreachable("closed", p, "connection refused")
}

func TestSyslog(t *testing.T) {
	send := func(address string) {
		t.Helper()
		s, err := ParseSyslog(address, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Write(t.Context(), anchorOf(7)); err != nil {
			t.Fatal(err)
		}
	}
	want := " anchor - " + func() string { a := anchorOf(7); return a.String() }()

	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	dgram, err := net.ListenPacket("unixgram", filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer dgram.Close()
	for _, c := range []struct {
		conn    net.PacketConn
		address string
	}{{udp, "udp://" + udp.LocalAddr().String()}, {dgram, dgram.LocalAddr().String()}} {
		send(c.address)
		b := make([]byte, 2048)
		c.conn.SetReadDeadline(time.Now().Add(time.Minute))
		n, _, err := c.conn.ReadFrom(b)
		if got := string(b[:n]); err != nil || !strings.HasPrefix(got, "<85>1 20") || !strings.HasSuffix(got, want) {
			t.Errorf("%s: %q %v", c.address, got, err)
		}
	}

	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	stream, err := net.Listen("unix", filepath.Join(t.TempDir(), "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for _, c := range []struct {
		listener net.Listener
		address  string
		counted  bool
	}{{tcp, "tcp://" + tcp.Addr().String(), true}, {stream, stream.Addr().String(), false}} {
		got := make(chan string, 1)
		go func() {
			conn, err := c.listener.Accept()
			if err != nil {
				got <- err.Error()
				return
			}
			defer conn.Close()
			b, _ := io.ReadAll(bufio.NewReader(conn))
			got <- string(b)
		}()
		send(c.address)
		text := <-got
		if c.counted {
			var n int
			count, message, _ := strings.Cut(text, " ")
			if fmt.Sscan(count, &n); n != len(message) {
				t.Errorf("%q: %d octets are counted, there are %d", text, n, len(message))
			}
			text = message + "\n"
		}
		if !strings.HasPrefix(text, "<85>1 20") || !strings.HasSuffix(text, want+"\n") {
			t.Errorf("%s: %q", c.address, text)
		}
	}
	s, err := ParseSyslog(filepath.Join(t.TempDir(), "nobody"), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), anchorOf(1)); !errors.Is(err, ErrUnreachable) {
		t.Error(err)
	}
}
