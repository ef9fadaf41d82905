package vulndb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/scan"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/vulndb"
	"github.com/mobileops/mobileops/internal/scan/worker"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// formats are the formats of sources, as they are typed.
func formats() []string {
	return []string{string(protocol.OSV), string(protocol.GoVulndb), string(protocol.DebianTracker), string(protocol.NodeAdvisory), string(protocol.VulnList)}
}

func newBuild(a *app.App) *cobra.Command {
	var terms vulndb.Terms
	cmd := a.Command(app.Spec{
		Use:   "build FORMAT=PATH... [flags]",
		Short: "Build a vulnerability database out of advisories, offline",
		Long: `Build a vulnerability database out of advisories, offline.

Each source is a FORMAT and where it is:

  osv             OSV documents, as osv.dev exports them: a directory or all.zip
  go-vulndb       the Go vulnerability database: a directory or vulndb.zip
  debian-tracker  the one JSON document of Debian's security tracker, packed or not
  node            the advisories of Node.js's security working group: a directory
  vuln-list       a cache of Trivy's vuln-list, vuln-list-debian and the others

Withdrawn and rejected advisories are left out and counted. A document that cannot be
understood is named, with the byte where it is wrong; the others are in the database, and
the status is 6. The database is as old as the newest change in its sources; documents of
debian-tracker and vuln-list have no dates, so the times of their files count: copy them
with cp -p or rsync -t. Then it is proved and made current as by mobileops vulndb import.`,
		Example: `
mobileops vulndb build osv=/srv/osv/npm/all.zip osv=/srv/osv/PyPI/all.zip go-vulndb=/srv/vulndb.zip
mobileops vulndb build debian-tracker=/srv/debian/tracker.json
mobileops vulndb build vuln-list=/srv/trivy-cache --accept-smaller
3 4 * * * root mobileops vulndb build osv=/srv/osv debian-tracker=/srv/tracker.json --quiet   # cron: each night from a mirror
`,
		Args: cobra.MinimumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the database is current"},
			{Code: 3, Text: "building failed; what was in place still is"},
			{Code: 5, Text: "a source is not of its format, or what was built is older or far smaller than what is in place; what was in place still is"},
			{Code: 6, Text: "the database is current, and some documents are not in it: they are named"},
			{Code: 7, Text: "there is no such source, or mobileops-scan is missing"},
			{Code: 8, Text: "another process changes the databases"},
		},
		Files:   []string{storeFiles, stateFile, "/usr/local/libexec/mobileops/mobileops-scan: the program that builds"},
		Audited: true,
		Complete: func(_ context.Context, _ []string, typed string) (words []string) {
			if strings.Contains(typed, "=") {
				return app.Files()
			}
			for _, f := range formats() {
				words = append(words, f+"=")
			}
			return words
		},
		Run: func(ctx context.Context, args []string) error { return runBuild(ctx, a, terms, args) },
	})
	addTerms(cmd.Flags(), &terms)
	return cmd
}

// sourcesOf reads FORMAT=PATH.
func sourcesOf(args []string) (list []protocol.Source, err error) {
	for _, arg := range args {
		format, path, ok := strings.Cut(arg, "=")
		if !ok || !slices.Contains(formats(), format) || path == "" {
			return nil, app.UsageError("%q is no source: write FORMAT=PATH, where FORMAT is one of %s", arg, strings.Join(formats(), ", "))
		}
		if path, err = filepath.Abs(path); err != nil {
			return nil, err
		}
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, notThere(path, err)
		}
		list = append(list, protocol.Source{Format: protocol.SourceFormat(format), Path: path})
	}
	return list, nil
}

func runBuild(ctx context.Context, a *app.App, terms vulndb.Terms, args []string) error {
	sources, err := sourcesOf(args)
	if err != nil {
		return err
	}
	s, c, progress, err := changer(a)
	if err != nil {
		return err
	}
	w, err := scan.FindWorker(a)
	if err != nil {
		return err
	}
	dir, release, err := s.BuildDir()
	if err != nil {
		return err
	}
	defer release()
	out, temp := filepath.Join(dir, "out"), filepath.Join(dir, "temp")
	if err := errors.Join(os.Mkdir(out, 0o700), os.Mkdir(temp, 0o700)); err != nil {
		return err
	}
	var documents atomic.Int64
	bar := a.Streams.Progress("building", func() ui.Counters { return ui.Counters{Files: documents.Load()} })
	report, err := w.Build(ctx, &protocol.Build{Sources: sources, Output: out, Temp: temp}, worker.Limits{Time: 12 * time.Hour, Background: a.Streams.Quiet},
		func(p protocol.Progress) { documents.Store(p.Files) })
	bar.Stop()
	if err != nil && strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		return failure.Hint(err, "make room on the filesystem of "+ui.Escape(s.Dir())+"; the databases from before are as they were")
	}
	if err != nil {
		return err
	}
	res, err := s.Adopt(ctx, out, "built from "+strings.Join(args, " "), terms)
	progress.stop()
	if res == nil {
		return err
	}
	doc := document{Outcomes: []outcome{outcomeOf(strings.Join(args, " "), res, time.Now())}, Build: report}
	a.SetResult("%s", doc.Outcomes[0].line(time.Now()))
	if perr := printOutcomes(a, "build", doc); perr != nil {
		return perr
	}
	if a.Streams.Format == ui.Text {
		tellBuild(a, report)
	}
	tellOld(a, report, c.Vulndb.MaxAge)
	if err != nil {
		return err
	}
	if len(report.Problems) > 0 {
		return failure.Silent(failure.Incomplete)
	}
	return nil
}

// tellOld names sources that are older than a database may be, which the date of
// the database, that of its newest source, does not show. The advisories of
// Node.js's working group are complete: nobody adds to them.
func tellOld(a *app.App, r *protocol.BuildReport, most time.Duration) {
	now := time.Now()
	for _, s := range r.Sources {
		if most > 0 && s.Format != protocol.NodeAdvisory && now.Sub(s.Newest) > most {
			a.Streams.Notice("mobileops: vulndb build: %s: the latest change in it is of %s, %s: it may be an old copy", ui.Escape(s.Path), s.Newest.Format(time.DateOnly), ui.Ago(s.Newest, now))
		}
	}
}

// maxTold is how many problems are listed in text; the JSON document has them all.
const maxTold = 20

// tellBuild says what is in the database, and what is not.
func tellBuild(a *app.App, r *protocol.BuildReport) {
	if !a.Streams.Quiet {
		fmt.Fprintf(a.Streams.Out, "In it: %s.\n", counts(r.Ecosystems, 12))
		if len(r.Skipped) > 0 {
			fmt.Fprintf(a.Streams.Out, "Left out: %s.\n", counts(r.Skipped, 20))
		}
	}
	for i, p := range r.Problems {
		if i == maxTold {
			a.Streams.Notice("mobileops: vulndb build: %d more (all of them: --output json)", len(r.Problems)-i)
			break
		}
		a.Streams.Notice("mobileops: vulndb build: %s: %s: %s", p.Kind, ui.Escape(p.Path), ui.Escape(p.Detail))
	}
}
