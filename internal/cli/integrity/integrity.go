// Package integrity holds the commands of mobileops integrity: what is
// watched, what it was, and what has changed since.
package integrity

import (
	"context"
	"time"

	"github.com/mobileops/mobileops/internal/buildinfo"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/pkg/filehash"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// New returns mobileops integrity.
func New(a *app.App) *cobra.Command {
	return a.Group("integrity", "Know when files of this host change",
		newBaseline(a), newCheck(a), newVerify(a), newAccept(a), newPolicy(a),
		newHistory(a), newDiff(a), newKey(a), newAnchor(a),
		newSchedule(a), newStatus(a), newReport(a), newWatch(a),
		newNetwork(a), newContainers(a), newBinaries(a),
	)
}

// Lines about files in the help of several verbs.
const (
	stateFile    = "state.db in the state directory: catalogue of baselines, findings, audit record"
	baselineFile = "integrity/ID.baseline in the state directory: the baselines"
)

// newEngine returns the engine on the configured state directory.
func newEngine(a *app.App) (*engine.Engine, *config.Config, error) {
	c, err := a.Config()
	if err != nil {
		return nil, nil, err
	}
	store, err := a.State()
	if err != nil {
		return nil, nil, err
	}
	anchors, err := configuredAnchors(c)
	if err != nil {
		return nil, nil, err
	}
	return &engine.Engine{
		Store: store, Tool: "mobileops " + buildinfo.Get().Version, Keep: c.Integrity.Retained,
		By: engine.By{Actor: a.Actor()}, Keys: engine.Keys{PublicKey: c.Integrity.PublicKey}, Anchors: anchors,
		Collectors: collectors(c),
	}, c, nil
}

// scanOptions are the flags of every verb that reads files. They override the
// configuration, so they are bound to its keys when the verb runs.
type scanOptions struct {
	flags map[string]*pflag.Flag
}

func (o *scanOptions) addFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.String("jobs", "", "read with `N` workers (default: chosen by storage)")
	fs.String("io-limit", "", "read at most `RATE`, such as 50MB/s")
	fs.Bool("idle", false, "only use processor and disk when nobody else does")
	app.CompleteValues(cmd, "io-limit", "10MB/s", "50MB/s", "200MB/s")
	app.CompleteValues(cmd, "jobs", "1", "2", "4", "8", "32")
	o.flags = map[string]*pflag.Flag{
		"integrity.jobs": fs.Lookup("jobs"), "integrity.io_limit": fs.Lookup("io-limit"), "integrity.idle": fs.Lookup("idle"),
	}
}

// bind makes the flags given override the configuration.
func (o *scanOptions) bind(a *app.App) {
	for key, f := range o.flags {
		a.BindFlag(key, f)
	}
}

// scan returns how to read the tree.
func scan(c *config.Config, tree string) engine.Scan {
	return engine.Scan{
		Tree: tree, Jobs: c.Integrity.Jobs, IOLimit: c.Integrity.IOLimit, Idle: c.Integrity.Idle,
		Counters: new(filehash.Counters),
	}
}

// progress shows how far a scan has come; totals are those of the baseline, 0
// when there is none.
func progress(a *app.App, label string, s *engine.Scan, totalFiles, totalBytes int64) *ui.Progress {
	return a.Streams.Progress(label, func() ui.Counters {
		return ui.Counters{
			Files: s.Counters.Files.Load(), Bytes: s.Counters.Bytes.Load(),
			TotalFiles: totalFiles, TotalBytes: totalBytes,
		}
	})
}

// nameFlag adds --name, completed with the names of the baselines.
func nameFlag(a *app.App, cmd *cobra.Command, name *string, usage string) {
	cmd.Flags().StringVar(name, "name", engine.DefaultName, usage)
	a.CompleteFlag(cmd, "name", func(ctx context.Context, _ []string, _ string) []string { return completeNames(ctx, a, false) })
}

// completeNames returns the names of the baselines with what they are, and
// with all also "NAME@ID" of the older ones.
func completeNames(ctx context.Context, a *app.App, all bool) []string {
	e, _, err := newEngine(a)
	if err != nil {
		return nil
	}
	list, err := e.List(ctx)
	if err != nil {
		return nil
	}
	var words []string
	for _, b := range list {
		about := "\t" + ui.Count(b.Entries) + " entries, " + ui.Ago(b.Finished, time.Now())
		if b.Current {
			words = append(words, b.Name+about)
		}
		if all {
			words = append(words, b.Name+"@"+b.ID[:8]+about)
		}
	}
	return words
}
