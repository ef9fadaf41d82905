package compat

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newInstall(a *app.App) *cobra.Command {
	var opts installOptions
	cmd := a.Command(app.Spec{
		Use:   "install DIR [--force]",
		Short: "Make links by which mobileops answers to the names of the old scripts",
		Long: `Make links by which mobileops answers to the names of the old scripts.

Put them where the scripts were, and runbooks and cron jobs go on working. A
file of such a name is never overwritten: with --force it is kept beside the link
as NAME` + keptSuffix + `. Either all links are made or none.`,
		Example: `
sudo mobileops compat install /opt/mobileops/bin           # beside the other tools
sudo mobileops compat install /opt/mobileops/bin --force   # where the scripts still are
17 3 * * * /opt/mobileops/bin/toolbox_integrity_check.sh check --quiet
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "every link is there"},
			{Code: 2, Text: "there is no such directory"},
			{Code: 4, Text: "the directory cannot be written by this user"},
			{Code: 8, Text: "other files have those names; --force keeps them aside"},
		},
		Files:    []string{"DIR: the ten links"},
		Audited:  true,
		Run:      func(_ context.Context, args []string) error { return runInstall(a, opts, args[0]) },
		Complete: func(context.Context, []string, string) []string { return app.Dirs() },
	})
	opts.addFlags(cmd.Flags())
	return cmd
}

type installOptions struct{ force bool }

func (o *installOptions) addFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.force, "force", false, "keep files of those names aside and put the links in their place")
}

// keptSuffix is added to the name of a script that a link replaces.
const keptSuffix = ".before-mobileops"

// installReport is the document of mobileops compat install --output json.
type installReport struct {
	Schema string      `json:"schema"`
	Dir    string      `json:"dir"`
	Target string      `json:"target"` // what the links lead to
	Links  []madeLinks `json:"links"`
}

type madeLinks struct {
	Name string `json:"name"`
	Done string `json:"done"`           // "made", "replaced" or "was there"
	Kept string `json:"kept,omitempty"` // where the file of that name is now
}

func runInstall(a *app.App, opts installOptions, dir string) error {
	target, err := os.Executable()
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failure.Hint(failure.Errorf(failure.Usage, "no directory %s", dir), "make it: mkdir -p "+dir)
	case err != nil:
		return failure.Wrap(kindOf(err), err)
	}
	defer root.Close()
	report := installReport{Schema: "mobileops.compat.install/v1", Dir: dir, Target: target}
	if report.Links, err = plan(root, target, opts.force); err != nil {
		return err
	}
	if err := link(root, target, report.Links); err != nil {
		return failure.Wrap(kindOf(err), fmt.Errorf("no link was made: %w", err))
	}
	a.SetResult("%d links in %s", len(report.Links), dir)
	return printInstall(a, report)
}

func kindOf(err error) failure.Kind {
	if errors.Is(err, fs.ErrPermission) {
		return failure.NotAllowed
	}
	return failure.Failed
}

// plan looks at every name before anything is changed.
func plan(root *os.Root, target string, force bool) (links []madeLinks, err error) {
	var taken []string
	for _, s := range Scripts() {
		l := madeLinks{Name: s.Name, Done: "made"}
		info, err := root.Lstat(s.Name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, failure.Wrap(kindOf(err), err)
		case info.Mode().Type() == fs.ModeSymlink && leadsTo(root, s.Name, target):
			l.Done = "was there"
		default:
			taken = append(taken, s.Name)
			l.Done, l.Kept = "replaced", s.Name+keptSuffix
			if _, err := root.Lstat(l.Kept); err == nil {
				return nil, failure.Hint(failure.Errorf(failure.Busy, "%s and %s both exist", s.Name, l.Kept), "move one of them away")
			}
		}
		links = append(links, l)
	}
	if len(taken) > 0 && !force {
		return nil, failure.Hint(failure.Errorf(failure.Busy, "other files have these names: %s", strings.Join(taken, ", ")), "keep them aside: --force")
	}
	return links, nil
}

func leadsTo(root *os.Root, name, target string) bool {
	got, err := root.Readlink(name)
	return err == nil && got == target
}

// link makes the links, and takes back those it made when one cannot be.
func link(root *os.Root, target string, links []madeLinks) (err error) {
	var undo []func()
	defer func() {
		if err != nil {
			for i := len(undo) - 1; i >= 0; i-- {
				undo[i]()
			}
		}
	}()
	for _, l := range links {
		if l.Done == "was there" {
			continue
		}
		if l.Kept != "" {
			if err = root.Rename(l.Name, l.Kept); err != nil {
				return err
			}
			undo = append(undo, func() { root.Rename(l.Kept, l.Name) })
		}
		if err = root.Symlink(target, l.Name); err != nil {
			return err
		}
		undo = append(undo, func() { root.Remove(l.Name) })
	}
	return nil
}

func printInstall(a *app.App, report installReport) error {
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(report)
	}
	if a.Streams.Quiet {
		return nil
	}
	table := a.Streams.NewTable(ui.Column{Title: "LINK"}, ui.Column{Title: "DONE"}, ui.Column{Title: "THE FILE IS NOW", Min: 12})
	for _, l := range report.Links {
		table.Row(l.Name, l.Done, l.Kept)
	}
	if err := table.Print(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.Streams.Out, "in %s, to %s\n", ui.Escape(report.Dir), ui.Escape(report.Target))
	return err
}
