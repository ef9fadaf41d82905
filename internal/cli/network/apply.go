package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/network/segment"
	"github.com/mobileops/mobileops/internal/network/segment/policy"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// Files that the commands for segments touch, as their help says it.
const (
	segmentsFile  = "/var/lib/mobileops/state.db: the segments in force, and what was made for them"
	segmentTables = "tables mobileops_segments of nftables: inet and bridge"
	segmentLinks  = "interfaces mo-*: bridges, tunnels and ports"
)

// segmentStatuses are those of every command that changes segments.
func segmentStatuses(done string) []app.Status {
	return []app.Status{
		{Code: 0, Text: done},
		{Code: 1, Text: "--dry-run: something would change"},
		{Code: 3, Text: "failed; everything is as before, or the message says what is left"},
		notRoot,
		{Code: 6, Text: "in force, but for workloads that are not there yet; they are named"},
		{Code: 7, Text: "the kernel lacks a feature, which is named; nothing was changed"},
		{Code: 8, Text: "something of others is in the way, or another apply runs; nothing was changed"},
	}
}

// newSegments returns the engine of segments.
func newSegments(a *app.App) (*segment.Engine, error) {
	c, err := a.Config()
	if err != nil {
		return nil, err
	}
	if err := ofThisHost(c); err != nil {
		return nil, err
	}
	store, err := a.State()
	if err != nil {
		return nil, err
	}
	return &segment.Engine{Store: store, Firewall: policy.Firewall{}, By: a.Actor().Name()}, nil
}

type applyOptions struct {
	check, dryRun, prune bool
}

func newApply(a *app.App) *cobra.Command {
	var opts applyOptions
	cmd := a.Command(app.Spec{
		Use:   "apply FILE [--check | --dry-run] [--prune]",
		Short: "Make zones, workloads and the flows between them as a file says",
		Long: `Make zones, workloads and the flows between them as a file says.

The file (docs/formats/segments.md; - is the standard input) says everything:
what it does not have any more is taken away, and what is as it says stays
untouched. It is in force under its name, beside files of other names, also
after a reboot. Rules change before links appear and after links go, so that no
zone is ever open. An apply that fails is taken back; one that was killed is put
right by the next one.

What mobileops did not make is neither changed nor removed.`,
		Example: `
mobileops network apply segments.yaml --check    # is the file sound? needs no root
mobileops network apply segments.yaml --dry-run  # what would change
mobileops network apply segments.yaml            # runbook: network of the workloads
mobileops network apply segments.yaml --prune    # and nothing but this file
*/10 * * * * root mobileops network apply /etc/mobileops/segments.yaml --quiet  # cron: repair drift
`,
		Args:     cobra.ExactArgs(1),
		Statuses: segmentStatuses("it is in force"),
		Files:    []string{segmentLinks, segmentTables, segmentsFile},
		Audited:  true,
		Complete: func(context.Context, []string, string) []string { return app.Files() },
		Run:      func(ctx context.Context, args []string) error { return runApply(ctx, a, &opts, args[0]) },
	})
	fs := cmd.Flags()
	fs.BoolVar(&opts.check, "check", false, "only say whether the file is sound, without looking at this host")
	fs.BoolVar(&opts.dryRun, "dry-run", false, "change nothing, and show what would be")
	fs.BoolVar(&opts.prune, "prune", false, "end every other file that is in force")
	cmd.MarkFlagsMutuallyExclusive("check", "dry-run")
	return cmd
}

// maxDocument bounds what is read of the standard input; the engine has a
// lower limit, and says so.
const maxDocument = 2 << 20

func readDocument(in io.Reader, name string) (*segment.Document, error) {
	if name == "-" {
		data, err := io.ReadAll(io.LimitReader(in, maxDocument))
		if err != nil {
			return nil, fmt.Errorf("read the standard input: %w", err)
		}
		return segment.Parse("stdin", data)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxDocument))
	if err != nil {
		return nil, err
	}
	return segment.Parse(filepath.Clean(name), data)
}

func runApply(ctx context.Context, a *app.App, o *applyOptions, name string) error {
	if o.check || o.dryRun {
		a.OnlyLooked()
	}
	doc, err := readDocument(a.Streams.In, name)
	if err != nil {
		return err
	}
	if o.check {
		return checkDocument(a, doc)
	}
	return applyDocuments(ctx, a, segment.Request{Put: []*segment.Document{doc}, Only: o.prune}, o.dryRun, doc.Name)
}

func checkDocument(a *app.App, doc *segment.Document) error {
	l, err := segment.Arrange([]*segment.Document{doc}, segment.Given{})
	if err != nil {
		return err
	}
	if _, err := policy.Compile(l); err != nil {
		return err
	}
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(applyReport{Schema: applySchema, Document: doc.Name, DryRun: true, Changes: []changeRecord{}, Missing: []string{}, Notes: []string{}})
	}
	if a.Streams.Quiet {
		return nil
	}
	_, err = fmt.Fprintf(a.Streams.Out, "%s is sound: %s, %s, %s\n", ui.Escape(doc.Name),
		count(len(doc.Zones), "zone"), count(len(doc.Workloads), "workload"), count(len(doc.Flows), "flow"))
	return err
}

const applySchema = "mobileops.network.apply/v1"

// applyReport is the document of every command that changes segments.
type applyReport struct {
	Schema   string         `json:"schema"`
	Document string         `json:"document"` // which the command was about; "" for all
	DryRun   bool           `json:"dry_run"`  // nothing was changed: this is what would be
	Changes  []changeRecord `json:"changes"`  // in the order in which they are made
	Missing  []string       `json:"missing"`  // workloads that are not there yet
	Notes    []string       `json:"notes"`
}

type changeRecord struct {
	Kind string `json:"kind"` // "add", "remove" or "change"
	Text string `json:"text"`
}

func changeRecords(list []segment.Change) []changeRecord {
	kinds := map[byte]string{'+': "add", '-': "remove", '~': "change"}
	out := []changeRecord{}
	for _, c := range list {
		out = append(out, changeRecord{kinds[c.Sign], c.Text})
	}
	return out
}

// applyDocuments carries out, or with dryRun shows, a request about what people
// call by a name; "" is everything.
func applyDocuments(ctx context.Context, a *app.App, r segment.Request, dryRun bool, name string) error {
	if dryRun {
		a.OnlyLooked()
	}
	if err := segment.MayChange(); err != nil {
		return err
	}
	e, err := newSegments(a)
	if err != nil {
		return err
	}
	var plan *segment.Plan
	if dryRun {
		plan, err = e.Plan(ctx, r)
	} else {
		plan, err = e.Apply(ctx, r)
	}
	if errors.Is(err, segment.ErrNoDocument) {
		return failure.Hint(err, "see them: mobileops network segments")
	}
	if err != nil {
		return err
	}
	changes := plan.Changes()
	own, others := missing(r, plan)
	a.SetResult("%s: %s", name, count(len(changes), "change"))
	if a.Streams.Format != ui.Text {
		err = a.Streams.Document(applyReport{applySchema, name, dryRun, changeRecords(changes), own, append(slices.Clone(others), plan.Notes...)})
	} else {
		done, none := "In force", "In force; nothing was to change."
		if len(r.Put) == 0 {
			done, none = "Taken back", "There was nothing to take back."
		}
		err = printChanges(a.Streams, changes, dryRun, done, none)
	}
	if err != nil {
		return err
	}
	if made := func(c segment.Change) bool { return c.Sign == '+' && strings.HasPrefix(c.Text, "bridge ") }; !dryRun && !a.Streams.Quiet && slices.ContainsFunc(changes, made) {
		sayNobodyServes(ctx, a)
	}
	return outcome(a.Streams, plan, own, others, dryRun)
}

// missing divides what cannot be attached yet: what the command itself brought,
// which makes its status, and what other files wait for, as notes.
func missing(r segment.Request, plan *segment.Plan) (own, others []string) {
	own, others = []string{}, []string{}
	for _, m := range plan.Missing {
		if slices.ContainsFunc(r.Put, func(d *segment.Document) bool { return d.Name == m.Document }) {
			own = append(own, m.Text)
		} else {
			others = append(others, "not attached, in the file "+m.Document+": "+m.Text)
		}
	}
	return own, others
}

// outcome says what needs attention, and makes the status.
func outcome(s *ui.Streams, plan *segment.Plan, own, others []string, dryRun bool) error {
	kind := failure.None
	if dryRun && len(plan.Changes()) > 0 {
		kind = failure.No
	}
	if !s.Quiet && len(plan.Changes()) > 0 {
		for _, n := range append(others, plan.Notes...) {
			s.Notice("mobileops: note: %s", ui.Escape(n))
		}
	}
	for _, m := range own {
		s.Notice("mobileops: not attached: %s (once it is: mobileops network reconcile)", ui.Escape(m))
		kind = failure.Worse(kind, failure.Incomplete)
	}
	return failure.Silent(kind)
}

// printChanges prints changes as a diff, each with its sign, and then in words
// what was done, or that nothing was.
func printChanges(s *ui.Streams, changes []segment.Change, dryRun bool, done, none string) error {
	theme := s.Theme()
	style := map[byte]func(string) string{'+': theme.Good, '-': theme.Bad, '~': theme.Warn}
	if !s.Quiet || dryRun {
		for _, c := range changes {
			if _, err := fmt.Fprintln(s.Out, style[c.Sign](string(c.Sign)+" "+ui.Escape(c.Text))); err != nil {
				return err
			}
		}
	}
	if s.Quiet {
		return nil
	}
	text := none
	switch n := len(changes); {
	case n == 0 && dryRun:
		text = "Nothing would change."
	case dryRun:
		text = fmt.Sprintf("%s would be made (make them: the same without --dry-run).", count(n, "change"))
	case n > 0:
		text = fmt.Sprintf("%s; %s.", done, count(n, "change"))
	}
	_, err := fmt.Fprintln(s.Out, text)
	return err
}
