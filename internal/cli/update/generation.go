package update

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update"
	"github.com/mobileops/mobileops/internal/update/store"
)

// generationRecord is a generation in JSON: what is known of it, and how it
// stands.
type generationRecord struct {
	*store.Generation
	Current bool       `json:"current"`
	Staged  bool       `json:"staged"` // was never current
	OnTrial bool       `json:"on_trial"`
	Failed  bool       `json:"failed,omitempty"` // its trial, and was never more than on trial
	Pinned  *store.Pin `json:"pinned,omitempty"`
	Damaged string     `json:"damaged,omitempty"` // why it cannot be read
	GoBack  string     `json:"go_back,omitempty"` // the command that makes it current again
}

// shelf is what is in a store at a moment.
type shelf struct {
	engine  *update.Engine
	store   *store.Store
	list    []*store.Generation // ascending
	current int
	trial   *update.Pending
	failed  map[int]bool
}

// openShelf reads the store of the configured installation.
func openShelf(a *app.App, doing string) (*shelf, error) {
	e, _, err := newEngine(a, doing)
	if err != nil {
		return nil, err
	}
	v := &shelf{engine: e, store: e.Store()}
	if v.list, err = v.store.List(); err != nil {
		return nil, howToBegin(err)
	}
	if v.current, err = v.store.Current(); err != nil {
		return nil, err
	}
	if len(v.list) == 0 {
		return nil, howToBegin(store.ErrNone)
	}
	v.failed = e.Failed(context.Background(), v.list)
	v.trial, err = e.Pending()
	return v, err
}

// howToBegin tells whoever has no store how they get one.
func howToBegin(err error) error {
	if errors.Is(err, store.ErrNone) {
		return failure.Hint(err, "begin with one: mobileops update apply PKG")
	}
	return err
}

// find returns generation n; 0 is the current one.
func (v *shelf) find(n int) (*store.Generation, error) {
	if n == 0 {
		if n = v.current; n == 0 {
			return nil, failure.Hint(failure.New(failure.No, "no generation is current"), "make one live: mobileops update activate")
		}
	}
	for _, g := range v.list {
		if g.Number == n {
			return g, nil
		}
	}
	return nil, noGeneration(fmt.Errorf("%w: %d", store.ErrMissing, n))
}

// noGeneration says where the numbers of generations stand.
func noGeneration(err error) error {
	if errors.Is(err, store.ErrMissing) {
		return failure.Hint(err, "see which there are: mobileops update list")
	}
	return howToBegin(err)
}

func (v *shelf) record(g *store.Generation) generationRecord {
	return generationRecord{
		Generation: g, Current: g.Number == v.current, Staged: g.Staged, OnTrial: v.onTrial(g), Failed: v.fell(g),
		Pinned: g.Pinned, Damaged: g.Damaged, GoBack: v.goBack(g),
	}
}

func (v *shelf) onTrial(g *store.Generation) bool { return v.trial != nil && v.trial.To == g.Number }

// fell says that a generation failed its trial, and is not what anybody goes back to.
func (v *shelf) fell(g *store.Generation) bool { return v.failed[g.Number] && !v.onTrial(g) }

// goBack returns the command that makes a generation current again, "" for the
// current one and for what was never meant to be gone back to.
func (v *shelf) goBack(g *store.Generation) string {
	switch {
	case g.Number == v.current, g.Damaged != "", v.fell(g), g.Staged && g.Kind != store.Backup:
		return ""
	case g.Staged: // never live, so that rollback does not know it
		return fmt.Sprintf("mobileops update activate %d", g.Number)
	}
	return fmt.Sprintf("mobileops rollback --to %d", g.Number)
}

// standing says in a few words how a generation stands.
func (v *shelf) standing(g *store.Generation) string {
	switch {
	case v.onTrial(g):
		return "on trial until " + v.trial.Deadline.Local().Format(time.TimeOnly)
	case g.Number == v.current:
		return "current"
	case g.Damaged != "":
		return "damaged"
	case g.Staged && g.Kind == store.Updated:
		return "staged"
	case v.fell(g):
		return "failed"
	}
	return ""
}

// standingCell is standing for a table.
func (v *shelf) standingCell(a *app.App, g *store.Generation) ui.Cell {
	theme := a.Streams.Theme()
	c := ui.Cell{Text: v.standing(g)}
	switch {
	case v.onTrial(g):
		c.Style = theme.Warn
	case g.Damaged != "", v.fell(g):
		c.Style = theme.Bad
	case g.Number == v.current:
		c.Style = theme.Good
	}
	return c
}

// content says in a few words what a generation holds.
func content(g *store.Generation) string {
	switch {
	case g.Damaged != "":
		return ""
	case g.Origin != nil:
		return g.Origin.Name + " " + g.Origin.Version
	case g.Kind == store.Backup:
		return fmt.Sprintf("backup of %d", g.Base)
	case g.Kind == store.Adopted:
		return "as it was found"
	}
	return g.Kind
}

// remarks says what else somebody should know of a generation.
func remarks(g *store.Generation) string {
	var words []string
	if g.Damaged != "" {
		words = append(words, g.Damaged)
	}
	if n := g.Stats.Conflicts; n > 0 {
		words = append(words, ui.Plural(int64(n), "conflict", "conflicts"))
	}
	if p := g.Pinned; p != nil {
		text := "pinned"
		if p.Reason != "" {
			text += ": " + p.Reason
		}
		words = append(words, text)
	}
	return strings.Join(words, "; ")
}

// damaged is the outcome of having looked at generations of which some cannot be
// read.
func (v *shelf) damaged() error {
	for _, g := range v.list {
		if g.Damaged != "" {
			return failure.Silent(failure.Untrustworthy)
		}
	}
	return nil
}

// minute writes a moment of the local time, "" for none.
func minute(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04")
}

// stamp writes a moment with its zone.
func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05 MST") }

// printLabelled prints rows of a label and what there is to say, without those
// that have nothing.
func printLabelled(s *ui.Streams, width int, rows [][2]string) error {
	theme := s.Theme()
	for _, row := range rows {
		if row[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(s.Out, "%s %s\n", theme.Heading(fmt.Sprintf("%-*s", width, row[0])), ui.Escape(row[1])); err != nil {
			return err
		}
	}
	return nil
}

// say prints a sentence, folded where a terminal is narrower.
func say(s *ui.Streams, format string, args ...any) error {
	text := fmt.Sprintf(format, args...) + "\n"
	if s.OutTTY && s.Width > 0 {
		text = ui.Fold(text, s.Width, "")
	}
	_, err := fmt.Fprint(s.Out, text)
	return err
}

// silenced is the outcome of an error that was told already.
func silenced(err error) error { return failure.Silent(failure.KindOf(err)) }

// completeUpTo completes the first so many arguments with numbers of
// generations.
func completeUpTo(a *app.App, most int) func(context.Context, []string, string) []string {
	complete := completeNumbers(a)
	return func(ctx context.Context, args []string, typed string) []string {
		if len(args) >= most {
			return nil
		}
		return complete(ctx, args, typed)
	}
}

// printLines prints records, one a line, for --output jsonl.
func printLines[T any](s *ui.Streams, records []T) error {
	lines := s.Lines()
	for i := range records {
		if err := lines.Print(&records[i]); err != nil {
			return err
		}
	}
	return lines.Flush()
}
