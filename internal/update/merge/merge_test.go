package merge

import (
	"bytes"
	"io/fs"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestMerge(t *testing.T) {
	for _, tc := range []struct {
		name, base, mine, theirs, want string
		outcome                        Outcome
	}{
		{"nobody changed it", "a\n", "a\n", "a\n", "a\n", Unchanged},
		{"the package changed it", "a\n", "a\n", "b\n", "b\n", TookTheirs},
		{"the admin changed it", "a\n", "b\n", "a\n", "b\n", KeptMine},
		{"both did the same", "a\n", "b\n", "b\n", "b\n", Unchanged},
		{"far apart", "a\nb\nc\n", "A\nb\nc\n", "a\nb\nC\n", "A\nb\nC\n", Merged},
		{"next to each other", "a\nb\n", "A\nb\n", "a\nB\n", "A\nb\n", Conflicted},
		{"the same line", "a\nb\n", "a\nX\n", "a\nY\n", "a\nX\n", Conflicted},
		{"both add at the end", "a\n", "a\nb\n", "a\nc\n", "a\nb\n", Conflicted},
		{"added at either end", "a\n", "0\na\n", "a\nb\n", "0\na\nb\n", Merged},
		{"added with a line in between", "a\nb\n", "0\na\nb\n", "a\nb\nc\n", "0\na\nb\nc\n", Merged},
		{"one removes, one changes elsewhere", "a\nb\nc\nd\n", "b\nc\nd\n", "a\nb\nc\nD\n", "b\nc\nD\n", Merged},
		{"one removes what the other changes", "a\nb\nc\n", "a\nc\n", "a\nB\nc\n", "a\nc\n", Conflicted},
		{"no last newline here", "a\nb\nc", "A\nb\nc", "a\nb\nc\n", "A\nb\nc\n", Merged},
		{"last newline taken away here", "a\nb\nc\n", "a\nb\nc", "A\nb\nc\n", "A\nb\nc", Merged},
		{"CRLF stays", "a\r\nb\r\nc\r\n", "A\r\nb\r\nc\r\n", "a\r\nb\r\nC\r\n", "A\r\nb\r\nC\r\n", Merged},
		{"CRLF on one side", "a\nb\nc\n", "a\r\nb\r\nc\r\n", "a\nb\nC\n", "a\r\nb\r\nc\r\n", Conflicted},
		{"mine has theirs already", "a\nb\nc\nd\n", "A\nb\nc\nD\n", "A\nb\nc\nd\n", "A\nb\nc\nD\n", KeptMine},
		{"theirs has mine already", "a\nb\nc\nd\n", "A\nb\nc\nd\n", "A\nb\nc\nD\n", "A\nb\nc\nD\n", TookTheirs},
		{"binary", "a\n\x00\nb\n", "A\n\x00\nb\n", "a\n\x00\nB\n", "A\n\x00\nb\n", Conflicted},
		{"binary, changed on one side", "a\x00", "a\x00", "b\x00", "b\x00", TookTheirs},
		{"emptied here", "a\nb\n", "", "a\nB\n", "", Conflicted},
		{"emptied on both sides", "a\n", "", "", "", Unchanged},
	} {
		got := Merge([]byte(tc.base), []byte(tc.mine), []byte(tc.theirs))
		if string(got.Content) != tc.want || got.Outcome != tc.outcome || got.Clean != (tc.outcome != Conflicted) || got.Clean == (got.Reason != "") {
			t.Errorf("%s: %+v, content %q; want %s, %q", tc.name, got, got.Content, tc.outcome, tc.want)
		}
	}
}

func TestConflictsNameTheLines(t *testing.T) {
	base := "a\nb\nc\nd\ne\nf\n"
	got := Merge([]byte(base), []byte("new\na\nb\nC\nd\ne\nf\n"), []byte("a\nb\nX\nY\nd\ne\nf\ng\n"))
	want := []Conflict{{Base: Lines{3, 1}, Mine: Lines{4, 1}, Theirs: Lines{3, 2}}}
	if !reflect.DeepEqual(got.Conflicts, want) {
		t.Errorf("%+v, want %+v", got.Conflicts, want)
	}
}

// TestIdentities holds for all bytes, text or not.
func TestIdentities(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		words := vocabularies[r.IntN(len(vocabularies))]
		lines := randomLines(r, words, r.IntN(30))
		checkIdentities(t, bytesOf(r, lines), bytesOf(r, randomEdits(r, words, lines)), bytesOf(r, randomEdits(r, words, lines)))
	}
}

func checkIdentities(t *testing.T, base, mine, theirs []byte) {
	t.Helper()
	is := func(what string, r Result, want []byte, outcomes ...Outcome) {
		t.Helper()
		for _, o := range outcomes {
			if r.Clean && bytes.Equal(r.Content, want) && r.Outcome == o {
				return
			}
		}
		t.Errorf("%s of %q, %q, %q: %+v", what, base, mine, theirs, r)
	}
	is("Merge(b,b,t)", Merge(base, base, theirs), theirs, TookTheirs, Unchanged)
	is("Merge(b,m,b)", Merge(base, mine, base), mine, KeptMine, Unchanged)
	is("Merge(b,m,m)", Merge(base, mine, mine), mine, Unchanged)

	there, back := Merge(base, mine, theirs), Merge(base, theirs, mine)
	if there.Clean != back.Clean || there.Clean && !bytes.Equal(there.Content, back.Content) {
		t.Errorf("it matters which side is which: %q, %q, %q: %+v, %+v", base, mine, theirs, there, back)
	}
	if !there.Clean {
		if !bytes.Equal(there.Content, mine) {
			t.Errorf("a conflict changed the local file: %q became %q", mine, there.Content)
		}
		return
	}
	// Every line is of mine or theirs.
	known := map[string]bool{}
	for _, side := range [][]byte{mine, theirs} {
		for _, l := range bytes.SplitAfter(side, []byte("\n")) {
			known[string(l)] = true
		}
	}
	for _, l := range bytes.SplitAfter(there.Content, []byte("\n")) {
		if !known[string(l)] && len(l) > 0 {
			t.Errorf("line %q is of neither side: %q, %q, %q", l, base, mine, theirs)
		}
	}
}

func FuzzMerge(f *testing.F) {
	f.Add([]byte("a\nb\nc\n"), []byte("A\nb\nc\n"), []byte("a\nb\nC"))
	f.Add([]byte("a\na\na\n"), []byte("a\na\n"), []byte("a\na\na\na\n"))
	f.Add([]byte("x\r\ny"), []byte("x\ny\n"), []byte(""))
	f.Add([]byte("{\"a\":1,\n\"b\":2}\n"), []byte("{\"c\":1,\n\"b\":2}\n"), []byte("{\"a\":1,\n\"c\":2}\n"))
	f.Add([]byte("a: 1\nb: &x [1]\nc: *x\n"), []byte("a: 2\nb: &x [1]\nc: *x\n"), []byte("a: 1\nb: &x [1]\nc: *y\n"))
	f.Fuzz(func(t *testing.T, base, mine, theirs []byte) {
		checkIdentities(t, base, mine, theirs)
		for _, name := range []string{"a.json", "a.yaml", "a"} {
			Decide(name, &File{Content: base}, &File{Content: mine}, &File{Content: theirs})
		}
	})
}

// TestBounds merges what is made to take long. Without bounds these take
// minutes; the time is generous, for the race detector.
func TestBounds(t *testing.T) {
	half := func(r *rand.Rand, n int) []byte {
		var b []byte
		for range n {
			b = append(b, "ab"[r.IntN(2)], '\n')
		}
		return b
	}
	r := rand.New(rand.NewPCG(3, 4))
	const n = MaxLines - 1
	same := []byte(strings.Repeat("a\n", n))
	for name, v := range map[string][3][]byte{
		"two lines at random":    {half(r, n), half(r, n), half(r, n)},
		"one line, many groups":  {same, bytes.ReplaceAll(same, []byte("a\na\na\n"), []byte("a\nx\na\n")), same[:n]},
		"one line, other counts": {same, same[:n], same[:n/2]},
		"too many lines":         {[]byte(strings.Repeat("\n", MaxSize)), []byte("a\n"), []byte("b\n")},
		"too large":              {make([]byte, MaxSize+1), []byte("a\n"), []byte("b\n")},
	} {
		began := time.Now()
		got := Merge(v[0], v[1], v[2])
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("%s: took %v", name, took)
		}
		if !got.Clean && !bytes.Equal(got.Content, v[1]) {
			t.Errorf("%s: the local content is lost", name)
		}
		t.Logf("%s: %s %s", name, got.Outcome, got.Reason)
	}
}

func TestMergedFileStaysWellFormed(t *testing.T) {
	for _, tc := range []struct{ name, base, mine, theirs, want string }{
		{"a.json", "{\n\"a\": 1,\n\"b\": 2,\n\"c\": 3\n}\n", "{\n\"z\": 1,\n\"b\": 2,\n\"c\": 3\n}\n", "{\n\"a\": 1,\n\"b\": 2,\n\"z\": 3\n}\n", `"z" is there twice`},
		{"a.json", "[\n1,\n2,\n3\n]\n", "[\n1,\n2,\n3,\n4\n]\n", "[\n0,\n1,\n2,\n3\n]\n", ""},
		{"a.json", "[\n1\n,2\n,3\n]\n", "[\n1\n,2\n]\n", "[\n2\n,3\n]\n", ""},
		{"a.json", "[\n\n\n\n]\n", "{\n\n\n\n}\n", "[\n\n1\n\n]\n", "not JSON"},
		{"a.yaml", "[\n\n\n\n]\n", "{\n\n\n\n}\n", "[\n\n- 1\n\n]\n", ""},
		{"a.yaml", "a: [\n\n\n\n]\n", "a: |\n\n\n\n b\n", "a: [\n\n1\n\n]\n", "not YAML"},
		{"A.YAML", "a: 1\nb: 2\nc: 3\n", "z: 1\nb: 2\nc: 3\n", "a: 1\nb: 2\nz: 3\n", `"z" is there twice`},
		{"a.yml", "a:\n  b: 1\n  c: 2\n  d: 3\n", "a:\n    b: 1\n    c: 2\n    d: 3\n", "a:\n  b: 1\n  c: 2\n  d: 3\ne: 4\n", ""},
		{"a.yml", "a: [1,\n2,\n3]\n", "a: 1\nb: [\n2,\n3]\n", "a: [1,\n2,\n3,\n4]\n", ""},
		{"a.yml", "x: 1\ny: 2\nl:\n- a\n", "x: {\n1: 1}\ny: 2\nl:\n- a\n", "x: 1\ny: 2\nl:\n- a\n- b\n", ""},
		{"a.conf", "a: 1\nb: 2\nc: 3\n", "z: 1\nb: 2\nc: 3\n", "a: 1\nb: 2\nz: 3\n", ""},
		{"broken.json", "{\n1\n2\n3\n", "{\n0\n2\n3\n", "{\n1\n2\n4\n", ""},
	} {
		file := func(s string) *File { return &File{Content: []byte(s), Mode: 0o644} }
		got := Decide(tc.name, file(tc.base), file(tc.mine), file(tc.theirs))
		text := Merge([]byte(tc.base), []byte(tc.mine), []byte(tc.theirs))
		if tc.want == "" {
			if got.Outcome != text.Outcome {
				t.Errorf("%s: %q: %s %s, want what the text gives, %s", tc.name, tc.mine, got.Outcome, got.Reason, text.Outcome)
			}
			continue
		}
		if !text.Clean {
			t.Errorf("%s: %q: the text is a conflict, so this shows nothing", tc.name, tc.mine)
		}
		if got.Clean || !strings.Contains(got.Reason, tc.want) || string(got.Content) != tc.mine || got.Aside == nil {
			t.Errorf("%s: %q: %+v, want %q", tc.name, tc.mine, got, tc.want)
		}
	}
}

// TestDecide is the table of all combinations: the versions a, b and c of a
// file, in which a version may be missing.
func TestDecide(t *testing.T) {
	a := &File{Content: []byte("1\n2\n3\n"), Mode: 0o644}
	b := &File{Content: []byte("1b\n2\n3\n"), Mode: 0o644}
	c := &File{Content: []byte("1\n2\n3c\n"), Mode: 0o644}
	x := &File{Content: []byte("1x\n2\n3\n"), Mode: 0o644}
	bc := &File{Content: []byte("1b\n2\n3c\n"), Mode: 0o644}
	link := func(to string) *File { return &File{Content: []byte(to), Mode: fs.ModeSymlink | 0o777} }
	mode := func(f *File, m fs.FileMode) *File { return &File{f.Content, m} }
	empty := &File{Mode: 0o644}
	for _, tc := range []struct {
		name               string
		base, mine, theirs *File
		want               *File
		outcome            Outcome
		removed            bool
	}{
		{"nowhere", nil, nil, nil, nil, Unchanged, false},
		{"new in the package", nil, nil, a, a, TookTheirs, false},
		{"made here", nil, a, nil, a, KeptMine, false},
		{"made here as in the package", nil, a, a, a, Unchanged, false},
		{"made here, another in the package", nil, b, c, b, Conflicted, false},
		{"made here empty, another in the package", nil, empty, c, empty, Conflicted, false},
		{"the same everywhere", a, a, a, a, Unchanged, false},
		{"changed by the package", a, a, b, b, TookTheirs, false},
		{"deleted by the package", a, a, nil, nil, TookTheirs, true},
		{"changed here", a, b, a, b, KeptMine, false},
		{"changed on both sides", a, b, c, bc, Merged, false},
		{"changed in the same way", a, b, b, b, Unchanged, false},
		{"changed in the same place", a, b, x, b, Conflicted, false},
		{"changed here, deleted by the package", a, b, nil, b, Conflicted, false},
		{"deleted here", a, nil, a, nil, KeptMine, false},
		{"deleted here, changed by the package", a, nil, b, nil, Conflicted, false},
		{"deleted on both sides", a, nil, nil, nil, Unchanged, false},
		{"mode here, content there", a, mode(a, 0o600), b, mode(b, 0o600), Merged, false},
		{"content here, mode there", a, b, mode(a, 0o755), mode(b, 0o755), Merged, false},
		{"mode on one side", a, a, mode(a, 0o600), mode(a, 0o600), TookTheirs, false},
		{"the same mode on both sides", a, mode(b, 0o600), mode(c, 0o600), mode(bc, 0o600), Merged, false},
		{"other modes on both sides", a, mode(a, 0o600), mode(a, 0o640), mode(a, 0o600), Conflicted, false},
		{"mode taken away here, deleted there", a, mode(a, 0o600), nil, mode(a, 0o600), Conflicted, false},
		{"setuid here and a mode there", a, mode(a, 0o755|fs.ModeSetuid), mode(b, 0o755), mode(a, 0o755|fs.ModeSetuid), Conflicted, false},
		{"a link there", a, a, link("x"), link("x"), TookTheirs, false},
		{"a link here", a, link("x"), a, link("x"), KeptMine, false},
		{"a link here, changed there", a, link("x"), b, link("x"), Conflicted, false},
		{"links to different places", link("x"), link("y"), link("z"), link("y"), Conflicted, false},
		{"a link changed there", link("x"), link("x"), link("z"), link("z"), TookTheirs, false},
		{"permissions of links do not count", link("x"), &File{[]byte("x"), fs.ModeSymlink}, link("z"), link("z"), TookTheirs, false},
	} {
		got := Decide("etc/app.conf", tc.base, tc.mine, tc.theirs)
		if got.Outcome != tc.outcome || !reflect.DeepEqual(got.File, tc.want) || got.Removed != tc.removed {
			t.Errorf("%s: %+v, want %s %+v", tc.name, got, tc.outcome, tc.want)
		}
		if conflicted := tc.outcome == Conflicted; got.Clean == conflicted || (got.Reason != "") != conflicted || conflicted && got.Aside != tc.theirs || !conflicted && got.Aside != nil {
			t.Errorf("%s: %+v", tc.name, got)
		}
		if got.File != nil && !bytes.Equal(got.Content, got.File.Content) {
			t.Errorf("%s: content %q, of the file %q", tc.name, got.Content, got.File.Content)
		}
	}
	reason := Decide("x", a, mode(a, 0o600), mode(a, 0o755|fs.ModeSetgid)).Reason
	if !strings.Contains(reason, "here to 0600, by the package to 2755") {
		t.Errorf("%q does not tell the modes", reason)
	}
}
