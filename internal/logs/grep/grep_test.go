package grep

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/mobileops/mobileops/internal/logs/match"
	"github.com/ulikunitz/xz"
)

func compile(t testing.TB, pattern string, o match.Options) *match.Pattern {
	t.Helper()
	p, err := match.Compile(pattern, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// run returns what a search finds, one line each as grep writes it with -Z:
// path, NUL, number, ":" or "-" and the line.
func run(t testing.TB, o Options) (string, Report) {
	t.Helper()
	var b strings.Builder
	last := ""
	report, err := Search(context.Background(), o, func(h *Hit) error {
		if h.Gap && last != "" {
			b.WriteString("--\n")
		}
		last = h.Path
		mark := byte(':')
		if h.Context {
			mark = '-'
		}
		switch {
		case h.Binary:
			fmt.Fprintf(&b, "%s\x00binary\n", h.Path)
		case o.Count:
			fmt.Fprintf(&b, "%s\x00%d\n", h.Path, h.Count)
		case o.Numbers:
			fmt.Fprintf(&b, "%s\x00%d%c%d%c%s\n", h.Path, h.Number, mark, h.Offset, mark, h.Line)
		default:
			fmt.Fprintf(&b, "%s\x00%s\n", h.Path, h.Line)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), report
}

// tree makes files with names and contents as they are in real life and worse.
func tree(t testing.TB, r *rand.Rand) string {
	dir := t.TempDir()
	names := []string{
		"plain.log", "with space.log", "-dash", "new\nline", "quote\"'.log", "bytes\xff\xfe", "sub/a.log", "sub/b/c/deep", "sub.log", "sub-a",
		"empty", "日本語", "back\\slash", "many.log", "a:b:1", "long",
	}
	words := []string{"error", "Error", "ERROR", "errors", "_error", "connection", "from", "10.0.0.1", "10.0.0.12", "foo", "bar", "\xff\xfe", "é", "\r", "\t", "", "x=y", "error.", "(error)"}
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var b []byte
		lines := r.IntN(60)
		switch name {
		case "empty":
			lines = 0
		case "many.log":
			lines = 300
		}
		for range lines {
			n := r.IntN(8)
			if r.IntN(5) == 0 || name == "long" && r.IntN(10) == 0 {
				n = r.IntN(400)
			}
			for range n {
				b = append(append(b, words[r.IntN(len(words))]...), ' ')
			}
			b = append(b, '\n')
		}
		if len(b) > 0 && r.IntN(3) == 0 {
			b = append(b, "the error at the end"...)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// grep runs the real one.
func grep(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command("grep", args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
		t.Fatalf("grep %q: %v", args, err)
	}
	return string(out)
}

// byPath sorts the records of an output by path, and keeps the order of lines
// within a file: grep takes directories in the order of the file system.
func byPath(t testing.TB, dir, out string) string {
	t.Helper()
	files := map[string]string{}
	for rest := out; rest != ""; {
		if after, ok := strings.CutPrefix(rest, "--\n"); ok {
			rest = after
			continue
		}
		path, after, ok := strings.Cut(rest, "\x00")
		if !ok || !strings.HasPrefix(path, dir) {
			t.Fatalf("no path in %q", rest)
		}
		line, after, _ := strings.Cut(after, "\n")
		files[path] += path + "\x00" + line + "\n"
		rest = after
	}
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(files)) {
		b.WriteString(files[path])
	}
	return b.String()
}

func TestAgainstGrep(t *testing.T) {
	if _, err := exec.LookPath("grep"); err != nil {
		t.Skip("grep is not installed: nothing to compare with")
	}
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 3 {
		dir := tree(t, r)
		for _, tc := range []struct {
			name    string
			pattern string
			o       match.Options
			args    []string
		}{
			{"literal", "error", match.Options{}, []string{"-F"}},
			{"either case", "error", match.Options{Fold: true}, []string{"-F", "-i"}},
			{"word", "error", match.Options{Word: true}, []string{"-F", "-w"}},
			{"address", "10.0.0.1", match.Options{Word: true, Fold: true}, []string{"-F", "-w", "-i"}},
			{"everything", "", match.Options{}, []string{"-F"}},
			{"nothing", "zzz", match.Options{}, []string{"-F"}},
			{"expression", "[a-z]+: *|^from .*bar $|error( foo)+", match.Options{Regex: true}, []string{"-E"}},
			{"bytes", "\xff\xfe", match.Options{}, []string{"-F"}},
			{"empty lines", "^$", match.Options{Regex: true}, []string{"-E"}},
			{"carriage return", "\r $", match.Options{Regex: true}, []string{"-E"}},
		} {
			p := compile(t, tc.pattern, tc.o)
			for _, shape := range []struct {
				name string
				args []string
				o    Options
			}{
				{"lines", []string{"-n", "-b"}, Options{Numbers: true}},
				{"count", []string{"-c"}, Options{Count: true}},
				{"around", []string{"-n", "-b", "-C2"}, Options{Numbers: true, Before: 2, After: 2}},
				{"before", []string{"-n", "-b", "-B3"}, Options{Numbers: true, Before: 3}},
				{"after", []string{"-n", "-b", "-A1"}, Options{Numbers: true, After: 1}},
			} {
				o := shape.o
				o.Paths, o.Pattern, o.Recursive, o.Hidden, o.Text = []string{dir}, p, true, true, true
				o.Workers = 1 + r.IntN(4)
				// Everything that is at an end somewhere: of a buffer, of a part.
				o.partBytes, o.bufferBytes, o.maxLine = 1+r.IntN(1<<(4+r.IntN(10))), 1+r.IntN(300), MaxLine
				got, report := run(t, o)
				if len(report.Unread) > 0 || report.Cut > 0 {
					t.Fatalf("%+v", report)
				}
				args := slices.Concat([]string{"-r", "-a", "-Z", "-H"}, shape.args, tc.args, []string{"-e", tc.pattern, dir})
				want := grep(t, args...)
				if o.Count {
					want = withoutZero(want)
				}
				if o.Before+o.After > 0 && strings.Count(got, "--\n") != strings.Count(want, "--\n") {
					t.Errorf("round %d, %s, %s: %d groups, want %d", round, tc.name, shape.name, strings.Count(got, "--\n"), strings.Count(want, "--\n"))
				}
				if got, want := byPath(t, dir, got), byPath(t, dir, want); got != want {
					t.Fatalf("round %d, %s, %s, %+v:\n%s", round, tc.name, shape.name, o, difference(got, want))
				}
			}
		}
	}
}

// withoutZero leaves out the files in which grep -c counted nothing.
func withoutZero(out string) string {
	var b strings.Builder
	for rest := out; rest != ""; {
		path, after, _ := strings.Cut(rest, "\x00")
		count, after, _ := strings.Cut(after, "\n")
		if count != "0" {
			b.WriteString(path + "\x00" + count + "\n")
		}
		rest = after
	}
	return b.String()
}

// difference shows the first line that is not the same.
func difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		a, b := "nothing", "nothing"
		if i < len(g) {
			a = fmt.Sprintf("%q", g[i])
		}
		if i < len(w) {
			b = fmt.Sprintf("%q", w[i])
		}
		if a != b {
			return fmt.Sprintf("line %d is %.300s\nwant      %.300s", i+1, a, b)
		}
	}
	return "no difference"
}

func TestAgainstRipgrep(t *testing.T) {
	if _, err := exec.LookPath("rg"); err != nil {
		t.Skip("ripgrep is not installed: nothing to compare with")
	}
	dir := tree(t, rand.New(rand.NewPCG(3, 4)))
	for _, tc := range []struct {
		pattern string
		o       match.Options
		args    []string
	}{
		{"error", match.Options{}, []string{"-F"}},
		{"error", match.Options{Word: true}, []string{"-F", "-w"}},
		{"error|foo", match.Options{Regex: true, Word: true}, []string{"-w"}},
		{`e\w+r\b`, match.Options{Regex: true, Fold: true}, []string{"-i"}},
		{`^\s+x=`, match.Options{Regex: true}, nil},
		{`[^a-z]{3}foo`, match.Options{Regex: true}, nil},
		{`(?i)É`, match.Options{Regex: true}, nil},
		{`\S\s$`, match.Options{Regex: true}, nil},
		{`\(error`, match.Options{Regex: true, Word: true}, []string{"-w"}},
		{`x*`, match.Options{Regex: true, Word: true}, []string{"-w"}},
	} {
		args := slices.Concat([]string{"--no-config", "--no-ignore", "--encoding=none", "--sort=path", "-n", "-b", "-a", "--no-heading", "-H", "-0"}, tc.args, []string{"-e", tc.pattern, dir})
		want, err := exec.Command("rg", args...).Output()
		var exit *exec.ExitError
		if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 1) {
			t.Fatal(err)
		}
		// Without bytes that are no UTF-8, which ripgrep and RE2 read differently.
		o := Options{Paths: []string{dir}, Pattern: compile(t, tc.pattern, tc.o), Recursive: true, Numbers: true, Text: true}
		got, _ := run(t, o)
		if got, want := byPath(t, dir, valid(got)), byPath(t, dir, valid(string(want))); got != want {
			t.Errorf("%q %+v:\n%s", tc.pattern, tc.o, difference(got, want))
		}
	}
}

// valid leaves out the records with bytes that are no UTF-8.
func valid(out string) string {
	var b strings.Builder
	for rest := out; rest != ""; {
		path, after, _ := strings.Cut(rest, "\x00")
		line, after, _ := strings.Cut(after, "\n")
		if strings.ToValidUTF8(line, "") == line {
			b.WriteString(path + "\x00" + line + "\n")
		}
		rest = after
	}
	return b.String()
}

// The order is that of paths and lines, whoever is faster.
func TestOrder(t *testing.T) {
	dir := tree(t, rand.New(rand.NewPCG(5, 6)))
	o := Options{Paths: []string{dir}, Pattern: compile(t, "o", match.Options{}), Recursive: true, Numbers: true, Text: true, Workers: 1}
	want, _ := run(t, o)
	for range 20 {
		o.Workers = 8
		o.partBytes, o.bufferBytes, o.maxLine = 512, 100, MaxLine
		if got, _ := run(t, o); got != want {
			t.Fatal(difference(got, want))
		}
	}
}

func write(t testing.TB, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBinaryFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/a", []byte("an error\n\x00\nanother error\n"))
	write(t, dir+"/b", []byte("nothing\x00\n"))
	write(t, dir+"/late", append(bytes.Repeat([]byte("an error\n"), 8000), 0))
	o := Options{Paths: []string{dir + "/a", dir + "/b"}, Pattern: compile(t, "error", match.Options{}), Numbers: true}
	if got, report := run(t, o); got != dir+"/a\x00binary\n" || report.Lines != 1 || report.FilesMatched != 1 || report.Files != 2 {
		t.Errorf("%q, %+v", got, report)
	}
	o.partBytes, o.bufferBytes, o.maxLine = 4, 8, MaxLine
	if got, report := run(t, o); got != dir+"/a\x00binary\n" || report.Lines != 1 {
		t.Errorf("in parts: %q, %+v", got, report)
	}
	o.Count = true
	if got, _ := run(t, o); got != dir+"/a\x001\n" {
		t.Errorf("count: %q", got)
	}
	o.Text = true
	if got, _ := run(t, o); got != dir+"/a\x002\n" {
		t.Errorf("count of text: %q", got)
	}
	o.Text, o.Paths = false, []string{dir + "/late"}
	if got, _ := run(t, o); got != dir+"/late\x008000\n" {
		t.Errorf("a NUL behind the first 64 KiB: %q", got)
	}
}

func TestCompressedFiles(t *testing.T) {
	dir := t.TempDir()
	var text []byte
	for i := range 20000 {
		text = fmt.Appendf(text, "line %d from 10.0.%d.%d\n", i, i/256%256, i%256)
	}
	pack := func(name string, w func(io.Writer) (io.WriteCloser, error)) string {
		var b bytes.Buffer
		z, err := w(&b)
		if err != nil {
			t.Fatal(err)
		}
		z.Write(text)
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return write(t, filepath.Join(dir, name), b.Bytes())
	}
	plain := write(t, dir+"/plain", text)
	paths := []string{
		pack("log.1.gz", func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }),
		pack("named-otherwise", func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }),
		pack("log.3.zst", func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }),
	}
	for program, name := range map[string]string{"bzip2": "log.4.bz2", "xz": "log.5.xz", "zstd": "log.6.zst", "gzip": "log.7.gz"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Logf("%s is not installed: its files are not tested", program)
			continue
		}
		out, err := exec.Command(program, "-9", "-c", plain).Output()
		if err != nil {
			t.Fatal(program, err)
		}
		// Two files one behind the other are one, as rotation by appending makes.
		paths = append(paths, write(t, filepath.Join(dir, name), out))
	}
	p := compile(t, "10.0.7.77", match.Options{Word: true})
	want, _ := run(t, Options{Paths: []string{plain}, Pattern: p, Numbers: true})
	want = strings.TrimPrefix(want, plain)
	for _, small := range []bool{false, true} {
		for _, path := range paths {
			o := Options{Paths: []string{path}, Pattern: p, Numbers: true}
			if small {
				o.partBytes, o.bufferBytes, o.maxLine = 500, 77, MaxLine
			}
			got, report := run(t, o)
			if got != path+want || len(report.Unread) > 0 || report.Bytes != int64(len(text)) {
				t.Errorf("%s: %q, want %q; %+v", path, got, want, report)
			}
		}
	}
	// Two members in one file, and then a file that ends too early: what it has
	// is found, and that it was not all is said.
	for i, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		twice := write(t, fmt.Sprintf("%s/twice%d", dir, i), slices.Concat(data, data))
		if got, report := run(t, Options{Paths: []string{twice}, Pattern: p, Count: true}); got != twice+"\x002\n" || len(report.Unread) > 0 {
			t.Errorf("%s twice: %q %+v", path, got, report)
		}
		cut := write(t, fmt.Sprintf("%s/cut%d", dir, i), data[:len(data)-9])
		_, report := run(t, Options{Paths: []string{cut}, Pattern: p, Count: true})
		if len(report.Unread) != 1 || report.Unread[0].Path != cut {
			t.Errorf("%s cut off: %+v", path, report)
		}
		damaged := bytes.Clone(data)
		damaged[len(data)/2] ^= 0x55
		write(t, cut, damaged)
		if _, report := run(t, Options{Paths: []string{cut}, Pattern: p, Count: true}); len(report.Unread) != 1 {
			t.Errorf("%s damaged: %+v", path, report)
		}
	}
}

func TestUnread(t *testing.T) {
	dir := t.TempDir()
	good := write(t, dir+"/good", []byte("error\n"))
	p := compile(t, "error", match.Options{})
	got, report := run(t, Options{Paths: []string{dir + "/missing", good, dir}, Pattern: p})
	if got != good+"\x00error\n" || len(report.Unread) != 2 || report.Files != 1 {
		t.Fatalf("%q %+v", got, report)
	}
	if u := report.Unread[0]; u.Path != dir+"/missing" || !errors.Is(u.Err, os.ErrNotExist) {
		t.Errorf("%+v", u)
	}
	if u := report.Unread[1]; u.Path != dir || !strings.Contains(u.Err.Error(), "--recursive") {
		t.Errorf("%+v", u)
	}
}

func TestHiddenAndLinks(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/.hidden", []byte("error\n"))
	target := write(t, t.TempDir()+"/target", []byte("error\n"))
	if err := os.Symlink(target, dir+"/link"); err != nil {
		t.Fatal(err)
	}
	p := compile(t, "error", match.Options{})
	if got, _ := run(t, Options{Paths: []string{dir}, Recursive: true, Pattern: p}); got != "" {
		t.Errorf("found %q", got)
	}
	if got, _ := run(t, Options{Paths: []string{dir}, Recursive: true, Hidden: true, Pattern: p}); got != dir+"/.hidden\x00error\n" {
		t.Errorf("found %q", got)
	}
	if got, _ := run(t, Options{Paths: []string{dir + "/link"}, Pattern: p}); got != dir+"/link\x00error\n" {
		t.Errorf("found %q", got)
	}
}

func TestLimit(t *testing.T) {
	dir := t.TempDir()
	a := write(t, dir+"/a", []byte("1 error\n2\n3 error\n4\n5\n6\n7 error\n"))
	b := write(t, dir+"/b", []byte("1 error\n"))
	p := compile(t, "error", match.Options{})
	for _, tc := range []struct {
		limit         int64
		before, after int
		want          string
		limited       bool
	}{
		{1, 0, 0, "1 error", true},
		{2, 0, 0, "1 error|3 error", true},
		{2, 0, 1, "1 error|2|3 error|4", true},
		{2, 1, 5, "1 error|2|3 error|4|5|6", true},
		{3, 0, 3, "1 error|2|3 error|4|5|6|7 error", true},
		{9, 0, 0, "1 error|3 error|7 error|1 error", false},
	} {
		var got []string
		report, err := Search(context.Background(), Options{Paths: []string{a, b}, Pattern: p, Limit: tc.limit, Before: tc.before, After: tc.after}, func(h *Hit) error {
			got = append(got, string(h.Line))
			return nil
		})
		if err != nil || strings.Join(got, "|") != tc.want || report.Limited != tc.limited {
			t.Errorf("limit %d, %d before, %d after: %q %+v, want %q", tc.limit, tc.before, tc.after, got, report, tc.want)
		}
	}
}

// A line that comes through a pipe is reported before the pipe ends.
func TestStandardInput(t *testing.T) {
	r, w := io.Pipe()
	got := make(chan string)
	done := make(chan error, 1)
	go func() {
		_, err := Search(context.Background(), Options{Paths: []string{"-"}, Stdin: r, Pattern: compile(t, "error", match.Options{}), Numbers: true}, func(h *Hit) error {
			got <- fmt.Sprint(h.Path, h.Number, " ", string(h.Line))
			return nil
		})
		done <- err
	}()
	for i, text := range []string{"one error\n", "nothing\nan", "other error\nmore errors"} {
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if line := <-got; line != "-1 one error" {
				t.Fatalf("got %q", line)
			}
		}
	}
	if line := <-got; line != "-3 another error" {
		t.Fatalf("got %q", line)
	}
	w.Close()
	if line := <-got; line != "-4 more errors" {
		t.Fatalf("got %q", line)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestInterruptedWhileAPipeIsSilent(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := Search(ctx, Options{Paths: []string{"-"}, Stdin: r, Pattern: compile(t, "x", match.Options{})}, func(*Hit) error { return nil })
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestErrorOfTheReceiverEndsTheSearch(t *testing.T) {
	dir := tree(t, rand.New(rand.NewPCG(7, 8)))
	broken := errors.New("broken pipe")
	_, err := Search(context.Background(), Options{Paths: []string{dir}, Recursive: true, Pattern: compile(t, "", match.Options{})}, func(*Hit) error { return broken })
	if err != broken {
		t.Fatal(err)
	}
}

func TestFilter(t *testing.T) {
	dir := tree(t, rand.New(rand.NewPCG(9, 10)))
	both := func() func(string, []byte) bool {
		return func(_ string, line []byte) bool {
			return bytes.Contains(line, []byte("foo")) && bytes.Contains(line, []byte("Error")) && !bytes.Contains(line, []byte("bar"))
		}
	}
	o := Options{Paths: []string{dir}, Recursive: true, Text: true, Numbers: true}
	o.Filter = &Filter{NewEval: both}
	want, _ := run(t, o)
	if want == "" {
		t.Fatal("nothing is found: this tests nothing")
	}
	lit := func(s string) match.Clause { return match.Clause{{Text: []byte(s)}} }
	for _, need := range []match.Need{
		{Clauses: []match.Clause{lit("foo"), lit("Error")}},
		{Clauses: []match.Clause{{{Text: []byte("error"), Fold: true}, {Text: []byte("zzz")}}}},
	} {
		o.Filter.Need = need
		if got, _ := run(t, o); got != want {
			t.Errorf("%v: %s", need, difference(got, want))
		}
	}
}

// A line without end is searched in pieces, and the lines behind it once.
func TestLongLinesAreCut(t *testing.T) {
	var text []byte
	for range 50 {
		text = append(text, "short error\n"...)
		text = append(text, bytes.Repeat([]byte("no newline "), 100)...)
		text = append(text, "error\n"...)
	}
	path := write(t, t.TempDir()+"/long", text)
	for part := 100; part < 5000; part += 333 {
		o := Options{Paths: []string{path}, Pattern: compile(t, "error", match.Options{}), Count: true, partBytes: part, bufferBytes: 64, maxLine: 256}
		got, report := run(t, o)
		if got != path+"\x00100\n" || report.Cut == 0 {
			t.Errorf("parts of %d: %q %+v", part, got, report)
		}
	}
}
