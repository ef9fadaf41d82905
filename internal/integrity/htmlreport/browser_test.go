package htmlreport

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html"
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
)

// harness opens pages in frames of a width and writes down what they are like.
const harness = `<!DOCTYPE html><title>harness</title><body><script>
const results = {}, pages = %s;
let open = 0;
for (const page of pages) for (const width of [390, 1280]) {
  const frame = document.createElement('iframe');
  frame.style = 'border:0;height:800px;width:' + width + 'px';
  open++;
  frame.onload = () => {
    const d = frame.contentDocument, w = frame.contentWindow, violations = [];
    d.addEventListener('securitypolicyviolation', e => violations.push(e.violatedDirective));
    for (const e of d.querySelectorAll('details')) e.open = true;
    const wide = [...d.querySelectorAll('body *')].filter(e => !e.closest('.wide, .hidden, .skip, svg, thead') && e.getBoundingClientRect().right > width + 0.5).map(e => e.tagName + '.' + e.className);
    results[page + '@' + width] = {
      title: d.title, scroll: d.documentElement.scrollWidth, wide: wide.slice(0, 5), violations,
      styled: w.getComputedStyle(d.querySelector('.verdict')).borderLeftWidth,
      scripts: d.scripts.length, images: d.images.length, handlers: [...d.querySelectorAll('*')].filter(e => [...e.attributes].some(a => a.name.startsWith('on'))).length,
      headings: [...d.querySelectorAll('h1,h2,h3')].map(e => +e.tagName[1]), bars: d.querySelectorAll('figure > svg g').length,
      landmarks: ['header', 'main', 'footer'].filter(n => d.querySelectorAll('body > ' + n).length === 1).length,
      unlabelled: [...d.querySelectorAll('table')].filter(t => t.querySelectorAll('thead th[scope]').length === 0).length,
      paths: [...d.querySelectorAll('code.path')].map(e => e.textContent),
    };
    if (--open === 0) { document.body.textContent = JSON.stringify(results); document.title = 'done'; }
  };
  frame.src = page;
  document.body.append(frame);
}
</script></body>`

// opened is what a page is like in a frame.
type opened struct {
	Title            string
	Scroll, Scripts  int
	Images, Handlers int
	Bars, Landmarks  int
	Unlabelled       int
	Wide, Violations []string
	Styled           string
	Headings         []int
	Paths            []string
}

// TestPageInABrowser opens pages in headless Chromium: nothing in them runs,
// nothing is fetched, nothing is wider than a phone, and the style is applied.
func TestPageInABrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("NOT RUN: pages in a browser: chromium is not installed (apt-get install chromium; make test does)")
	}
	one, hundred, clean := samplePage(), samplePage(), samplePage()
	one.Past, hundred.Past, clean.Past = past(1, one.Report), past(100, hundred.Report), nil
	clean.Report.Changes, clean.Report.Problems, clean.Report.Drift, clean.Report.Trust = nil, nil, nil, nil
	pages := map[string]*Page{"all.html": samplePage(), "one.html": one, "hundred.html": hundred, "clean.html": clean}
	names := []string{"all.html", "one.html", "hundred.html", "clean.html"}
	list, err := json.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.URL.Path]++
		mu.Unlock()
		name := strings.TrimPrefix(r.URL.Path, "/")
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if p := pages[name]; p != nil {
			if err := Write(w, p); err != nil {
				t.Error(err)
			}
			return
		}
		if name == "" {
			fmt.Fprintf(w, harness, list)
			return
		}
		http.NotFound(w, r)
	}))
	defer server.Close()

	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(), "--enable-logging=stderr", "--hide-scrollbars", "--window-size=1400,1000",
		"--virtual-time-budget=20000", "--dump-dom", server.URL+"/")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		t.Fatalf("chromium: %v\n%s", err, log.String())
	}
	body := regexp.MustCompile(`(?s)<body[^>]*>(.*)</body>`).FindStringSubmatch(out.String())
	results := map[string]opened{}
	if body == nil || json.Unmarshal([]byte(html.UnescapeString(body[1])), &results) != nil || len(results) != 2*len(names) {
		t.Fatalf("the harness did not end: %.2000s\n%s", out.String(), log.String())
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
		if path != "/" && path != "/favicon.ico" && !slices.Contains(names, path[1:]) {
			t.Errorf("the browser asked for %s", path)
		}
	}
	for name, r := range results {
		page, width, _ := strings.Cut(name, "@")
		if !strings.Contains(r.Title, "web-7.example.org") {
			t.Errorf("%s: a script set the title to %q", name, r.Title)
		}
		if fmt.Sprint(r.Scroll) != width || len(r.Wide) > 0 {
			t.Errorf("%s: %d wide: %v", name, r.Scroll, r.Wide)
		}
		if r.Scripts+r.Images+r.Handlers+len(r.Violations) > 0 || r.Landmarks != 3 || r.Unlabelled > 0 {
			t.Errorf("%s: %+v", name, r)
		}
		if r.Styled != "8px" {
			t.Errorf("%s: the style is not applied: %s", name, r.Styled)
		}
		for i, h := range r.Headings {
			if i == 0 && h != 1 || i > 0 && h > r.Headings[i-1]+1 {
				t.Errorf("%s: headings %v", name, r.Headings)
				break
			}
		}
		if want := min(len(pages[page].Past), 100); r.Bars != want {
			t.Errorf("%s: %d bars, want %d", name, r.Bars, want)
		}
		if page == "all.html" && !slices.Contains(r.Paths, "/srv/"+hostileNames[0]) {
			t.Errorf("%s: a name is not shown as it is: %q", name, r.Paths)
		}
	}
}

// TestPagePrints: the page becomes a PDF of several pages, with what is folded.
func TestPagePrints(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("NOT RUN: printing pages: chromium is not installed (apt-get install chromium; make test does)")
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := Write(w, samplePage()); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--user-data-dir="+dir+"/profile", "--no-pdf-header-footer", "--print-to-pdf="+dir+"/page.pdf", server.URL+"/")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("chromium: %v\n%s", err, out)
	}
	text, err := exec.Command("pdftotext", "-layout", dir+"/page.pdf", "-").CombinedOutput()
	if err != nil {
		t.Skipf("NOT RUN: what is on paper was not read: pdftotext: %v (apt-get install poppler-utils; make test does)", err)
	}
	for _, want := range []string{"Needs attention now", "/usr/bin/ssh", "/usr/lib/python3/58.py", "The same in numbers", "package-modified", "What the words mean"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q on paper", want)
		}
	}
}
