package update

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update"
	"github.com/mobileops/mobileops/internal/update/store"
	"github.com/mobileops/mobileops/pkg/filehash"
	"github.com/spf13/cobra"
)

type verifyOptions struct{ all, verbose bool }

func newVerify(a *app.App) *cobra.Command {
	var opts verifyOptions
	cmd := a.Command(app.Spec{
		Use:   "verify [N | --all] [--verbose]",
		Short: "Read everything again and report what is not as it was delivered",
		Long: `Read everything again and report what is not as it was delivered: files of packages
that changed, in content, permissions or owner, or are gone, and content in the
store that is no longer what its name says. Without N it is the current
generation; the content of the store is read in any case.

A file that is replaced differs in this generation alone. A file that is written
to in place is the content in the store as well, and with it every generation
that has the file: that is said to be damaged. Configuration that was edited, and
files of no package, are as they may be; --verbose lists them.

What was found about the current generation and the content is kept, see mobileops
finding list --source update, until a later verify finds it no more.`,
		Example: `
mobileops update verify
mobileops update verify --all --verbose
45 2 * * * root mobileops update verify --quiet       # cron: mails only what differs
mobileops update verify 5 && mobileops rollback --to 5  # runbook: is what is gone back to sound?
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "all is as it was delivered, but for what people may edit"},
			{Code: 1, Text: "files of packages differ; or there is no such generation"},
			{Code: 4, Text: "you may not read the content of the store: run it as root, or as who owns the installation"},
			{Code: 5, Text: "content in the store is damaged, or the installation is no longer a link to the store"},
			{Code: 6, Text: "something could not be read, whatever else was found"},
			{Code: 7, Text: "no update was applied here yet"},
			{Code: 130, Text: "interrupted: nothing was recorded"},
		},
		Files:    []string{targetFile, storeFiles, "state.db in the state directory: the findings"},
		Audited:  true,
		Complete: completeUpTo(a, 1),
		Run:      func(ctx context.Context, args []string) error { return runVerify(ctx, a, &opts, args) },
	})
	cmd.Flags().BoolVar(&opts.all, "all", false, "all generations")
	cmd.Flags().BoolVar(&opts.verbose, "verbose", false, "also list configuration that was edited, and files of no package")
	return cmd
}

// differenceRecord is a difference in JSON.
type differenceRecord struct {
	store.Difference
	PathB64 []byte `json:"path_b64,omitempty"` // when the path is not valid UTF-8
	Serious bool   `json:"serious"`            // nobody can have meant it
}

func differenceRecords(list []store.Difference) []differenceRecord {
	out := make([]differenceRecord, 0, len(list))
	for _, d := range list {
		out = append(out, differenceRecord{d, lossless(d.Path), d.Serious()})
	}
	return out
}

// verification is the document of update verify.
type verification struct {
	Schema      string             `json:"schema"`
	Target      string             `json:"target"`
	Store       string             `json:"store"`
	Clean       bool               `json:"clean"`
	Replaced    bool               `json:"replaced"` // the installation is not the link to its store
	Generations []int              `json:"generations"`
	Files       int                `json:"files"`
	Bytes       int64              `json:"bytes"`
	Blobs       int                `json:"blobs"`
	Differences []differenceRecord `json:"differences"` // without a generation: the path is in the store
}

func runVerify(ctx context.Context, a *app.App, o *verifyOptions, args []string) error {
	number := 0
	if len(args) > 0 {
		if o.all {
			return app.UsageError("--all and the number of a generation exclude each other")
		}
		var err error
		if number, err = numberArg(args[0]); err != nil {
			return err
		}
	}
	shelf, err := openShelf(a, "update verify")
	if shelf == nil {
		return err
	}
	numbers, err := shelf.chosen(number, o.all)
	if err != nil {
		return err
	}
	var counters filehash.Counters
	bar := a.Streams.Progress("reading files", func() ui.Counters {
		return ui.Counters{Files: counters.Files.Load(), Bytes: counters.Bytes.Load()}
	})
	v, err := shelf.engine.Verify(ctx, numbers, &counters)
	bar.Stop()
	if v == nil {
		return noGeneration(err)
	}
	serious := 0
	for i := range v.Differences {
		if d := &v.Differences[i]; d.Serious() || d.Kind == store.Unread {
			serious++
		}
	}
	a.SetResult("generations %s: %d files and %d blobs read, %d differ", numbered(numbers), v.Files, v.Blobs, serious)
	if perr := printVerification(a, o, shelf, v); perr != nil {
		return perr
	}
	if err = errors.Join(v.Replaced, err); err != nil {
		return failure.Wrap(failure.Worse(failure.KindOf(err), v.Kind()), err)
	}
	return failure.Silent(v.Kind())
}

// chosen returns the numbers of the generations that a command is about: all, one,
// or with 0 the current one.
func (v *shelf) chosen(number int, all bool) (numbers []int, err error) {
	if all {
		for _, g := range v.list {
			numbers = append(numbers, g.Number)
		}
		return numbers, nil
	}
	g, err := v.find(number)
	if err != nil {
		return nil, err
	}
	return []int{g.Number}, nil
}

// numbered lists numbers of generations.
func numbered(numbers []int) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(numbers), " ", ", "), "[]")
}

func printVerification(a *app.App, o *verifyOptions, shelf *shelf, v *update.Verified) error {
	switch a.Streams.Format {
	case ui.JSON:
		return a.Streams.Document(verification{
			Schema: "mobileops.update.verify/v1", Target: shelf.store.Target(), Store: shelf.store.Dir(), Clean: v.Kind() == failure.None,
			Replaced: v.Replaced != nil, Generations: v.Generations, Files: v.Files, Bytes: v.Bytes, Blobs: v.Blobs, Differences: differenceRecords(v.Differences),
		})
	case ui.JSONL:
		return printLines(a.Streams, differenceRecords(v.Differences))
	}
	table := a.Streams.NewTable(ui.Column{Title: "CHANGE"}, ui.Column{Title: "PATH", Min: 20, KeepEnd: true}, ui.Column{Title: "WHAT", Min: 12, Drop: 1})
	var n tally
	for i := range v.Differences {
		d := &v.Differences[i]
		if style := n.add(a.Streams.Theme(), d, shelf.current); style != nil || o.verbose {
			table.Row(ui.Cell{Text: d.Kind, Style: style}, shelf.place(d), d.What)
		}
	}
	if err := table.Print(); err != nil {
		return err
	}
	if a.Streams.Quiet && v.Kind() == failure.None {
		return nil
	}
	if table.Len() > 0 {
		if _, err := fmt.Fprintln(a.Streams.Out); err != nil {
			return err
		}
	}
	return n.print(a, o, v)
}

// tally counts differences by what is to be done about them.
type tally struct {
	described int64 // descriptions of generations that are damaged
	content   int64 // damaged content in the store
	current   int64 // files of the current generation
	others    int64 // files of other generations
	unread    int64
	allowed   int64 // what may change
}

// add counts a difference, and returns how to show its kind: nil when it may be.
func (n *tally) add(theme ui.Theme, d *store.Difference, current int) func(string) string {
	switch {
	case d.Kind == store.Unread:
		n.unread++
		return theme.Warn
	case d.Kind == store.BlobFlip && strings.HasPrefix(d.Path, "generations/"):
		n.described++
	case d.Kind == store.BlobFlip:
		n.content++
	case !d.Serious():
		n.allowed++
		return nil
	case d.Generation == current:
		n.current++
	default:
		n.others++
	}
	return theme.Bad
}

// place is where a difference is.
func (v *shelf) place(d *store.Difference) string {
	switch d.Generation {
	case 0:
		return filepath.Join(v.store.Dir(), d.Path)
	case v.current:
		return filepath.Join(v.store.Target(), d.Path)
	}
	return filepath.Join(v.store.Tree(d.Generation), d.Path)
}

// print says what it comes to, and what to do about it.
func (n *tally) print(a *app.App, o *verifyOptions, v *update.Verified) error {
	theme := a.Streams.Theme()
	var words []string
	for _, c := range []struct {
		n    int64
		what string
	}{{n.described + n.content, "damaged in the store"}, {n.current + n.others, "not as delivered"}, {n.unread, "unreadable"}} {
		if c.n > 0 {
			words = append(words, ui.Count(c.n)+" "+c.what)
		}
	}
	verdict := theme.Good("As delivered")
	if len(words) > 0 {
		verdict = theme.Bad(strings.Join(words, ", "))
	} else if v.Replaced != nil {
		verdict = theme.Bad("As delivered, and not in use")
	}
	generations := "generation"
	if len(v.Generations) > 1 {
		generations = "generations"
	}
	text := fmt.Sprintf("%s: %s %s; %s and %s of the store were read, %s.", verdict, generations, numbered(v.Generations),
		ui.Plural(int64(v.Files), "file", "files"), ui.Count(int64(v.Blobs)), ui.Bytes(v.Bytes))
	if n.allowed > 0 && !o.verbose {
		text += fmt.Sprintf(" %s of configuration or of no package changed here, as they may (--verbose lists them).", ui.Plural(n.allowed, "file", "files"))
	}
	advice := []string{text}
	if n.described > 0 {
		advice = append(advice, "A generation whose description is damaged cannot be used: leave it with mobileops rollback --to N, and remove it: mobileops update prune.")
	}
	switch {
	case n.content > 0:
		advice = append(advice, "Apply the package again, which brings its content anew: mobileops update apply PKG. Going back does not help where the generation before has the same file.")
	case n.current > 0:
		advice = append(advice, "Apply the package again, which puts its files right: mobileops update apply PKG; or go back: mobileops rollback.")
	}
	if n.others > 0 {
		advice = append(advice, "Files of generations that are not current differ: they would be so after going back to them.")
	}
	for _, line := range advice {
		if err := say(a.Streams, "%s", line); err != nil {
			return err
		}
	}
	return nil
}
