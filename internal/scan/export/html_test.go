package export

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

func TestPageStandsAlone(t *testing.T) {
	for name, d := range documents() {
		page := string(encode(t, HTMLFormat, d))
		policy := regexp.MustCompile(`http-equiv="Content-Security-Policy" content="([^"]*)"`).FindStringSubmatch(page)
		if policy == nil {
			t.Fatalf("%s: no policy", name)
		}
		for _, tag := range []string{"style", "script"} {
			if n := strings.Count(page, "<"+tag); n != 1 {
				t.Errorf("%s: %d times <%s", name, n, tag)
			}
			_, text, _ := strings.Cut(page, "<"+tag+">")
			text, _, _ = strings.Cut(text, "</"+tag+">")
			hash := sha256.Sum256([]byte(text))
			if want := tag + "-src &#39;sha256-" + base64.StdEncoding.EncodeToString(hash[:]); !strings.Contains(strings.ReplaceAll(policy[1], "&#43;", "+"), want) && !strings.Contains(strings.ReplaceAll(policy[1], "&#43;", "+"), strings.ReplaceAll(want, "&#39;", "'")) {
				t.Errorf("%s: the policy does not have the hash of the %s: %s, want %s", name, tag, policy[1], want)
			}
		}
		body := page[strings.Index(page, "<body>"):]
		body = body[:strings.Index(body, "<script>")]
		for _, m := range regexp.MustCompile(`<([a-zA-Z!/][^\s>]*)((?:"[^"]*"|[^">])*)>`).FindAllStringSubmatch(body, -1) {
			if slices.Contains([]string{"img", "iframe", "object", "embed", "base", "video", "audio", "svg", "link", "meta", "script", "style"}, strings.ToLower(m[1])) {
				t.Errorf("%s: there is a <%s%s>", name, m[1], m[2])
			}
			for _, a := range regexp.MustCompile(`\s([a-zA-Z:-]+)="([^"]*)"`).FindAllStringSubmatch(m[2], -1) {
				if n := strings.ToLower(a[1]); strings.HasPrefix(n, "on") || n == "style" || n == "src" || n == "href" && !regexp.MustCompile(`^(#[a-z0-9-]+$|https?://)`).MatchString(a[2]) {
					t.Errorf("%s: <%s%s>", name, m[1], m[2])
				}
			}
		}
	}
}

func TestPageSays(t *testing.T) {
	page := string(encode(t, HTMLFormat, sample(protocol.Image)))
	for _, want := range []string{
		"2 need attention now, and the scan is incomplete", "1 thing could not be looked at", "1 is overdue", "severity that nobody knows", "2 days old; KEV of 2026-11-21", "known to be exploited (KEV)",
		"Since the scan of 21 November 2026, 03:00 UTC", "3.0.15-1~deb12u1 → 3.0.17-1~deb12u2", "12.2 → no fix", "overdue since 2026-11-19", "waived by carol until 2026-12-22: not reachable from outside",
		"vulnerable code not present", "app/Dockerfile:3", "Add &#39;USER &lt;non root&gt;&#39; to the Dockerfile", "AWS_KEY=****", "AGPL-3.0", "app/package-lock.json", "7 binary files", "EPSS 94.0 %", "CVE-2026-9999 in curl",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	for name, c := range map[string]struct {
		change func(d *Document)
		want   []string
	}{
		"clean":       {func(d *Document) {}, []string{`class="verdict good"`, "Nothing found</h2>", "None."}},
		"problems":    {func(d *Document) { d.Scanned.Problems = sample(protocol.Image).Scanned.Problems }, []string{`class="verdict warn"`, "Nothing found, with reservations", "None were found in what could be looked at."}},
		"stale":       {func(d *Document) { d.Database.Stale, d.Database.MaxAge = true, 24*time.Hour }, []string{"with reservations", "more than the 24 hours that are allowed"}},
		"end of life": {func(d *Document) { d.Scanned.OS.EndOfLife = true }, []string{"with reservations", "debian 12.11 gets no more security updates"}},
		"filtered":    {func(d *Document) { d.Filters = []string{"severity high and above"} }, []string{"with reservations", "By request, the report shows: severity high and above."}},
		"part":        {func(d *Document) { d.Scanners = d.Scanners[:1] }, []string{"(not for secrets, misconfigurations, licences)"}},
		"nothing":     {func(d *Document) { d.Scanners = nil }, []string{"with reservations", "Nothing was looked for"}},
	} {
		d := clean(protocol.Image)
		c.change(d)
		page := string(encode(t, HTMLFormat, d))
		for _, want := range c.want {
			if !strings.Contains(page, want) {
				t.Errorf("%s: the page does not say %q", name, want)
			}
		}
	}
	// What has no room is counted.
	if page := string(encode(t, HTMLFormat, many(htmlItems+5))); strings.Count(page, "<li id=") != htmlItems || !strings.Contains(page, "less urgent") {
		t.Error("what is not on the page is not counted")
	}
}

// harness opens pages in frames of a width and tells the server what they are like.
const harness = `<!DOCTYPE html><title>harness</title><body><script>
const pages = %s, results = {};
const wait = ms => new Promise(done => setTimeout(done, ms));
const load = (page, width) => new Promise(done => {
  const frame = document.createElement('iframe');
  frame.style = 'border:0;height:800px;width:' + width + 'px';
  frame.onload = () => done(frame);
  frame.src = page;
  document.body.append(frame);
});
const input = async (form, name, value) => {
  form.elements[name].value = value;
  form.dispatchEvent(new Event('input', { bubbles: true }));
  await wait(200);
};
(async () => {
  for (const page of pages) for (const width of [400, 1280]) {
    const start = performance.now();
    const frame = await load(page, width);
    const d = frame.contentDocument, w = frame.contentWindow, r = { load: performance.now() - start };
    const violations = [];
    d.addEventListener('securitypolicyviolation', e => violations.push(e.violatedDirective));
    const items = d.querySelectorAll('ul.items > li');
    const form = d.querySelector('form.controls');
    const first = [...items].slice(0, 50).map(e => e.id);
    r.items = items.length;
    r.controls = !form.hidden;
    if (items.length) {
      await input(form, 'show', 'kev');
      r.kev = [...items].filter(e => e.isConnected).length;
      await input(form, 'show', '');
      const at = performance.now();
      await input(form, 'order', 'p');
      r.sort = performance.now() - at - 200;
      r.sorted = [...d.querySelectorAll('ul.items')].every(ul => { const p = [...ul.children].map(e => e.querySelector('code').textContent); return p.every((x, i) => i === 0 || p[i - 1] <= x); });
      await input(form, 'order', 'n');
      r.back = JSON.stringify([...d.querySelectorAll('ul.items > li')].slice(0, 50).map(e => e.id)) === JSON.stringify(first);
      await input(form, 'text', 'no such text anywhere');
      r.none = [...items].every(e => !e.isConnected);
      w.location.hash = items[items.length - 1].id;
      await wait(100);
      r.revealed = items[items.length - 1].isConnected && items[items.length - 1].querySelector('details').open;
      await input(form, 'text', '');
      r.all = [...items].every(e => e.isConnected);
    }
    if (items.length < 1000) {
      for (const e of d.querySelectorAll('details')) e.open = true;
      r.wide = [...d.querySelectorAll('body *')].filter(e => !e.closest('.hidden, .skip') && e.getBoundingClientRect().right > width + 0.5).map(e => e.tagName + '.' + e.className).slice(0, 5);
      r.subjects = [...d.querySelectorAll('.what code')].map(e => e.textContent);
    }
    r.title = d.title;
    r.scroll = d.documentElement.scrollWidth;
    r.violations = violations;
    r.styled = w.getComputedStyle(d.querySelector('.verdict')).borderLeftWidth;
    r.headings = [...d.querySelectorAll('h1,h2,h3')].map(e => +e.tagName[1]);
    r.unlabelled = [...d.querySelectorAll('table')].filter(t => !t.querySelector('thead th[scope]')).length + [...d.querySelectorAll('input,select')].filter(e => !e.labels.length).length;
    results[page + '@' + width] = r;
    frame.remove();
  }
  fetch('done', { method: 'POST', body: JSON.stringify(results) });
})().catch(e => fetch('done', { method: 'POST', body: String(e) + e.stack }));
</script></body>`

// opened is what a page is like in a frame.
type opened struct {
	Title                                       string
	Load, Sort                                  float64 // milliseconds
	Items, KEV, Scroll, Unlabelled              int
	Controls, Sorted, Back, None, All, Revealed bool
	Wide, Violations, Subjects                  []string
	Styled                                      string
	Headings                                    []int
}

// TestPageInABrowser opens pages in headless Chromium: what is in them stays text,
// nothing is fetched, nothing is wider than a phone, and filter and order work.
func TestPageInABrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("NOT RUN: pages in a browser: chromium is not installed (apt-get install chromium; make test does)")
	}
	pages := map[string]*Document{"many.html": many(1500)}
	for name, d := range documents() {
		pages[name+".html"] = d
	}
	names := []string{"sample.html", "clean.html", "bare.html", "hostile.html", "many.html"}
	list, err := json.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := map[string]int{}
	done := make(chan []byte, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.URL.Path]++
		mu.Unlock()
		name := strings.TrimPrefix(r.URL.Path, "/")
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		switch d := pages[name]; {
		case d != nil:
			if err := HTML(w, d); err != nil {
				t.Error(err)
			}
		case name == "":
			fmt.Fprintf(w, harness, list)
		case name == "done":
			b, _ := io.ReadAll(r.Body)
			select {
			case done <- b:
			default:
			}
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()

	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(), "--enable-logging=stderr", "--hide-scrollbars", "--window-size=1400,1000",
		"--remote-debugging-port=0", server.URL+"/")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []byte
	select {
	case said = <-done:
	case <-ctx.Done():
	}
	cancel()
	_ = cmd.Wait() // it was killed
	results := map[string]opened{}
	if json.Unmarshal(said, &results) != nil || len(results) != 2*len(names) {
		t.Fatalf("the harness did not end: %.2000s\n%.5000s", said, log.String())
	}
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "CONSOLE") {
			t.Errorf("console: %s", line)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for path := range asked {
		// The harness itself has no icon, so the browser looks for one.
		if path != "/" && path != "/done" && path != "/favicon.ico" && !slices.Contains(names, path[1:]) {
			t.Errorf("the browser asked for %s", path)
		}
	}
	for name, r := range results {
		page, width, _ := strings.Cut(name, "@")
		d := pages[page]
		t.Logf("%s: %d items, loaded in %.0f ms, sorted in %.0f ms", name, r.Items, r.Load, r.Sort)
		if !strings.Contains(r.Title, ": scan of ") {
			t.Errorf("%s: a script set the title to %q", name, r.Title)
		}
		if fmt.Sprint(r.Scroll) != width || len(r.Wide) > 0 {
			t.Errorf("%s: %d wide: %v", name, r.Scroll, r.Wide)
		}
		if len(r.Violations) > 0 || r.Unlabelled > 0 || r.Styled != "8px" {
			t.Errorf("%s: violations %v, %d without a label, styled %s", name, r.Violations, r.Unlabelled, r.Styled)
		}
		for i, h := range r.Headings {
			if i == 0 && h != 1 || i > 0 && h > r.Headings[i-1]+1 {
				t.Errorf("%s: headings %v", name, r.Headings)
				break
			}
		}
		items, kev := 0, 0
		for _, e := range d.entries() {
			if e.State == "resolved" {
				continue
			}
			items++
			if e.KEV != nil {
				kev++
			}
		}
		if r.Items != items || r.Controls != (items > 0) || items > 0 && (r.KEV != kev || !r.Sorted || !r.Back || !r.None || !r.All || !r.Revealed) {
			t.Errorf("%s: %+v; want %d items, %d in KEV", name, r, items, kev)
		}
		if page == "hostile.html" && !slices.Contains(r.Subjects, hostile[0]) {
			t.Errorf("%s: a name is not shown as it is: %.2000q", name, r.Subjects)
		}
	}
}
