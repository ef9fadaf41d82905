package ui

import (
	"strings"
	"testing"
)

func TestFeedFitsTheTerminal(t *testing.T) {
	for width, want := range map[int]string{
		0:  "WHEN   PATH                  WHO\nnow    /a\nlater  /a/very/long/path/that/is/longer  somebody with a long name\n",
		40: "WHEN   PATH                WHO\nnow    /a\nlater  …th/that/is/longer  somebody wit…\n",
		24: "WHEN   PATH\nnow    /a\nlater  …h/that/is/longer\n",
	} {
		s, out, _ := Test(nil)
		s.OutTTY, s.Width = width > 0, width
		f := s.NewFeed([]int{5, 20, 10}, Column{Title: "WHEN"}, Column{Title: "PATH", Min: 12, KeepEnd: true}, Column{Title: "WHO", Min: 8, Drop: 1})
		for _, row := range [][]any{{"now", "/a", ""}, {"later", "/a/very/long/path/that/is/longer", "somebody with a long name"}} {
			if err := f.Row(row...); err != nil {
				t.Fatal(err)
			}
		}
		if got := out.String(); got != want {
			t.Errorf("width %d:\n%s\nwant\n%s", width, got, want)
		}
		for line := range strings.Lines(out.String()) {
			if n := columns(strings.TrimSuffix(line, "\n")); width > 0 && n > width {
				t.Errorf("width %d: a line of %d", width, n)
			}
		}
	}
}
