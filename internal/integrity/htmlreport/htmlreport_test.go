package htmlreport

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/finding/export"
	"github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/integrity/packages"
	"github.com/mobileops/mobileops/pkg/filehash"
	"golang.org/x/sys/unix"
)

// hostileNames are what somebody may call a file.
var hostileNames = []string{
	"<script>document.title='owned'</script>", "<img src=x onerror=\"document.title='owned'\">", "\"><svg onload=\"document.title='owned'\">",
	"a\nb\tc\rd", "\x1b[31mred\x1b]0;owned\x07", "photo\u202egpj.exe", "bad\xff\xfebytes", "zero\u200bwidth", "</style><script>document.title='owned'</script>",
	"{{.Host}}", "<!--", "]]>", "&lt;b&gt;", "javascript:document.title='owned'", "größe-文件-🚀", strings.Repeat("long", 1000), "http://192.0.2.1/pixel.png",
}

var night = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

// samplePage has something of everything.
func samplePage() *Page {
	r := &integrity.Report{
		ID: "0123456789abcdef", Tree: "/", Started: night, Elapsed: 12300 * time.Millisecond,
		Baseline: integrity.Entry{Header: baseline.Header{ID: "fedcba9876543210", Name: "default", Tree: "/", Finished: night.AddDate(0, -1, 0), PolicyName: "system"}},
		Summary:  integrity.Summary{Files: 198432, Bytes: 64e6, Rehashed: 812, Skipped: 170000, OldestRead: night.AddDate(0, 0, -20), Unreadable: 2},
		Problems: []integrity.Problem{{Path: []byte("/root/" + hostileNames[0]), Kind: integrity.Unreadable, Reason: "input/output error: is the disk failing?"}, {Path: []byte("/var/x"), Kind: integrity.Unstable, Reason: "changed each time it was read"}},
		Drift: []facts.Change{
			{Kind: facts.Added, Severity: finding.High, New: &facts.Fact{Aspect: "network", Kind: "listen", Key: "tcp/0.0.0.0:4444", Attributes: map[string]string{"program": "/tmp/" + hostileNames[1]}}},
			{Kind: facts.Changed, Severity: finding.Medium, Old: &facts.Fact{Aspect: "network", Kind: "resolver", Key: "1"}, New: &facts.Fact{Aspect: "network", Kind: "resolver", Key: "1"}, Attributes: []facts.Attribute{{Name: "address", Old: "192.0.2.1", New: "198.51.100.7"}}},
		},
		Unknown:   []integrity.Unknown{{Source: "network:nftables", Reason: "the kernel has none"}},
		Ownership: &integrity.Ownership{Managers: []packages.Manager{"dpkg"}},
		Trust: &integrity.Trust{Records: 12, Key: "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3", Last: night.AddDate(0, -1, 0), Anchors: []integrity.AnchorState{
			{Place: "/mnt/usb/anchor", Verdict: history.Matches, Counter: 12, Time: night.AddDate(0, -1, 0)}, {Place: "https://anchors.example.org/" + hostileNames[2], Problem: "it could not be reached"}}},
	}
	add := func(c integrity.Change) { r.Changes = append(r.Changes, c) }
	old, now := strings.Repeat("3f", 32), strings.Repeat("a1", 32)
	add(integrity.Change{Path: []byte("/usr/bin/ssh"), Kind: integrity.Changed, Severity: finding.Critical, Class: integrity.Suspicious, Package: "openssh-client 1:9.2p1-2 (dpkg)",
		Reason: "a program of a package whose content no known version has", Attributes: []integrity.Attribute{{Name: "size", Old: "1,234", New: "1,250"}, {Name: "content", Old: old, New: now}}})
	add(integrity.Change{Path: []byte("/usr/local/bin/.x"), Kind: integrity.Added, Severity: finding.High, Class: integrity.Suspicious, Reason: "a new setuid program",
		Now: &baseline.Record{Info: filehash.Info{Mode: unix.S_IFREG | 0o4755, Size: 16384}, Content: filehash.Hashed}})
	add(integrity.Change{Path: []byte("/usr/share/doc/x"), Kind: integrity.Changed, Severity: finding.Low, Class: integrity.PackageModified, Package: "x 1 (dpkg)", Attributes: []integrity.Attribute{{Name: "mode", Old: "0644", New: "0666"}}})
	add(integrity.Change{Path: []byte("/etc/ssh/sshd_config"), Kind: integrity.Changed, Severity: finding.Medium, Class: integrity.Conffile, Attributes: []integrity.Attribute{{Name: "content", Old: old, New: now}}})
	for _, name := range hostileNames {
		add(integrity.Change{Path: []byte("/srv/" + name), From: []byte("/home/" + name), Kind: integrity.Moved, Severity: finding.Info, Class: integrity.Unowned, Attributes: []integrity.Attribute{{Name: "target", Old: name, New: ""}}})
	}
	for i := range 60 {
		add(integrity.Change{Path: fmt.Appendf(nil, "/usr/lib/python3/%d.py", i), Kind: integrity.Changed, Severity: finding.Info, Class: integrity.PackageUpdate,
			Package: []string{"python3 3.11.2 (dpkg)", "libssl3 3.0.17 (dpkg)"}[i%2], Attributes: []integrity.Attribute{{Name: "content", Old: old, New: now}}})
	}
	r.Summary.Changed, r.Summary.Added, r.Summary.Moved = int64(len(r.Changes)-1-len(hostileNames)), 1, int64(len(hostileNames))
	return &Page{Report: r, Entry: entryOf(r), Past: past(12, r), Host: "web-7.example.org", Tool: "mobileops 1.0.0", Now: night.Add(time.Hour)}
}

func entryOf(r *integrity.Report) integrity.ReportEntry {
	e := integrity.ReportEntry{ID: r.ID, Baseline: r.Baseline.Name, BaselineID: r.Baseline.ID, Tree: r.Tree, Started: r.Started, Last: r.Started, Runs: 3, Summary: r.Summary,
		Classes: map[integrity.Class]int{}, Severities: map[string]int{}, FileBytes: 1}
	for i := range r.Changes {
		e.Classes[r.Changes[i].Class]++
		e.Severities[r.Changes[i].Severity.String()]++
	}
	return e
}

// past are n reports, the newest of which is that of r.
func past(n int, r *integrity.Report) (list []integrity.ReportEntry) {
	for i := range n {
		e := integrity.ReportEntry{ID: fmt.Sprintf("%016x", i), Started: night.AddDate(0, 0, -i), Last: night.AddDate(0, 0, -i), Runs: 1, Verify: i%7 == 0, Classes: map[integrity.Class]int{}}
		for k, c := range integrity.Classes() {
			e.Classes[c] = (i * (k + 3) * 7 % 11) * (i % 4)
			e.Summary.Changed += int64(e.Classes[c])
		}
		list = append(list, e)
	}
	if n > 0 {
		list[0] = entryOf(r)
	}
	return list
}

func write(t *testing.T, p *Page) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// tags are all elements of a page.
var tag = regexp.MustCompile(`<(/?)([a-zA-Z!][^\s>/]*)((?:"[^"]*"|[^">])*)>`)

// elements of a page that has only what the template writes.
func elements(t *testing.T, page string) map[string]int {
	t.Helper()
	_, body, _ := strings.Cut(page, "</style>")
	got := map[string]int{}
	var open []string
	for _, m := range tag.FindAllStringSubmatch(body, -1) {
		got[m[2]]++
		switch {
		case m[1] == "/":
			if len(open) == 0 || open[len(open)-1] != m[2] {
				t.Fatalf("</%s> closes %v", m[2], open)
			}
			open = open[:len(open)-1]
		case !strings.HasSuffix(m[3], "/") && m[2] != "link" && m[2] != "meta":
			open = append(open, m[2])
		}
		for _, attribute := range regexp.MustCompile(`\s([a-zA-Z:-]+)=`).FindAllStringSubmatch(m[3], -1) {
			if name := strings.ToLower(attribute[1]); strings.HasPrefix(name, "on") || name == "style" || name == "src" || name == "href" && !strings.Contains(m[3], `href="#`) {
				t.Errorf("<%s%s>", m[2], m[3])
			}
		}
	}
	if strings.Join(open, " ") != "html body" && len(open) != 0 {
		// html, head and body are opened before the style.
		t.Errorf("left open: %v", open)
	}
	return got
}

func TestPageHasNothingActive(t *testing.T) {
	page := write(t, samplePage())
	page = strings.Replace(page, "</head>\n<body>", "", 1)
	page = strings.Replace(page, "</body>\n</html>", "", 1)
	for name := range elements(t, page) {
		for _, bad := range []string{"script", "img", "iframe", "object", "embed", "form", "base", "video", "audio", "foreignObject", "use", "image", "a:"} {
			if strings.EqualFold(name, bad) {
				t.Errorf("there is a <%s>", name)
			}
		}
	}
	if strings.ContainsFunc(page, func(r rune) bool { return unicode.IsControl(r) && r != '\n' || unicode.Is(unicode.Cf, r) }) || !utf8.ValidString(page) {
		t.Error("there are characters that do not show")
	}
	if n := strings.Count(page, "http"); n != strings.Count(page, "http-equiv")+strings.Count(page, "https://anchors")+strings.Count(page, "http://192.0.2.1") {
		t.Errorf("%d addresses", n)
	}
	for _, want := range []string{
		"&lt;script&gt;document.title=&#39;owned&#39;&lt;/script&gt;", `photo\u202egpj.exe`, `bad\xff\xfebytes`, `a\nb\tc\rd`, `\x1b[31mred`, `zero\u200bwidth`, "{{.Host}}", "größe-文件-🚀", "… and 2,981 more bytes",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q", want)
		}
	}
}

func TestPolicyAllowsTheStyleAlone(t *testing.T) {
	page := write(t, samplePage())
	_, rest, _ := strings.Cut(page, "<style>")
	style, _, _ := strings.Cut(rest, "</style>")
	hash := sha256.Sum256([]byte(style))
	policy := `content="default-src &#39;none&#39;; style-src &#39;sha256-` + base64.StdEncoding.EncodeToString(hash[:]) + `&#39;; img-src data:; base-uri &#39;none&#39;; form-action &#39;none&#39;"`
	if plain := strings.NewReplacer("&#39;", "'", "&#43;", "+").Replace(page); !strings.Contains(plain, strings.ReplaceAll(policy, "&#39;", "'")) {
		t.Errorf("no %s in\n%s", policy, page[:600])
	}
}

func TestVerdicts(t *testing.T) {
	for _, tc := range []struct {
		about, word, tone, line string
		change                  func(*Page)
	}{
		{"suspicious", "Needs attention now", "bad", "2 changes are of the kind that an intruder leaves", func(*Page) {}},
		{"clean", "No changes", "good", "Everything that was compared is as it was", func(p *Page) { p.Report.Changes, p.Report.Problems, p.Report.Drift = nil, nil, nil }},
		{"incomplete", "No changes in what could be read", "warn", "The report is incomplete: 2 entries could not be read", func(p *Page) { p.Report.Changes, p.Report.Drift = nil, nil }},
		{"updates", "Package updates only", "warn", "60 files have changed as the package database records it", func(p *Page) {
			p.Report.Changes, p.Report.Drift = p.Report.Changes[len(p.Report.Changes)-60:], nil
		}},
		{"medium", "Changes were found", "warn", "1 change since", func(p *Page) { p.Report.Changes, p.Report.Drift = p.Report.Changes[3:4], nil }},
		{"drift", "Changes were found", "bad", "2 changes since", func(p *Page) { p.Report.Changes = nil }},
		{"untrusted", "No changes", "bad", "The baseline itself cannot be trusted", func(p *Page) {
			p.Report.Changes, p.Report.Problems, p.Report.Drift = nil, nil, nil
			p.Report.Trust.Problems = []history.Problem{{Counter: 3, What: "record 3 was changed"}}
		}},
	} {
		p := samplePage()
		tc.change(p)
		v := newView(p)
		if v.Verdict.Word != tc.word || v.Verdict.Tone != tc.tone || !strings.Contains(strings.Join(v.Verdict.Lines, "\n"), tc.line) {
			t.Errorf("%s: %+v", tc.about, v.Verdict)
		}
		write(t, p)
	}
}

// TestHugeReportsAreBounded: nothing is left out silently, and the worst is
// what stays.
func TestHugeReportsAreBounded(t *testing.T) {
	p := samplePage()
	updates := p.Report.Changes[len(p.Report.Changes)-60:]
	for i := range 100_000 {
		c := updates[i%60]
		if i%2 == 0 {
			c.Class, c.Package = integrity.Unowned, ""
		} else {
			c.Package = fmt.Sprintf("package-%d 1 (dpkg)", i%1001)
		}
		c.Path = fmt.Appendf(nil, "/many/%d", i)
		p.Report.Changes = append(p.Report.Changes, c)
	}
	for i := range 5000 {
		p.Report.Problems = append(p.Report.Problems, integrity.Problem{Path: fmt.Appendf(nil, "/lost/%d", i), Kind: integrity.Unreadable, Reason: "no"})
	}
	v := newView(p)
	shown, left := 0, 0
	number := func(s string) (n int) {
		fmt.Sscanf(strings.ReplaceAll(s, ",", ""), "%d", &n)
		return n
	}
	for _, g := range v.Groups {
		shown += len(g.Rows)
		left += number(g.Left)
		for _, u := range g.Packages {
			shown += len(u.Rows)
		}
	}
	if shown > 2000 || shown+left != len(p.Report.Changes) || v.Left == "" {
		t.Errorf("%d shown, %d left of %d; %q", shown, left, len(p.Report.Changes), v.Left)
	}
	if len(v.Groups[0].Rows) != 2 || v.Groups[0].ID != "suspicious" || v.MoreLost != "4,702" || len(v.Problems) != 300 {
		t.Errorf("%+v, %s", v.Groups[0], v.MoreLost)
	}
	page := write(t, p)
	if len(page) > 4<<20 {
		t.Errorf("%d bytes", len(page))
	}
	for _, want := range []string{"Not all are shown.", "--format csv", "more packages are not shown", "4,702 more are not shown"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q", want)
		}
	}
}

// TestPageBesideFiles: a report that is not about files does not say that none
// changed.
func TestPageBesideFiles(t *testing.T) {
	p := samplePage()
	p.Report.Aspects, p.Entry.Aspects = []string{facts.Network}, []string{facts.Network}
	p.Report.Changes, p.Report.Summary = nil, integrity.Summary{}
	for _, drift := range []int{2, 0} {
		p.Report.Drift = p.Report.Drift[:drift]
		page := write(t, p)
		if strings.Contains(page, "entries compared") || strings.Contains(page, "files compared") || strings.Contains(page, "changes-heading") || !strings.Contains(page, ">Beside files<") {
			t.Errorf("with %d differences:\n%s", drift, page)
		}
	}
}

// TestTrend: bars stand side by side and on their axis, however many there are.
func TestTrend(t *testing.T) {
	p := samplePage()
	if newTrend(nil, "", 100) != nil {
		t.Error("a chart of nothing")
	}
	for _, n := range []int{1, 2, 3, 12, 100, 500} {
		tr := newTrend(past(n, p.Report), p.Report.ID, 100)
		if len(tr.Bars) != min(n, 100) || (tr.Left100 != "") != (n > 100) {
			t.Fatalf("%d reports: %d bars, %q", n, len(tr.Bars), tr.Left100)
		}
		end := 0
		for i, b := range tr.Bars {
			if b.X < end || b.X+b.Width > tr.Width || b.Width < 2 {
				t.Errorf("%d reports: bar %d from %d, %d wide, after %d", n, i, b.X, b.Width, end)
			}
			end = b.X + b.Width
			y := tr.Base
			for k := range b.Parts {
				part := b.Parts[k]
				if part.Y+part.Height != y || part.Height < 1 || part.Y < -20 {
					t.Errorf("bar %d: part %+v above %d", i, part, y)
				}
				y = part.Y
			}
			if b.Clean != (len(b.Parts) == 0) {
				t.Errorf("bar %d: clean %v, %d parts", i, b.Clean, len(b.Parts))
			}
		}
		if last := tr.Bars[len(tr.Bars)-1]; !last.Current {
			t.Errorf("%d reports: the last one is not this one", n)
		}
		if len(tr.Table) != len(tr.Bars) || !tr.Table[0].Current {
			t.Error("the table does not begin with the latest")
		}
	}
	// By severity, where nothing was classified.
	e := integrity.ReportEntry{Severities: map[string]int{"high": 2, "low": 1}, Summary: integrity.Summary{Changed: 3}}
	tr := newTrend([]integrity.ReportEntry{e}, "", 100)
	if fmt.Sprint(tr.Columns) != "[high low]" || fmt.Sprint(tr.Table[0].Numbers) != "[2 1]" {
		t.Errorf("%v %v", tr.Columns, tr.Table)
	}
	// What is beside files counts, too, once.
	e = integrity.ReportEntry{ID: "x", Severities: map[string]int{"high": 2, "low": 3}, Summary: integrity.Summary{Changed: 1}, Drift: 4, Aspects: []string{facts.Files, facts.Network}}
	tr = newTrend([]integrity.ReportEntry{e}, "", 100)
	if b := tr.Bars[0]; fmt.Sprint(tr.Columns) != "[high low]" || tr.Table[0].Total != "5" || b.Clean || b.Parts[len(b.Parts)-1].Y < plotTop {
		t.Errorf("%v %+v %+v", tr.Columns, tr.Table, b)
	}
	e.Classes = map[integrity.Class]int{integrity.Unowned: 1}
	tr = newTrend([]integrity.ReportEntry{e}, "", 100)
	if fmt.Sprint(tr.Columns) != "[unowned beside files]" || fmt.Sprint(tr.Table[0].Numbers) != "[1 4]" {
		t.Errorf("%v %+v", tr.Columns, tr.Table)
	}
	// A look at the network alone is not among those at files.
	looks := []integrity.ReportEntry{{ID: "n", Aspects: []string{facts.Network}}, e, {ID: "old"}, {ID: "c", Aspects: []string{facts.Containers}}}
	if got := alike(looks, &e); len(got) != 2 || got[0].ID != "x" || got[1].ID != "old" {
		t.Errorf("%+v", got)
	}
	if got := alike(looks, &looks[0]); len(got) != 1 || got[0].ID != "n" {
		t.Errorf("%+v", got)
	}
	for n, want := range map[int]int{0: 1, 1: 1, 2: 2, 3: 4, 5: 6, 7: 8, 9: 10, 11: 20, 24: 40, 99: 100, 61_234: 80_000} {
		if got := ceiling(n); got != want {
			t.Errorf("ceiling(%d) = %d", n, got)
		}
	}
}

// contrast is that of WCAG 2.2, 1.4.3.
func contrast(a, b [3]float64) float64 {
	l := func(c [3]float64) float64 { return 0.2126*c[0] + 0.7152*c[1] + 0.0722*c[2] }
	x, y := l(a), l(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func linear(t *testing.T, hex string) (c [3]float64) {
	t.Helper()
	var rgb [3]uint8
	if _, err := fmt.Sscanf(hex, "#%02x%02x%02x", &rgb[0], &rgb[1], &rgb[2]); err != nil {
		t.Fatalf("%q: %v", hex, err)
	}
	for i, v := range rgb {
		x := float64(v) / 255
		if c[i] = x / 12.92; x > 0.04045 {
			c[i] = math.Pow((x+0.055)/1.055, 2.4)
		}
	}
	return c
}

// TestContrast: text is readable on every ground that it stands on.
func TestContrast(t *testing.T) {
	style, err := files.ReadFile("style.css")
	if err != nil {
		t.Fatal(err)
	}
	roots := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(string(export.PageStyle(style)), -1)
	if len(roots) != 6 { // those of all pages, then those of this one
		t.Fatalf("%d schemes", len(roots))
	}
	for i := range 3 {
		colors := map[string][3]float64{}
		for _, m := range regexp.MustCompile(`--([a-z0-9-]+): (#[0-9a-f]{6})`).FindAllStringSubmatch(roots[i][1]+roots[3+i][1], -1) {
			colors[m[1]] = linear(t, m[2])
		}
		for _, pair := range [][2]string{
			{"ink", "paper"}, {"ink", "panel"}, {"ink", "bad-panel"}, {"ink", "warn-panel"}, {"ink", "good-panel"}, {"faint", "paper"}, {"faint", "panel"}, {"faint", "bad-panel"}, {"link", "paper"},
			{"bad", "paper"}, {"bad", "bad-panel"}, {"bad", "panel"}, {"warn", "paper"}, {"warn", "panel"}, {"warn", "warn-panel"}, {"good", "paper"}, {"good", "good-panel"},
		} {
			if got := contrast(colors[pair[0]], colors[pair[1]]); got < 4.5 {
				t.Errorf("scheme %d: %s on %s has contrast %.2f", i, pair[0], pair[1], got)
			}
		}
		for n := range 7 { // graphics: 1.4.11
			if got := contrast(colors[fmt.Sprintf("s%d", n)], colors["paper"]); got < 3 {
				t.Errorf("scheme %d: colour %d of the chart has contrast %.2f", i, n, got)
			}
		}
	}
}

// FuzzPage: whatever a path and a value are, the page has the same elements.
func FuzzPage(f *testing.F) {
	for _, name := range hostileNames {
		f.Add([]byte(name), name)
	}
	plain := func(path []byte, text string) string {
		p := samplePage()
		p.Report.Changes = []integrity.Change{{Path: path, From: path, Kind: integrity.Moved, Class: integrity.Unowned, Package: text, Reason: text, Attributes: []integrity.Attribute{{Name: text, Old: text, New: text}}}}
		p.Report.Problems = []integrity.Problem{{Path: path, Reason: text}}
		p.Report.Tree, p.Host = text, text
		var b bytes.Buffer
		if err := Write(&b, p); err != nil {
			return err.Error()
		}
		_, body, _ := strings.Cut(b.String(), "</style>")
		return body
	}
	want := len(tag.FindAllString(plain([]byte("x"), "x"), -1))
	f.Fuzz(func(t *testing.T, path []byte, text string) {
		if text == "" {
			text = "x"
		}
		page := plain(path, text)
		if got := len(tag.FindAllString(page, -1)); got != want {
			t.Fatalf("%d elements, not %d:\n%s", got, want, page)
		}
		if !utf8.ValidString(page) || strings.ContainsFunc(page, func(r rune) bool { return unicode.IsControl(r) && r != '\n' }) {
			t.Fatal("not text")
		}
	})
}
