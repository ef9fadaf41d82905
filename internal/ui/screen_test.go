package ui

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// terminal is enough of one to show what a Screen writes.
type terminal struct {
	rows [][]rune
	row  int
	col  int
	wrap bool
	w    int
}

func (t *terminal) put(s string) {
	for s != "" {
		if strings.HasPrefix(s, "\x1b[") {
			end := strings.IndexFunc(s[2:], func(r rune) bool { return r >= '@' && r <= '~' }) + 2
			t.control(s[2:end], s[end])
			s = s[end+1:]
			continue
		}
		r := []rune(s)[0]
		s = s[len(string(r)):]
		switch r {
		case '\r':
			t.col = 0
		case '\n':
			t.row, t.col = t.row+1, 0 // as the terminal driver does it
		default:
			t.line()
			for len(t.rows[t.row]) <= t.col {
				t.rows[t.row] = append(t.rows[t.row], ' ')
			}
			t.rows[t.row][t.col] = r
			if t.col++; t.col >= t.w {
				if t.wrap {
					t.row, t.col = t.row+1, 0
				} else {
					t.col = t.w - 1
				}
			}
		}
	}
}

func (t *terminal) line() {
	for len(t.rows) <= t.row {
		t.rows = append(t.rows, nil)
	}
}

func (t *terminal) control(arg string, final byte) {
	t.line()
	n := 1
	fmt.Sscanf(arg, "%d", &n)
	switch final {
	case 'A':
		t.row = max(0, t.row-n)
	case 'K':
		t.rows[t.row] = t.rows[t.row][:min(t.col, len(t.rows[t.row]))]
	case 'J':
		if arg == "2" {
			t.rows = nil
			return
		}
		t.rows = t.rows[:t.row+1]
		t.rows[t.row] = t.rows[t.row][:min(t.col, len(t.rows[t.row]))]
	case 'H':
		t.row, t.col = 0, 0
	case 'h', 'l':
		t.wrap = final == 'h'
	}
}

func (t *terminal) String() string {
	var lines []string
	for _, r := range t.rows {
		lines = append(lines, strings.TrimRight(string(r), " "))
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}

func TestScreenDrawsInPlace(t *testing.T) {
	var out bytes.Buffer
	s := &Streams{Out: &out, OutTTY: true, Width: 20, Format: Text}
	sc := s.Screen()
	term := &terminal{w: 20, wrap: true}
	term.put("$ before\n")
	show := func(text string) {
		t.Helper()
		if err := sc.Draw(func(s *Streams, lines int) error {
			if lines != 23 || s.Width != 20 {
				t.Errorf("%d lines of %d columns", lines, s.Width)
			}
			fmt.Fprint(s.Out, text)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		term.put(out.String())
		out.Reset()
	}
	show("one is long\ntwo\nthree\n")
	show("1\n2\n")
	if got := term.String(); got != "$ before\n1\n2" {
		t.Errorf("%q", got)
	}
	show("a\nb\nc\nand one that is wider than the terminal\n")
	show("a\nb\nc\nd\n")
	if got := term.String(); got != "$ before\na\nb\nc\nd" {
		t.Errorf("%q", got)
	}
	show("as wide as the window\n")
	show("as wide as a window!\n")
	if got := term.String(); got != "$ before\nas wide as a window!" {
		t.Errorf("%q", got)
	}
	show("a\nb\nc\nd\n")
	show(strings.Repeat("x\n", 50))
	if got := term.String(); got != "$ before\n"+strings.TrimRight(strings.Repeat("x\n", 23), "\n") {
		t.Errorf("%q", got)
	}
	if !term.wrap || term.col != 0 {
		t.Errorf("the terminal is left as it should not be: %+v", term)
	}
	s.Width = 19 // resized
	if err := sc.Draw(func(s *Streams, _ int) error { fmt.Fprintln(s.Out, "small"); return nil }); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "\x1b[H\x1b[2J") {
		t.Errorf("%q", out.String())
	}
}

func TestNoScreenWithoutTerminal(t *testing.T) {
	plain, _, _ := Test(nil)
	if plain.Screen() != nil || (&Streams{OutTTY: true, Dumb: true}).Screen() != nil {
		t.Error("a screen where nothing can be drawn in place")
	}
}
