package cli

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/document"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
)

// What was joined stays a line each when somebody says where it was, or gives a
// hint.
func TestReportOfProblemsThatWereWrapped(t *testing.T) {
	doc := &document.Error{File: "x.yaml"}
	doc.Add(document.Place{Line: 1}, "url is missing")
	doc.Add(document.Place{Line: 2}, "token is too long")
	problems := doc.Result(failure.Usage)
	for _, c := range []struct {
		err  error
		want []string
	}{
		{problems, []string{"x.yaml:1: url is missing", "x.yaml:2: token is too long"}},
		{failure.Hint(problems, "see --example"), []string{"x.yaml:1: url is missing", "x.yaml:2: token is too long (see --example)"}},
		{fmt.Errorf("plugin a: %w", failure.Hint(problems, "see --example")),
			[]string{"plugin a: x.yaml:1: url is missing", "plugin a: x.yaml:2: token is too long (see --example)"}},
		{errors.Join(errors.New("first"), failure.Hint(problems, "h")), []string{"first", "x.yaml:1: url is missing", "x.yaml:2: token is too long (h)"}},
		{fmt.Errorf("%w, and then %w", errors.New("a"), errors.New("b")), []string{"a, and then b"}},
		{fmt.Errorf("of a file: %w", errors.New("two\nlines")), []string{`of a file: two\nlines`}},
	} {
		var out strings.Builder
		report(&ui.Streams{Out: io.Discard, Err: &out}, "plugin start", c.err)
		want := ""
		for _, line := range c.want {
			want += "mobileops: plugin start: " + line + "\n"
		}
		if out.String() != want {
			t.Errorf("%q:\n%swant\n%s", c.err, out.String(), want)
		}
	}
}
