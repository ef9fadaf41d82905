package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		check Check
		want  string // in the error; "": none
	}{
		{Check{}, "needs a command"},
		{Check{Command: []string{""}}, "empty"},
		{Check{Command: []string{"bin/check"}}, ""},
		{Check{HTTP: "http://127.0.0.1:8080/healthz"}, ""},
		{Check{HTTP: "https://[::1]/"}, ""},
		{Check{HTTP: "unix:/run/app.sock:/healthz"}, ""},
		{Check{HTTP: "unix:/run/app.sock"}, ""},
		{Check{HTTP: "unix:run/app.sock:/healthz"}, "absolute"},
		{Check{HTTP: "file:///etc/passwd"}, "not an address"},
		{Check{HTTP: "ftp://u:secret@x/"}, "not an address"},
		{Check{HTTP: "127.0.0.1:8080/healthz"}, "first path segment"},
		{Check{HTTP: "http:///healthz"}, "not an address"},
		{Check{Unit: "mobileops.service"}, ""},
		{Check{Unit: `dev-disk@a\x2db.device`}, ""},
		{Check{Unit: "*"}, "not the name of a unit"},
		{Check{Unit: "--help"}, "not the name of a unit"},
		{Check{Unit: "a b"}, "not the name of a unit"},
		{Check{Unit: "../x"}, "not the name of a unit"},
		{Check{Unit: "x", Deadline: 2 * time.Second}, ""},
		{Check{Unit: "x", Deadline: 5 * time.Second, Settle: 5 * time.Second}, "not well before the deadline"},
		{Check{Unit: "x", Timeout: -1}, "timeout of a health check is negative"},
	} {
		err := tc.check.Validate()
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || failure.KindOf(err) != failure.Usage) {
			t.Errorf("%+v: %v, want %q", tc.check, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%v tells the password", err)
		}
		if tc.want != "" {
			if _, err := Wait(context.Background(), tc.check, Env{}, nil); failure.KindOf(err) != failure.Usage {
				t.Errorf("Wait with %+v: %v", tc.check, err)
			}
		}
	}
}

// fast are times for tests.
func fast(c Check) Check {
	c.Interval = 20 * time.Millisecond
	if c.Deadline == 0 {
		c.Deadline = time.Minute
	}
	return c
}

func TestCommandPassesInTheEnd(t *testing.T) {
	root := tree(t, map[string]string{"bin/check": "#!/bin/sh\necho x >>tries\nif [ $(wc -l <tries) -lt 3 ]; then echo not yet; exit 1; fi\n"})
	var seen []Attempt
	v, err := Wait(context.Background(), fast(Check{Command: []string{"bin/check"}}), Env{Tree: root}, func(a Attempt) { seen = append(seen, a) })
	if err != nil || !v.Passed || v.Attempts != 3 || v.Failure != "bin/check: exit status 1: not yet" {
		t.Errorf("%+v, %v", v, err)
	}
	if len(seen) != 3 || seen[0].Failure != v.Failure || seen[0].Number != 1 || seen[2].Failure != "" || seen[2].Elapsed != v.Elapsed || seen[1].Elapsed < seen[0].Elapsed {
		t.Errorf("%+v", seen)
	}
}

func TestCommandNeverPasses(t *testing.T) {
	t.Parallel()
	c := fast(Check{Command: []string{"/bin/sh", "-c", "echo no; exit 7"}, Deadline: 10 * time.Second})
	v, err := Wait(context.Background(), c, Env{}, nil)
	if err != nil || v.Passed || v.Attempts < 1 || v.Failure != "/bin/sh: exit status 7: no" || v.Elapsed > time.Minute {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestDeadlineEndsACommand is over a command that would hang for longer.
func TestDeadlineEndsACommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := fast(Check{Command: []string{"/bin/sh", "-c", "cd " + dir + "; sleep 1000 & echo $! >pid; wait"}, Deadline: 10 * time.Second, Timeout: time.Hour}) // in which a busy machine starts a shell
	v, err := Wait(context.Background(), c, Env{}, nil)
	if err != nil || v.Passed || v.Attempts != 1 || !strings.Contains(v.Failure, "took longer than") || v.Elapsed < c.Deadline {
		t.Errorf("%+v, %v", v, err)
	}
	gone(t, filepath.Join(dir, "pid"))

	// The time-out of an attempt ends it earlier, and the next one passes.
	c = fast(Check{Command: []string{"/bin/sh", "-c", "cd " + dir + "; test -e second && exit 0; touch second; sleep 1000"}, Timeout: 2 * time.Second})
	v, err = Wait(context.Background(), c, Env{}, nil)
	if err != nil || !v.Passed || v.Attempts < 2 || !strings.Contains(v.Failure, "took longer than") {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestWaitIsCancelled(t *testing.T) {
	dir := t.TempDir()
	for name, line := range map[string]string{"in an attempt": "touch ran; sleep 1000", "between two": "touch ran; exit 1"} {
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			for {
				if os.Remove(filepath.Join(dir, "ran")) == nil {
					cancel()
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
		}()
		v, err := Wait(ctx, Check{Command: []string{"/bin/sh", "-c", "cd " + dir + "; " + line}}, Env{}, nil)
		if failure.KindOf(err) != failure.Interrupted || v.Passed {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}

// fails asks until an attempt fails with want, and is given up then; what
// passes, or fails in other ways until the deadline, is the verdict.
func fails(c Check, env Env, want string) (Verdict, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	v, err := Wait(ctx, c, env, func(a Attempt) {
		if a.Failure != "" && strings.Contains(a.Failure, want) {
			cancel()
		}
	})
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return v, err
}

// server answers as the handler does, and counts.
func server(t *testing.T, h func(n int32, w http.ResponseWriter, r *http.Request)) (url string, asked *atomic.Int32) {
	t.Helper()
	asked = new(atomic.Int32)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h(asked.Add(1), w, r) }))
	t.Cleanup(s.Close)
	return s.URL, asked
}

func TestHTTP(t *testing.T) {
	elsewhere, askedElsewhere := server(t, func(int32, http.ResponseWriter, *http.Request) {})
	// The other server by another name, since both listen on the same address.
	elsewhere = strings.Replace(elsewhere, "127.0.0.1", "localhost", 1)
	for _, tc := range []struct {
		name    string
		handler func(n int32, w http.ResponseWriter, r *http.Request)
		timeout time.Duration
		passes  bool
		want    string // in the last failure
	}{
		{"well", func(int32, http.ResponseWriter, *http.Request) {}, 0, true, ""},
		{"no content", func(_ int32, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }, 0, true, ""},
		{"500 and later 200", func(n int32, w http.ResponseWriter, _ *http.Request) {
			if n < 3 {
				http.Error(w, "database is down", 500)
			}
		}, 0, true, "answers 500 Internal Server Error: database is down"},
		{"404", func(_ int32, w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, 0, false, "answers 404 Not Found"},
		{"304", func(_ int32, w http.ResponseWriter, r *http.Request) { w.WriteHeader(304) }, 0, false, "answers 304"},
		{"stalls", func(_ int32, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 100 * time.Millisecond, false, "no answer in time"},
		{"stalls within the body of an error", func(_ int32, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(503)
			_, _ = w.Write([]byte("starting"))
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, 300 * time.Millisecond, false, "answers 503 Service Unavailable: starting"},
		{"floods", func(_ int32, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, 0, false, "answers 500"},
		{"floods and is well", func(_ int32, w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, 0, true, ""},
		{"floods with headers", func(_ int32, w http.ResponseWriter, _ *http.Request) {
			for i := range 4000 {
				w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 100))
			}
		}, 0, false, "exceeded"},
		{"redirects to itself", func(_ int32, w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/there" {
				http.Redirect(w, r, "/there", http.StatusFound)
			}
		}, 0, true, ""},
		{"redirects to another host", func(_ int32, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere, http.StatusFound)
		}, 0, false, "redirects to another host, localhost"},
		{"redirects in circles", func(_ int32, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/", http.StatusFound)
		}, 0, false, "redirects more than 5 times"},
		{"talks something else", func(_ int32, w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				fmt.Fprint(conn, "220 mail.example ESMTP\r\n")
				conn.Close()
			}
		}, 0, false, "malformed"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			url, asked := server(t, tc.handler)
			c := fast(Check{HTTP: url + "/healthz", Timeout: tc.timeout})
			ask := fails
			if tc.passes {
				ask = func(c Check, env Env, _ string) (Verdict, error) { return Wait(context.Background(), c, env, nil) }
			}
			v, err := ask(c, Env{}, tc.want)
			if err != nil || v.Passed != tc.passes || !strings.Contains(v.Failure, tc.want) {
				t.Errorf("%+v, %v; want %v, %q", v, err, tc.passes, tc.want)
			}
			if len(v.Failure) > 1000 {
				t.Errorf("a failure of %d bytes", len(v.Failure))
			}
			// What was given up in a moment may not have come to the server.
			if tc.timeout == 0 && asked.Load() < int32(v.Attempts) {
				t.Errorf("%d attempts, and the server was asked %d times", v.Attempts, asked.Load())
			}
		})
	}
	t.Cleanup(func() {
		if askedElsewhere.Load() > 0 {
			t.Error("a redirect to another host was followed")
		}
	})
}

// TestHTTPNobodyListens also shows that a password in an address is not told.
func TestHTTPNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	v, err := fails(fast(Check{HTTP: "http://admin:secret@" + addr + "/"}), Env{}, "refused")
	if err != nil || v.Passed || !strings.Contains(v.Failure, "connection refused") || strings.Contains(v.Failure, "secret") {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestHTTPSNeedsATrustedCertificate: the one of this server is its own.
func TestHTTPSNeedsATrustedCertificate(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("asked without trust") }))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it would tell of each refusal
	s.StartTLS()
	defer s.Close()
	v, err := fails(fast(Check{HTTP: s.URL}), Env{}, "certificate")
	if err != nil || v.Passed || !strings.Contains(v.Failure, "certificate") {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestHTTPIgnoresProxies(t *testing.T) {
	proxy, asked := server(t, func(int32, http.ResponseWriter, *http.Request) {})
	t.Setenv("http_proxy", proxy)
	t.Setenv("HTTP_PROXY", proxy)
	a, err := parseAddress("http://nobody.invalid/")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.ask(context.Background()); err == nil || asked.Load() > 0 {
		t.Errorf("%v, proxy asked %d times", err, asked.Load())
	}
}

func TestHTTPOverASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.sock")
	c := fast(Check{HTTP: "unix:" + path + ":/healthz?full=1"})
	v, err := fails(c, Env{}, "unix:")
	if err != nil || v.Passed || !strings.Contains(v.Failure, "unix:"+path+":/healthz?full=1") {
		t.Errorf("without a server: %+v, %v", v, err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI != "/healthz?full=1" {
			http.NotFound(w, r)
		}
	})}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	defer func() { s.Close(); <-done }()
	if v, err := Wait(context.Background(), c, Env{}, nil); err != nil || !v.Passed {
		t.Errorf("%+v, %v", v, err)
	}
}

// TestAllPartsHaveToPass in one attempt: each is well when the other is not.
func TestAllPartsHaveToPass(t *testing.T) {
	dir := t.TempDir()
	url, _ := server(t, func(n int32, w http.ResponseWriter, _ *http.Request) {
		if n%2 == 0 {
			w.WriteHeader(500)
		}
	})
	c := fast(Check{HTTP: url, Command: []string{"/bin/sh", "-c", "cd " + dir + "; test -e well && exit 0; touch well; exit 1"}})
	v, err := Wait(context.Background(), c, Env{}, nil)
	if err != nil || !v.Passed || v.Attempts != 3 {
		t.Errorf("%+v, %v: want the third attempt", v, err)
	}
}

// stub puts a systemctl into PATH, which prints the next of the files 1, 2, …
// in its directory, and goes on with the last.
func stub(t *testing.T, answers ...string) Env {
	t.Helper()
	dir := t.TempDir()
	script := `#!/bin/sh
cd ` + dir + ` || exit 9
echo "$*" >>calls
n=$(wc -l <calls)
test -e "$n" || n=` + fmt.Sprint(len(answers)) + `
cat "$n"
`
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for i, a := range answers {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i+1)), []byte(a), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return Env{booted: dir}
}

// show is what systemctl show of systemd 252 prints for a service.
func show(state, sub, result string, restarts int, since int64) string {
	return fmt.Sprintf("Result=%s\nNRestarts=%d\nLoadState=loaded\nActiveState=%s\nSubState=%s\nActiveEnterTimestampMonotonic=%d\nInvocationID=%032x\n", result, restarts, state, sub, since, since)
}

func TestUnit(t *testing.T) {
	up, again := show("active", "running", "success", 0, 1000), show("active", "running", "success", 1, 2000)
	starting, failed := show("activating", "start", "success", 0, 0), show("failed", "failed", "exit-code", 5, 0)
	for _, tc := range []struct {
		name    string
		answers []string
		passes  bool
		want    string
	}{
		{"active all the time", []string{up}, true, "has to stay so"},
		{"starts late", []string{starting, starting, up}, true, "has to stay so"},
		{"restarted once", []string{up, again}, true, "has to stay so"},
		{"failed", []string{up, failed}, false, `is "failed" (failed), result exit-code (see: journalctl -u app.service)`},
		{"restarted all the time", []string{up, again, up, again, up, again, up, again, up, again, up, again, up, again, up, again, up, again, up, again, up, again, up, again, up, again, starting}, false, "unit app.service was restarted"},
		{"not there", []string{"LoadState=not-found\nActiveState=inactive\nSubState=dead\n"}, false, "does not know it"},
		{"says nothing", []string{""}, false, `is ""`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			env := stub(t, tc.answers...)
			c := fast(Check{Unit: "app.service", Settle: 200 * time.Millisecond})
			ask := fails
			if tc.passes {
				ask = func(c Check, env Env, _ string) (Verdict, error) { return Wait(context.Background(), c, env, nil) }
			}
			v, err := ask(c, env, tc.want)
			if err != nil || v.Passed != tc.passes || !strings.Contains(v.Failure, tc.want) {
				t.Errorf("%+v, %v", v, err)
			}
			if tc.passes && v.Elapsed < c.Settle {
				t.Errorf("passed after %v", v.Elapsed)
			}
			calls, err := os.ReadFile(filepath.Join(env.booted, "calls"))
			if err != nil || !strings.HasPrefix(string(calls), "show --no-pager --property=LoadState,") || !strings.Contains(string(calls), " -- app.service\n") {
				t.Errorf("called with %q, %v", calls, err)
			}
		})
	}
}

// TestUnitWithoutSystemd is never a pass, whatever systemctl says.
func TestUnitWithoutSystemd(t *testing.T) {
	env := stub(t, show("active", "running", "success", 0, 1))
	c := fast(Check{Unit: "app.service", Settle: time.Millisecond, Command: []string{"/bin/true"}})
	env.booted = filepath.Join(env.booted, "nowhere")
	v, err := Wait(context.Background(), c, env, func(Attempt) { t.Error("an attempt was made") })
	if failure.KindOf(err) != failure.NotReady || v.Passed || !strings.Contains(err.Error(), "systemd") {
		t.Errorf("%+v, %v", v, err)
	}
	env.booted = t.TempDir()
	t.Setenv("PATH", t.TempDir())
	if v, err := Wait(context.Background(), c, env, nil); failure.KindOf(err) != failure.NotReady || v.Passed || !strings.Contains(err.Error(), "systemctl") {
		t.Errorf("without systemctl: %+v, %v", v, err)
	}
	if _, err := os.Stat(booted); errors.Is(err, os.ErrNotExist) {
		t.Setenv("PATH", "/usr/bin:/bin")
		if v, err := Wait(context.Background(), c, Env{}, nil); failure.KindOf(err) != failure.NotReady || v.Passed {
			t.Errorf("on this host: %+v, %v", v, err)
		}
	}
}
