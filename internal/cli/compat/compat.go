// Package compat lets mobileops be called by the names of the shell scripts
// that it replaces, as busybox is: what follows is translated into the command
// that the call has become. It holds the table of those calls (see Scripts)
// and the commands of mobileops compat.
//
// A call whose command does not exist yet ends with status 7 and says what is
// missing. It never looks successful: somebody's runbook depends on it.
package compat

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/spelling"
	"github.com/spf13/cobra"
)

// New returns mobileops compat.
func New(a *app.App) *cobra.Command {
	return a.Group("compat", "Keep the names of the old scripts working",
		newInstall(a), newList(a),
	)
}

// Translate turns the arguments of a script into those of mobileops. When
// there is nothing to run, because help was asked for or the call is wrong or
// pending, it says so, and run is false.
func Translate(a *app.App, root *cobra.Command, s Script, args []string) (translated []string, run bool, err error) {
	if len(args) == 0 {
		writeUsage(a.Streams.Err, root, s)
		return nil, false, failure.Silent(failure.Usage)
	}
	if slices.Contains([]string{"help", "--help", "-h"}, args[0]) {
		writeUsage(a.Streams.Out, root, s)
		return nil, false, nil
	}
	var olds []string
	for _, c := range s.Calls {
		if c.Old == args[0] {
			if !Exists(root, c) {
				return nil, false, failure.Hint(
					failure.Errorf(failure.NotReady, "%s: this mobileops has no command %q yet", args[0], "mobileops "+c.New),
					"nothing was done; what there is: mobileops --help")
			}
			return slices.Concat(strings.Fields(c.New), c.With, args[1:]), true, nil
		}
		olds = append(olds, c.Old)
	}
	hint := "see: " + s.Name + " --help"
	if near := spelling.Nearest(args[0], olds); near != "" {
		hint = fmt.Sprintf("did you mean %q? %s", near, hint)
	}
	return nil, false, failure.Hint(failure.Errorf(failure.Usage, "unknown command %q", args[0]), hint)
}

// Exists reports whether the command that a call has become is there.
func Exists(root *cobra.Command, c Call) bool {
	at := root
	for _, word := range strings.Fields(c.New) {
		i := slices.IndexFunc(at.Commands(), func(sub *cobra.Command) bool { return sub.Name() == word })
		if i < 0 {
			return false
		}
		at = at.Commands()[i]
	}
	return at.Runnable() && at.ValidArgsFunction != nil // a noun without verb is no command
}

// writeUsage prints how the script is called, and what each call is now.
func writeUsage(w io.Writer, root *cobra.Command, s Script) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s.\n\nThis is mobileops, called by the name of the script that it replaces.\n\nUsage\n  %s COMMAND\n\nCommands\n", s.Does, s.Name)
	width := 0
	for _, c := range s.Calls {
		if n := len(c.Old) + 1 + len(c.Args); n <= 28 {
			width = max(width, n)
		}
	}
	for _, c := range s.Calls {
		does := c.Does + "; now: mobileops " + strings.TrimSpace(c.New+" "+strings.Join(c.With, " "))
		if !Exists(root, c) {
			does = c.Does + "; not in this version yet (status 7)"
		}
		old := strings.TrimSpace(c.Old + " " + c.Args)
		if len(old) > width {
			fmt.Fprintf(&b, "  %s\n  %-*s  %s\n", old, width, "", does)
			continue
		}
		fmt.Fprintf(&b, "  %-*s  %s\n", width, old, does)
	}
	b.WriteString("\nSee mobileops --help for all there is.\n")
	io.WriteString(w, b.String())
}

// Table returns the table of all calls in Markdown, for the migration guide.
func Table() string {
	var b strings.Builder
	for i, s := range Scripts() {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "### %s\n\n%s.\n\n| before | now | |\n|---|---|---|\n", s.Name, s.Does)
		for _, c := range s.Calls {
			does := c.Does
			if c.Pending {
				does += " (not yet: status 7)"
			}
			fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", c.OldCall(s), c.NewCall(), does)
		}
	}
	return b.String()
}
