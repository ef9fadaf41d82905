package logs

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/logs"
	"github.com/mobileops/mobileops/internal/logs/source"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type collectOptions struct {
	once, follow bool
	since        string
}

func newCollect(a *app.App) *cobra.Command {
	var opts collectOptions
	cmd := a.Command(app.Spec{
		Use:   "collect [SOURCE...] [--once|--follow] [--since WHEN]",
		Short: "Take the logs of this host into the store, each record once",
		Long: `Take the logs of this host into the store, each record once.

Without SOURCE everything that mobileops logs sources lists is read: the
journal, files below /var/log with their rotated and compressed versions, logs
of containers, logins, kernel messages. SOURCE is a name from that list, a
pattern of names, or the whole path of a file.

With --once, the default, everything that is there now is read, and the command
ends. With --follow it goes on until it is stopped: by Ctrl-C, or by SIGTERM,
which ends it with status 0; run it as the systemd unit mobileops-logs.service. How far each source was read is kept together with its
records in one write: nothing is lost or doubled by a rotation, a crash or a
restart. When the disk has no more room than logs.reserve it stops reading and
says so; the sources keep what they have.`,
		Example: `
mobileops logs collect                                   # everything there is now
mobileops logs collect --since 7d journal /var/log/auth.log
mobileops logs collect --root /mnt/image                 # the logs of a mounted image
mobileops logs collect --follow                          # go on until Ctrl-C
*/5 * * * * root mobileops logs collect --once --quiet   # cron: where no systemd unit runs
`,
		Args: cobra.ArbitraryArgs,
		Statuses: []app.Status{
			{Code: 0, Text: "everything was read; --follow was ended by SIGTERM or SIGHUP"},
			{Code: 3, Text: "the store has no room, or something failed; what was kept until then stays"},
			{Code: 6, Text: "a source could not be read, or records were lost before they could be read; they are named"},
			{Code: 8, Text: "another process collects"},
			{Code: 130, Text: "interrupted: what was read was kept, and the next run goes on there"},
		},
		Files:   []string{storeFiles, stateFile, "/var/log, /run/log/journal, /var/lib/docker and others: read, see mobileops logs sources"},
		Audited: true,
		Run:     func(ctx context.Context, args []string) error { return runCollect(ctx, a, &opts, args) },
		Complete: func(_ context.Context, _ []string, word string) []string {
			if len(word) > 0 && word[0] == '/' {
				return app.Files()
			}
			return configuredSources(a)
		},
	})
	fs := cmd.Flags()
	fs.BoolVar(&opts.once, "once", false, "read what is there now, and end (the default)")
	fs.BoolVarP(&opts.follow, "follow", "f", false, "go on with what is written from now on, until stopped")
	fs.StringVar(&opts.since, "since", "", "of sources that were never read, only records of `WHEN` or later: a span such as 24h, or a date")
	app.CompleteValues(cmd, "since", "24h", "7d", "30d")
	return cmd
}

func configuredSources(a *app.App) []string {
	c, err := a.Config()
	if err != nil {
		return nil
	}
	list, err := specs(c)
	if err != nil {
		return nil
	}
	var names []string
	for _, s := range list {
		names = append(names, s.Name)
	}
	return names
}

// collectReport is the document of mobileops logs collect --output json.
type collectReport struct {
	Schema string `json:"schema"`
	source.Report
	Interrupted bool `json:"interrupted"`
}

func runCollect(ctx context.Context, a *app.App, o *collectOptions, args []string) error {
	if o.once && o.follow {
		return app.UsageError("--once and --follow: choose one of them")
	}
	var since time.Time
	if o.since != "" {
		t, ok := moment.Past(o.since, time.Now(), false)
		if !ok {
			return app.UsageError("bad value %q for --since: a span such as 24h or 7d, or a date such as 2026-05-01", o.since)
		}
		since = t
	}
	s, c, err := openStore(a)
	if err != nil {
		return err
	}
	list, err := specs(c)
	if err != nil {
		return err
	}
	if list, err = chosen(list, args); err != nil {
		return err
	}
	if !o.follow { // else it may come
		if err := there(c.Root, args); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		return failure.Hint(failure.New(failure.NotReady, "there is nothing to collect"), "name files, or set logs.include in the configuration")
	}
	opts := engine.CollectOptions{
		Specs: list, Reading: reading(c, since), Follow: o.follow,
		Notice: func(format string, args ...any) {
			a.Streams.Notice("mobileops: logs collect: %s", ui.Escape(fmt.Sprintf(format, args...)))
		},
	}
	if !o.follow {
		// Somebody waits: what is written at this moment is waited for, not long.
		opts.Reading.Idle = time.Second
	}
	counters := &collecting{}
	opts.Watch = counters.set
	bar := a.Streams.Progress("collecting", counters.read)
	signals, unhook := app.EndSignals()
	defer unhook()
	done, err := engine.Collect(ctx, s, opts)
	bar.Stop()
	if err != nil && done.Sources == nil {
		return err // before anything was read
	}
	a.SetResult("%d records, %d bytes, %d problems, %d gaps", done.Records, done.Bytes, len(done.Problems), len(done.Gaps))
	if done.Recovery.Cut > 0 {
		a.Streams.Notice("mobileops: logs collect: a process that died had left %d bytes that were never acknowledged; they are read again from their source", done.Recovery.Cut)
	}
	for _, d := range done.Recovery.Locked {
		a.Streams.Notice("mobileops: logs collect: a process that was killed left %s, which only those in logs.recipients can read: it is kept in %s, and what is in it is read again from its source", ui.Escape(d.File), ui.Escape(filepath.Join(s.Dir(), "damaged")))
	}
	for _, d := range done.Recovery.Damage {
		a.Streams.Notice("mobileops: logs collect: records in the write-ahead log were lost: %s", ui.Escape(d.String()))
	}
	interrupted := errors.Is(err, context.Canceled)
	if perr := printCollected(a, &done, interrupted, o.follow); perr != nil {
		return errors.Join(perr, err)
	}
	if err != nil {
		return err
	}
	if o.follow && ctx.Err() != nil {
		return app.EndedBy(signals)
	}
	if done.Incomplete() || len(done.Recovery.Damage)+len(done.Recovery.Locked) > 0 {
		return failure.Silent(failure.Incomplete)
	}
	return nil
}

func printCollected(a *app.App, done *engine.Collected, interrupted, follow bool) error {
	s := a.Streams
	for i, p := range done.Problems {
		if p.Skipped && s.Quiet {
			continue
		}
		if i == maxProblems {
			s.Notice("mobileops: logs collect: %d more problems: --output json has all", len(done.Problems)-i)
			break
		}
		s.Notice("mobileops: logs collect: %s", ui.Escape(p.Source+": "+p.Path+": "+p.Reason))
	}
	for _, g := range done.Gaps {
		s.Notice("mobileops: logs collect: %s: records were lost before they were read: %s", ui.Escape(g.Source), g.Reason)
	}
	if s.Format != ui.Text {
		r := collectReport{"mobileops.logs.collect/v1", done.Report, interrupted}
		// Programs expect lists, also empty ones.
		r.Sources = append([]source.Status{}, r.Sources...)
		r.Problems = append([]source.Problem{}, r.Problems...)
		r.Gaps = append([]source.Gap{}, r.Gaps...)
		return s.Document(r)
	}
	if s.Quiet || follow {
		return nil
	}
	table := s.NewTable(ui.Column{Title: "SOURCE", Min: 8}, ui.Column{Title: "FILE", Min: 12, KeepEnd: true}, ui.Column{Title: "FORMAT", Drop: 2},
		ui.Column{Title: "RECORDS", Right: true}, ui.Column{Title: "BYTES", Right: true}, ui.Column{Title: "LAST", Drop: 1})
	for _, st := range done.Sources {
		if st.Records == 0 {
			continue
		}
		table.Row(st.Source, st.Path, st.Format, ui.Count(st.Records), ui.Bytes(st.Bytes), localTime(st.Last))
	}
	if table.Len() > 0 {
		if err := table.Print(); err != nil {
			return err
		}
	}
	verb := "collected"
	if interrupted {
		verb = "interrupted; collected"
	}
	_, err := fmt.Fprintf(s.Out, "%s %s (%s) from %s\n", verb, ui.Plural(done.Records, "record", "records"), ui.Bytes(done.Bytes), ui.Plural(int64(table.Len()), "place", "places"))
	return err
}

func localTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// collecting draws how far collecting has come.
type collecting struct {
	mu sync.Mutex
	c  ui.Counters
}

func (c *collecting) set(list []source.Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.c = ui.Counters{}
	for _, st := range list {
		c.c.Bytes += st.Bytes
		c.c.Files++
		if st.LagBytes > 0 && st.Packed == "" {
			c.c.TotalBytes += st.LagBytes
			c.c.Current = st.Path
		}
	}
	c.c.TotalBytes += c.c.Bytes
}

func (c *collecting) read() ui.Counters {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.c
}
