package integrity

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/facts"
	"github.com/mobileops/mobileops/internal/ui"
)

// askAll walks through a report and returns what was accepted.
func askAll(ctx context.Context, a *app.App, e *engine.Engine, opts engine.AcceptOptions) (engine.AcceptOptions, error) {
	if !a.Streams.InTTY || !a.Streams.ErrTTY {
		return opts, failure.Hint(failure.Errorf(failure.Usage, "--interactive needs a terminal to ask at"), "name a PATH, --package, --class or --all")
	}
	r, entry, err := e.LoadReport(ctx, opts.Name, opts.Report)
	if err != nil {
		return opts, err
	}
	list, err := opts.Choose(r.Changes)
	if err != nil {
		return opts, err
	}
	drift, err := opts.ChooseDrift(r.Drift)
	if err != nil {
		return opts, err
	}
	texts, err := e.Texts(ctx, opts.Name)
	if err != nil {
		return opts, err
	}
	defer texts.Close()
	// What is answered is about this report, whatever is found meanwhile.
	opts = engine.AcceptOptions{Name: opts.Name, Report: entry.ID, Exactly: true, Worst: opts.Worst, KeepContent: opts.KeepContent}
	forPackage := map[string]bool{} // answers that stand for all of a package's update
	for i := range list {
		c := &list[i]
		yes, answered := forPackage[updateOf(c)]
		if !answered {
			showChange(a, c, texts.Diff(ctx, c), fmt.Sprintf("%d of %d", i+1, len(list)+len(drift)))
			var done bool
			if yes, done, err = askOne(ctx, a, updateOf(c), forPackage); err != nil || done {
				return opts, err
			}
		}
		if yes {
			opts.Paths = append(opts.Paths, c.Path)
		}
	}
	for i := range drift {
		c := &drift[i]
		showDrift(a, c, fmt.Sprintf("%d of %d", len(list)+i+1, len(list)+len(drift)))
		yes, done, err := askOne(ctx, a, "", nil)
		if err != nil || done {
			return opts, err
		}
		if yes {
			opts.Drift = append(opts.Drift, c.ID())
		}
	}
	return opts, nil
}

// updateOf names the package whose update a change is part of, empty for none.
func updateOf(c *engine.Change) string {
	if c.Class != engine.PackageUpdate {
		return ""
	}
	return c.Package
}

// askOne asks about one change, which may be part of a package's update.
func askOne(ctx context.Context, a *app.App, update string, forPackage map[string]bool) (yes, done bool, err error) {
	question := "Accept it? [y]es, [n]o, [q]uit and accept what was answered yes"
	if update != "" {
		question = "Accept it? [y]es, [n]o, [p]ackage: yes to all of this update, [o]mit all of this update, [q]uit and accept what was answered yes"
	}
	for {
		answer, err := a.Streams.Ask(ctx, question, "--all")
		if err != nil {
			return false, false, err
		}
		switch strings.ToLower(answer) {
		case "y", "yes":
			return true, false, nil
		case "n", "no":
			return false, false, nil
		case "q", "quit":
			return false, true, nil
		case "p", "o":
			if update != "" {
				forPackage[update] = strings.EqualFold(answer, "p")
				return forPackage[update], false, nil
			}
		case "":
			// Enter alone decides nothing; the end of the input ends it.
			if ctx.Err() != nil || a.Streams.InputEnded() {
				return false, true, nil
			}
		}
	}
}

// showChange shows one change in full.
func showChange(a *app.App, c *engine.Change, diff []byte, which string) {
	theme := a.Streams.Theme()
	out := a.Streams.Out
	fmt.Fprintf(out, "\n%s  %s %s  %s\n", theme.Faint(which), theme.Severity(int(c.Severity), c.Severity.String()), c.Kind, theme.Heading(ui.Escape(c.Path)))
	if c.From != nil {
		fmt.Fprintf(out, "  from %s\n", ui.Escape(c.From))
	}
	if c.Class != "" {
		fmt.Fprintf(out, "  %s: %s\n", c.Class, ui.Escape(c.Reason))
	}
	if c.Package != "" {
		fmt.Fprintf(out, "  package %s\n", ui.Escape(c.Package))
	}
	if c.Kind == engine.Added {
		for _, at := range c.Found() {
			fmt.Fprintf(out, "  %s: %s\n", at.Name, ui.Escape(at.New))
		}
	}
	for _, at := range c.Attributes {
		if at.Name == "content" && diff != nil {
			continue
		}
		fmt.Fprintf(out, "  %s: %s to %s\n", at.Name, ui.Escape(at.Old), ui.Escape(at.New))
	}
	for line := range strings.Lines(string(diff)) {
		line = ui.Escape(strings.TrimSuffix(line, "\n"))
		switch {
		case strings.HasPrefix(line, "diff "):
			continue
		case strings.HasPrefix(line, "+"):
			line = theme.Good(line)
		case strings.HasPrefix(line, "-"):
			line = theme.Bad(line)
		}
		fmt.Fprintf(out, "  %s\n", line)
	}
}

// showDrift shows one change of a fact in full.
func showDrift(a *app.App, c *facts.Change, which string) {
	theme := a.Streams.Theme()
	out := a.Streams.Out
	fmt.Fprintf(out, "\n%s  %s %s  %s\n", theme.Faint(which), theme.Severity(int(c.Severity), c.Severity.String()), c.Kind, theme.Heading(ui.Escape(c.ID())))
	if c.Kind == facts.Changed {
		for _, at := range c.Attributes {
			fmt.Fprintf(out, "  %s: %s to %s\n", at.Name, ui.Escape(at.Old), ui.Escape(at.New))
		}
		return
	}
	for _, name := range slices.Sorted(maps.Keys(c.Fact().Attributes)) {
		fmt.Fprintf(out, "  %s: %s\n", name, ui.Escape(c.Fact().Attributes[name]))
	}
}
