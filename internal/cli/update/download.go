package update

import (
	"context"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/repo"
	"github.com/spf13/cobra"
)

type downloadOptions struct {
	now  bool
	bind func() // see repositoryFlag
}

func newDownload(a *app.App) *cobra.Command {
	var opts downloadOptions
	cmd := a.Command(app.Spec{
		Use:   "download [NAME[@VERSION]]... [--now] [--repository PLACE]",
		Short: "Download updates, to apply them later",
		Long: `Download updates, to apply them later. Without a name it fetches all that
mobileops update check calls available; with a name the newest of that package;
with a version that one, also when it is older or not rolled out to this host yet.

A download that was cut off goes on where it was. What has arrived is proved by
the digest in the repository before it gets its name; it is applied by
mobileops update apply NAME, or by its path.`,
		Example: `
mobileops update download
mobileops update download platform@2.4.1
mobileops update download --quiet && mobileops update apply platform     # runbook: fetch before the window, apply in it
`,
		Args: cobra.ArbitraryArgs,
		Statuses: []app.Status{
			{Code: 0, Text: "the packages are here, or there is nothing newer"},
			{Code: 1, Text: "the repository has no such package for this host"},
			{Code: 3, Text: "the repository is out of reach, or the disk is full; what has arrived is kept"},
			{Code: 5, Text: "the repository is not to be trusted or has expired, or sent another package"},
			{Code: 7, Text: "no repository is configured (update.repository, update.repository_root)"},
			{Code: 8, Text: "another process downloads the same package"},
		},
		Files:    []string{"/var/lib/mobileops/update/packages/: the packages and their signatures", repositoryFiles, stateFile},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runDownload(ctx, a, &opts, args) },
		Complete: func(ctx context.Context, _ []string, typed string) []string { return offered(ctx, a, typed) },
	})
	cmd.Flags().BoolVar(&opts.now, "now", false, "also what is not rolled out to this host yet")
	opts.bind = repositoryFlag(a, cmd)
	return cmd
}

// offered completes the name of a package of the repository by what is known of
// it here.
func offered(ctx context.Context, a *app.App, typed string) []string {
	c, err := a.Config()
	if err != nil {
		return nil
	}
	client, err := openRepository(a, c)
	if err != nil {
		return nil
	}
	list, err := client.Available(ctx)
	if err != nil {
		return nil
	}
	var words []string
	for _, t := range list {
		if t.Release.Channel != c.Update.Channel {
			continue
		}
		word := t.Release.Name
		if strings.Contains(typed, "@") {
			word += "@" + t.Release.Version
		}
		words = append(words, word)
	}
	return words
}

// pick chooses the packages that were asked for.
func (o *downloadOptions) pick(r *checked, args []string, channel string) ([]*judged, error) {
	var picked []*judged
	if len(args) == 0 {
		for i := range r.packages {
			if j := &r.packages[i]; j.verdict == verdictAvailable || o.now && j.verdict == verdictHeld {
				picked = append(picked, j)
			}
		}
		return picked, nil
	}
	for _, arg := range args {
		name, version, exact := strings.Cut(arg, "@")
		var best *judged
		for i := range r.packages {
			j := &r.packages[i]
			if j.Release.Name == name && j.Release.Channel == channel && (!exact || j.Release.Version == version) &&
				(best == nil || rank(j, o.now) > rank(best, o.now) || rank(j, o.now) == rank(best, o.now) && j.Release.Sequence > best.Release.Sequence) {
				best = j
			}
		}
		switch {
		case best == nil:
			return nil, failure.Hint(failure.Errorf(failure.No, "the repository has no %s in channel %s", arg, channel), "see what it has: mobileops update check --all")
		case best.verdict == verdictExpired:
			return nil, failure.Errorf(failure.Untrustworthy, "%s %s %s", best.Release.Name, best.Release.Version, best.why(channel))
		case best.verdict == verdictHeld && !exact && !o.now:
			return nil, failure.Hint(failure.Errorf(failure.No, "%s %s is %s", best.Release.Name, best.Release.Version, best.why(channel)), "wait for it, or download it --now")
		}
		picked = append(picked, best)
	}
	return picked, nil
}

// rank puts what this host should have before what it may have.
func rank(j *judged, now bool) int {
	switch {
	case j.verdict == verdictAvailable, j.verdict == verdictAccepted, now && j.verdict == verdictHeld:
		return 3
	case j.verdict == verdictHeld:
		return 2
	case j.verdict == verdictOlder:
		return 1
	}
	return 0
}

// downloadDocument is the document of mobileops update download.
type downloadDocument struct {
	Schema   string           `json:"schema"`
	Packages []downloadRecord `json:"packages"`
}

type downloadRecord struct {
	offerRecord
	File         string `json:"file"`
	FileB64      []byte `json:"file_b64,omitempty"`
	Signature    string `json:"signature,omitempty"`
	SignatureB64 []byte `json:"signature_b64,omitempty"`
}

func runDownload(ctx context.Context, a *app.App, o *downloadOptions, args []string) error {
	o.bind()
	e, c, err := newEngine(a, "update download")
	if err != nil {
		return err
	}
	r, err := lookAt(ctx, a, c, e.Accepted)
	if err != nil {
		return err
	}
	if r.problem != nil {
		return r.problem
	}
	picked, err := o.pick(r, args, c.Update.Channel)
	if err != nil {
		return err
	}
	doc := downloadDocument{Schema: "mobileops.update.download/v1", Packages: []downloadRecord{}}
	for _, j := range picked {
		path, err := download(ctx, a, r.client, c, &j.Target)
		if err != nil {
			return explainDownload(err, len(doc.Packages))
		}
		rec := downloadRecord{offerRecord: newOfferRecord(j.Target, ""), File: path, FileB64: lossless(path)}
		if j.Signed {
			rec.Signature, rec.SignatureB64 = path+".minisig", lossless(path+".minisig")
		} else {
			a.Streams.Notice("the repository has no signature of %s %s; it cannot be applied without", j.Release.Name, j.Release.Version)
		}
		doc.Packages = append(doc.Packages, rec)
		if a.Streams.Format == ui.Text && !a.Streams.Quiet {
			if _, err := fmt.Fprintln(a.Streams.Out, ui.Escape(path)); err != nil {
				return err
			}
		}
	}
	a.SetResult("%d packages of %s", len(doc.Packages), r.client.Source())
	if len(picked) == 0 {
		a.OnlyLooked()
	}
	switch {
	case a.Streams.Format == ui.JSON:
		return a.Streams.Document(doc)
	case a.Streams.Format == ui.JSONL:
		lines := a.Streams.Lines()
		for _, p := range doc.Packages {
			if err := lines.Print(p); err != nil {
				return err
			}
		}
		return lines.Flush()
	case len(picked) == 0 && !a.Streams.Quiet:
		a.Streams.Notice("nothing newer for this host in channel %s of %s", c.Update.Channel, ui.Escape(r.client.Source()))
	}
	return nil
}

// explainDownload says what is kept of a download that did not come to its end.
func explainDownload(err error, done int) error {
	switch repo.CodeOf(err) {
	case repo.CodeUnreachable:
		err = failure.Hint(err, "what has arrived is kept: the same command goes on there")
	case "":
		return err
	}
	if done > 0 {
		return fmt.Errorf("after %d packages: %w", done, err)
	}
	return err
}
