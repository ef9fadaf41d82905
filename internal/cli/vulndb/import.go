package vulndb

import (
	"context"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/scan/vulndb"
	"github.com/spf13/cobra"
)

func newImport(a *app.App) *cobra.Command {
	var terms vulndb.Terms
	cmd := a.Command(app.Spec{
		Use:   "import FILE... [flags]",
		Short: "Take in a vulnerability database, KEV or EPSS from files, offline",
		Long: `Take in a vulnerability database, KEV or EPSS from files, offline.

FILE is told by its content. A database is Trivy's: db.tar.gz, an OCI layout with it
(a directory, or a tar file of one), the directory db in the cache of Trivy, or trivy.db
with metadata.json beside it. trivy-java.db likewise, which knows JAR files by their
digests. KEV is CISA's known_exploited_vulnerabilities.json, and EPSS
epss_scores-YYYY-MM-DD.csv.gz, packed or not; scans put what is exploited first.

A database is proved before anything uses it: its structure, its schema, that it is not
empty, not older than the current one and without more than half of its advisories. One
rename makes it current; scans under way go on with the one they have. When vulndb.keys
is configured, each file must be signed: mobileops update sign FILE --name vulndb makes
FILE.minisig.`,
		Example: `
mobileops vulndb import db.tar.gz
mobileops vulndb import /media/usb/trivy-db /media/usb/epss_scores-2026-05-20.csv.gz /media/usb/known_exploited_vulnerabilities.json
mobileops vulndb import db.tar.gz --signature db.tar.gz.minisig
17 5 * * * root mobileops vulndb import /srv/mirror/trivy-db --quiet   # cron: what a mirror has, each morning
`,
		Args: cobra.MinimumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "all of it is in place, also where it was before"},
			{Code: 3, Text: "the disk is full or fails; what was in place still is"},
			{Code: 5, Text: "a file is damaged, not what it should be, older or far smaller than what is in place, or not signed by a trusted key; what was in place still is"},
			{Code: 7, Text: "there is no such file, or no key is trusted"},
			{Code: 8, Text: "another process changes the databases"},
		},
		Files:    []string{storeFiles, stateFile, keyFiles},
		Audited:  true,
		Complete: func(context.Context, []string, string) []string { return app.Files() },
		Run:      func(ctx context.Context, args []string) error { return runImport(ctx, a, terms, args) },
	})
	addTerms(cmd.Flags(), &terms)
	addSignature(cmd.Flags(), &terms, "signature that vouches for the file: `FILE` of minisign (default FILE.minisig)")
	app.CompleteFiles(cmd, "signature", "minisig")
	return cmd
}

func runImport(ctx context.Context, a *app.App, terms vulndb.Terms, files []string) error {
	if terms.Signature != "" && len(files) > 1 {
		return app.UsageError("--signature is for one file; several have theirs beside them: FILE.minisig")
	}
	s, _, progress, err := changer(a)
	if err != nil {
		return err
	}
	var doc document
	for _, path := range files {
		o, err := importOne(ctx, s, path, terms)
		progress.stop()
		if o != nil {
			doc.Outcomes = append(doc.Outcomes, *o)
			a.SetResult("%s", o.line(time.Now()))
		}
		if err != nil {
			if perr := printOutcomes(a, "import", doc); len(doc.Outcomes) > 0 && perr != nil {
				return perr
			}
			return err
		}
	}
	return printOutcomes(a, "import", doc)
}

func importOne(ctx context.Context, s *vulndb.Store, path string, terms vulndb.Terms) (*outcome, error) {
	content, err := vulndb.Recognize(path)
	if err != nil {
		return nil, notThere(path, err)
	}
	var t *vulndb.Table
	switch content {
	case vulndb.KEVList:
		t, err = s.ImportKEV(ctx, path, terms)
	case vulndb.EPSSList:
		t, err = s.ImportEPSS(ctx, path, terms)
	default:
		res, err := s.Import(ctx, path, terms)
		if res == nil {
			return nil, err
		}
		o := outcomeOf(path, res, time.Now())
		return &o, err
	}
	if err != nil {
		return nil, err
	}
	return &outcome{Kind: string(content), Source: path, Unchanged: t.Unchanged, Table: t}, nil
}
