package app

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/mattn/go-runewidth"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Help is what is said about a command, in the order in which help, man page
// and reference say it.
type Help struct {
	Path     string // "mobileops integrity check"
	Short    string // one sentence, no full stop
	Long     string // one sentence, and what else must be known
	Usage    string // "mobileops integrity check [--name NAME]"
	Aliases  []string
	Examples []Example
	Verbs    []Verb
	Flags    []Flag
	Globals  []Flag
	Statuses []Status
	Files    []File
}

// Example is a command line and what it does.
type Example struct{ Command, Comment string }

// Verb is a command below a noun.
type Verb struct{ Name, Short string }

// Flag is a flag as it is typed and what it does.
type Flag struct{ Typed, Usage string }

// File is a path that a command touches and what for.
type File struct{ Path, Use string }

// HelpOf gathers what is said about a command.
func (a *App) HelpOf(cmd *cobra.Command) Help {
	h := Help{Path: cmd.CommandPath(), Short: cmd.Short, Long: cmd.Short + ".", Usage: cmd.UseLine(), Aliases: cmd.Aliases}
	if s := a.SpecOf(cmd); s != nil {
		if s.Long != "" {
			h.Long = strings.TrimSpace(s.Long)
		}
		h.Examples = parseExamples(s.Example)
		h.Statuses = completeStatuses(s)
		for _, f := range s.Files {
			path, use, _ := strings.Cut(f, ": ")
			h.Files = append(h.Files, File{path, use})
		}
	} else {
		h.Usage = cmd.CommandPath() + " COMMAND"
	}
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			h.Verbs = append(h.Verbs, Verb{c.Name(), c.Short})
		}
	}
	globals := cmd.Root().PersistentFlags()
	add := func(to *[]Flag) func(*pflag.Flag) {
		return func(f *pflag.Flag) {
			if !f.Hidden && f.Name != "help" {
				*to = append(*to, describeFlag(f))
			}
		}
	}
	// A command may have a flag of its own in place of a global one, such as an
	// --output that knows more formats.
	local := cmd.LocalFlags()
	local.VisitAll(func(f *pflag.Flag) {
		if globals.Lookup(f.Name) != f {
			add(&h.Flags)(f)
		}
	})
	globals.VisitAll(func(f *pflag.Flag) {
		if own := local.Lookup(f.Name); own == nil || own == f {
			add(&h.Globals)(f)
		}
	})
	h.Globals = append(h.Globals, Flag{"-h, --help", "show this help"})
	return h
}

func parseExamples(s string) (list []Example) {
	for line := range strings.Lines(s) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if strings.HasPrefix(line, "# ") {
			list = append(list, Example{"", strings.TrimPrefix(line, "# ")})
			continue
		}
		command, comment, _ := strings.Cut(line, " # ")
		list = append(list, Example{strings.TrimSpace(command), strings.TrimSpace(comment)})
	}
	return list
}

func describeFlag(f *pflag.Flag) Flag {
	value, usage := pflag.UnquoteUsage(f)
	switch f.Value.Type() {
	case "choice":
		usage = f.Usage
		if value = strings.ToUpper(f.Name); strings.Contains(f.Usage, "`") {
			value, usage = pflag.UnquoteUsage(f)
		}
	case secretType, "string", "int", "int64", "uint", "float64", "duration", "stringArray", "stringSlice":
		if !strings.Contains(f.Usage, "`") {
			value = strings.ToUpper(value)
		}
	}
	typed := "    --" + f.Name
	if f.Shorthand != "" {
		typed = "-" + f.Shorthand + ", --" + f.Name
	}
	if value != "" {
		typed += " " + value
	}
	switch f.DefValue {
	case "", "0", "0s", "false", "[]":
	default:
		if f.Value.Type() != secretType {
			usage += " (default " + f.DefValue + ")"
		}
	}
	return Flag{typed, usage}
}

// helpWidth is the widest that prose in help is folded to: longer lines are
// hard to read however wide the terminal is.
const helpWidth = 96

// writeHelp prints the help of a command.
func writeHelp(w io.Writer, a *App, cmd *cobra.Command) {
	if a.globals.noColor {
		a.Streams.NoColor()
	}
	width := 80
	if a.Streams.Width > 0 {
		width = min(max(a.Streams.Width, 40), helpWidth)
	}
	theme := a.Streams.Theme()
	if w == a.Streams.Err {
		theme = a.Streams.ErrTheme()
	}
	var b strings.Builder
	a.HelpOf(cmd).write(&b, width, theme)
	io.WriteString(w, b.String())
}

func (h Help) write(b *strings.Builder, width int, theme ui.Theme) {
	b.WriteString(ui.Fold(h.Long, width, ""))
	heading := func(s string) { b.WriteString("\n" + theme.Heading(s) + "\n") }
	heading("Usage")
	fmt.Fprintf(b, "  %s\n", h.Usage)
	if len(h.Aliases) > 0 {
		fmt.Fprintf(b, "  also: %s\n", strings.Join(h.Aliases, ", "))
	}
	if len(h.Examples) > 0 {
		heading("Examples")
		writeExamples(b, h.Examples, width)
	}
	if len(h.Verbs) > 0 {
		heading("Commands")
		pairs := make([][2]string, len(h.Verbs))
		for i, v := range h.Verbs {
			pairs[i] = [2]string{v.Name, v.Short}
		}
		writePairs(b, pairs, width)
	}
	for _, part := range []struct {
		title string
		flags []Flag
	}{{"Flags", h.Flags}, {"Global flags", h.Globals}} {
		if len(part.flags) == 0 {
			continue
		}
		heading(part.title)
		pairs := make([][2]string, len(part.flags))
		for i, f := range part.flags {
			pairs[i] = [2]string{f.Typed, f.Usage}
		}
		writePairs(b, pairs, width)
	}
	if len(h.Statuses) > 0 {
		heading("Exit status")
		pairs := make([][2]string, len(h.Statuses))
		for i, s := range h.Statuses {
			pairs[i] = [2]string{strconv.Itoa(s.Code), s.Text}
		}
		writePairs(b, pairs, width)
	}
	if len(h.Files) > 0 {
		heading("Files")
		pairs := make([][2]string, len(h.Files))
		for i, f := range h.Files {
			pairs[i] = [2]string{f.Path, f.Use}
		}
		writePairs(b, pairs, width)
	}
	if len(h.Verbs) > 0 {
		fmt.Fprintf(b, "\nSee %s COMMAND --help for what a command does.\n", h.Path)
	}
}

// writeExamples aligns the comments behind the commands where that fits, and
// puts them above the commands where it does not.
func writeExamples(b *strings.Builder, list []Example, width int) {
	column, aligned := 0, true
	for _, e := range list {
		if e.Comment != "" {
			column = max(column, runewidth.StringWidth(e.Command))
		}
	}
	for _, e := range list {
		if e.Command != "" && e.Comment != "" && 2+column+3+runewidth.StringWidth(e.Comment) > width {
			aligned = false
		}
	}
	for _, e := range list {
		switch {
		case e.Command == "":
			fmt.Fprintf(b, "  # %s\n", e.Comment)
		case e.Comment == "":
			fmt.Fprintf(b, "  %s\n", e.Command)
		case aligned:
			fmt.Fprintf(b, "  %s  # %s\n", runewidth.FillRight(e.Command, column), e.Comment)
		default:
			fmt.Fprintf(b, "  # %s\n  %s\n", e.Comment, e.Command)
		}
	}
}

// pairColumn is the widest that the left column of a list may become; longer
// entries get a line of their own.
const pairColumn = 34

func writePairs(b *strings.Builder, pairs [][2]string, width int) {
	column := 0
	for _, p := range pairs {
		if w := runewidth.StringWidth(p[0]); w <= pairColumn {
			column = max(column, w)
		}
	}
	indent := strings.Repeat(" ", 2+column+2)
	for _, p := range pairs {
		text := ui.Fold(p[1], max(width, len(indent)+24), indent)
		if runewidth.StringWidth(p[0]) > column {
			fmt.Fprintf(b, "  %s\n%s", p[0], text)
			continue
		}
		fmt.Fprintf(b, "  %s  %s", runewidth.FillRight(p[0], column), strings.TrimPrefix(text, indent))
	}
}
