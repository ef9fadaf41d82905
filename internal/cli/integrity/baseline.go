package integrity

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/policy"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type baselineOptions struct {
	name      string
	policy    string
	ifMissing bool
	keep      string
	reason    string
	ticket    string
	only      string
	scanOptions
}

func newBaseline(a *app.App) *cobra.Command {
	var opts baselineOptions
	cmd := a.Command(app.Spec{
		Use:   "baseline [PATH...] [flags]",
		Short: "Record how the files of this host are now",
		Long: `Record how the files of this host are now, to compare with later.

The policy says which paths are covered and which of their attributes count;
PATHs replace its paths and keep its rules. Every regular file is read and
hashed with BLAKE3. The baseline replaces the former one of that name at the
moment it is complete and on the disk, not before; a few former ones are kept.

A baseline of what a policy covers is about the host: it also records what
listens and what the firewall lets through (network), containers and images
(containers), and programs with rights (binaries), each of which --only leaves
out. With PATHs or --root it is about files.

Take it when you know that the host is sound: a baseline of a compromised host
declares the compromise to be the normal state.`,
		Example: `
mobileops integrity baseline                        # of the configured policy
mobileops integrity baseline --policy full --name all  # of everything
mobileops integrity baseline /srv/app --name app    # of one tree
mobileops integrity baseline --if-missing --quiet   # first boot: take one, once
mobileops integrity baseline --root /mnt/image --name image  # of a mounted image
`,
		Args: cobra.ArbitraryArgs,
		Statuses: []app.Status{
			{Code: 0, Text: "the baseline was taken; with --if-missing: or there is one"},
			{Code: 4, Text: "the state directory may not be written"},
			{Code: 5, Text: "the key that signs the history is gone, or an anchor speaks against the history"},
			{Code: 6, Text: "the baseline was taken, but something could not be read; checks against it are incomplete too"},
			{Code: 8, Text: "another operation on that baseline is under way"},
		},
		Files:    []string{baselineFile, factsFile, stateFile, historyFile},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runBaseline(ctx, a, &opts, args) },
		Complete: func(context.Context, []string, string) []string { return app.Files() },
	})
	nameFlag(a, cmd, &opts.name, "name the baseline `NAME`")
	fs := cmd.Flags()
	fs.StringVar(&opts.policy, "policy", "", "cover what `POLICY` says: a built-in policy or a file (default system)")
	fs.BoolVar(&opts.ifMissing, "if-missing", false, "do nothing when there is a baseline of that name")
	keepFlag(cmd, &opts.keep)
	reasonFlags(cmd, &opts.reason, &opts.ticket)
	onlyFlag(a, cmd, &opts.only, "record only these `ASPECTS`: files,network,containers,binaries (default: all; with PATHs or --root: files)")
	opts.addFlags(cmd)
	opts.flags["integrity.policy"] = fs.Lookup("policy")
	a.CompleteFlag(cmd, "policy", completePolicies)
	cmd.AddCommand(newBaselineList(a), newBaselineShow(a), newBaselineRemove(a), newBaselineExport(a), newBaselineImport(a), newBaselineSign(a))
	return cmd
}

func runBaseline(ctx context.Context, a *app.App, o *baselineOptions, paths []string) error {
	o.bind(a)
	e, c, err := newEngine(a)
	if err != nil {
		return err
	}
	e.By.Reason, e.By.Ticket = o.reason, o.ticket
	p, err := policy.Load(c.Integrity.Policy)
	if err != nil {
		return err
	}
	if len(paths) > 0 {
		abs, err := absolute(a, paths, c.Root)
		if err != nil {
			return err
		}
		p = p.WithPaths(abs)
	}
	aspects, err := takenAspects(o.only, c, paths)
	if err != nil {
		return err
	}
	opts := engine.TakeOptions{Aspects: aspects, Name: o.name, Policy: p, IfMissing: o.ifMissing, KeepContent: engine.KeepContent(o.keep), Scan: scan(c, c.Root)}
	bar := progress(a, "reading files", &opts.Scan, 0, 0)
	t, err := e.Take(ctx, opts)
	bar.Stop()
	if err != nil {
		return err
	}
	if t.Existed {
		a.OnlyLooked()
	} else {
		a.SetResult("baseline %s@%s of %d entries, root %s", t.Entry.Name, t.Entry.ID, t.Entry.Entries, t.Entry.Root)
	}
	if err := printTaken(a, t); err != nil {
		return err
	}
	if t.Existed {
		return failure.Silent(t.Kind())
	}
	return ended(t.Kind(), keepAnchors(ctx, a, e))
}

// absolute returns the paths to cover as they are below the tree. A walk never
// follows a symbolic link, so whoever names /bin means what it leads to.
func absolute(a *app.App, paths []string, tree string) ([]string, error) {
	abs := make([]string, 0, len(paths))
	for _, given := range paths {
		if given == "" { // an empty variable in a script; it does not mean the working directory
			return nil, failure.Errorf(failure.Usage, "a PATH is empty")
		}
		if tree != "/" {
			if !filepath.IsAbs(given) {
				return nil, failure.Errorf(failure.Usage, "%q is not absolute: with --root, write paths as they are below it", given)
			}
			abs = append(abs, given)
			continue
		}
		path, err := filepath.Abs(given)
		if err != nil {
			return nil, err
		}
		if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
			a.Streams.Notice("mobileops: integrity baseline: %s leads through a symbolic link to %s, which is taken", ui.Escape(given), ui.Escape(real))
			path = real
		}
		abs = append(abs, path)
	}
	return abs, nil
}

// takenReport is the document of integrity baseline --output json.
type takenReport struct {
	Schema    string           `json:"schema"`
	Existed   bool             `json:"existed"`
	ElapsedMS int64            `json:"elapsed_ms"`
	Baseline  engine.Entry     `json:"baseline"`
	Facts     int              `json:"facts"`             // about the host, beside its files
	Unknown   []engine.Unknown `json:"unknown,omitempty"` // sources of facts that did not tell all
	Errors    []problemReport  `json:"errors"`
}

func printTaken(a *app.App, t *engine.Taken) error {
	s := a.Streams
	if s.Format != ui.Text {
		return s.Document(takenReport{
			Schema: "mobileops.integrity.baseline/v1", Existed: t.Existed, ElapsedMS: t.Elapsed.Milliseconds(),
			Baseline: t.Entry, Facts: t.Facts, Unknown: t.Unknown, Errors: problemReports(t.Problems),
		})
	}
	b := &t.Entry
	if t.Existed {
		if s.Quiet {
			return nil
		}
		_, err := fmt.Fprintf(s.Out, "There is a baseline %q already, of %s, taken %s.\n", b.Name, ui.Plural(b.Entries, "entry", "entries"), stamp(b.Finished))
		return err
	}
	if err := printProblems(a, t.Problems); err != nil || s.Quiet {
		return err
	}
	var w strings.Builder
	if b.Entries == 0 {
		fmt.Fprintf(&w, "Baseline %q taken in %s, without files.\n", b.Name, ui.Duration(t.Elapsed))
	} else {
		fmt.Fprintf(&w, "Baseline %q taken: %s, %s of content in %s, policy %s.\n",
			b.Name, ui.Plural(b.Entries, "entry", "entries"), ui.Bytes(b.Bytes), ui.Duration(t.Elapsed), ui.Escape(b.PolicyName))
	}
	if len(b.Aspects) > 0 {
		fmt.Fprintf(&w, "Recorded of the host: %s, %s.\n", strings.Join(b.Aspects, ", "), ui.Plural(int64(t.Facts), "fact", "facts"))
		printUnknown(&w, s.Theme(), t.Unknown)
	}
	fmt.Fprintf(&w, "Kept as %s@%s, %s on disk. Its root, to be written down elsewhere:\n  %s\n", b.Name, b.ID[:8], ui.Bytes(b.FileBytes), b.Root)
	_, err := io.WriteString(s.Out, w.String())
	return err
}
