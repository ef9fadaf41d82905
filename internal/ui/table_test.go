package ui

import (
	"strings"
	"testing"
)

func sample(s *Streams) *Table {
	t := s.NewTable(
		Column{Title: "SEVERITY"},
		Column{Title: "PATH", Min: 12, KeepEnd: true},
		Column{Title: "SIZE", Right: true},
		Column{Title: "OWNER", Drop: 1},
		Column{Title: "NOTE", Min: 8, Drop: 2},
	)
	t.Row("high", "/usr/lib/very/long/path/to/libcrypto.so.3", Bytes(4455728), "root", "changed")
	t.Row("low", "/etc/文件\nx", 17, "", "")
	return t
}

func TestTableInAPipeIsWhole(t *testing.T) {
	s, out, _ := Test(nil)
	s.Width = 20 // that of stderr
	if err := sample(s).Print(); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		`SEVERITY  PATH                                          SIZE  OWNER  NOTE`,
		`high      /usr/lib/very/long/path/to/libcrypto.so.3  4.46 MB  root   changed`,
		`low       /etc/文件\nx                                    17`,
		``}, "\n")
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

func TestTableFitsTheTerminal(t *testing.T) {
	for _, tc := range []struct {
		width int
		want  []string // titles
		path  string
	}{
		{100, []string{"SEVERITY", "PATH", "SIZE", "OWNER", "NOTE"}, "/usr/lib/very/long/path/to/libcrypto.so.3"},
		{60, []string{"SEVERITY", "PATH", "SIZE", "OWNER", "NOTE"}, "…g/path/to/libcrypto.so.3"},
		{46, []string{"SEVERITY", "PATH", "SIZE", "OWNER"}, "…h/to/libcrypto.so.3"},
		{31, []string{"SEVERITY", "PATH", "SIZE"}, "crypto.so.3"},
		{10, []string{"SEVERITY", "PATH", "SIZE"}, "…"},
	} {
		s, out, _ := Test(nil)
		s.OutTTY, s.Width = true, tc.width
		if err := sample(s).Print(); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if got := strings.Fields(lines[0]); strings.Join(got, " ") != strings.Join(tc.want, " ") {
			t.Errorf("width %d: columns %q, want %q", tc.width, got, tc.want)
		}
		if !strings.Contains(lines[1], tc.path) {
			t.Errorf("width %d: no %s in %q", tc.width, tc.path, lines[1])
		}
		for _, line := range lines {
			if w := columns(line); w > max(tc.width, 31) {
				t.Errorf("width %d: %d columns: %q", tc.width, w, line)
			}
			if strings.HasSuffix(line, " ") || strings.Contains(line, "\t") {
				t.Errorf("space at the end or tab: %q", line)
			}
		}
	}
}

func TestTableStylesOnlyTheText(t *testing.T) {
	s, out, _ := Test(nil)
	s.Color = true
	table := s.NewTable(Column{Title: "A"}, Column{Title: "B"})
	theme := s.Theme()
	table.Row(Cell{"critical", func(w string) string { return theme.Severity(4, w) }}, "x")
	if err := table.Print(); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, "\x1b[1;7;31mcritical\x1b[0m  x\n") {
		t.Errorf("%q", got)
	}
}

func TestEmptyTablePrintsNothing(t *testing.T) {
	s, out, _ := Test(nil)
	if err := s.NewTable(Column{Title: "A"}).Print(); err != nil || out.Len() != 0 {
		t.Errorf("%q, %v", out, err)
	}
}

func TestPathsAreShortenedLast(t *testing.T) {
	s, out, _ := Test(nil)
	s.OutTTY, s.Width = true, 50
	table := s.NewTable(Column{Title: "PATH", Min: 12, KeepEnd: true}, Column{Title: "WHAT", Min: 10})
	path := "/usr/lib/a/path/of/40/columns/libssl.so.3"
	table.Row(path[:36], "size 3 to 4, mtime, ctime, content")
	if err := table.Print(); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); !strings.Contains(got, path[:36]+"  size 3 to 4…\n") {
		t.Errorf("%q", got)
	}
}

func TestOneLongNameDoesNotWidenEveryRowOfAPipe(t *testing.T) {
	s, out, _ := Test(nil)
	table := s.NewTable(Column{Title: "PATH", Min: 12, KeepEnd: true}, Column{Title: "WHAT"})
	long := strings.Repeat("x", 4000)
	table.Row(long, "added")
	table.Row("/etc/passwd", "changed")
	if err := table.Print(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if lines[1] != long+"  added" || len(lines[2]) != widestPadded+gap+len("changed") {
		t.Errorf("%d and %d bytes", len(lines[1]), len(lines[2]))
	}
}

// What says nothing is not a reason to shorten what people copy.
func TestTableLeavesOutWhatIsEmptyFirst(t *testing.T) {
	s, out, _ := Test(nil)
	s.OutTTY, s.Width = true, 30
	table := s.NewTable(Column{Title: "UPDATE", Min: 8, KeepEnd: true}, Column{Title: "STATE"}, Column{Title: "WAIVER", Drop: 1}, Column{Title: "NOTE", Drop: 2})
	table.Row("apt/openssl/3.0.22-1", "pending", "", "")
	if err := table.Print(); err != nil {
		t.Fatal(err)
	}
	if want := "UPDATE                STATE\napt/openssl/3.0.22-1  pending\n"; out.String() != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}
