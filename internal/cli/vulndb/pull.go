package vulndb

import (
	"context"
	"net/http"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/registry"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/vulndb"
	"github.com/spf13/cobra"
)

type pullOptions struct {
	vulndb.Terms
	plainHTTP      bool
	credentials    string
	timeout, stall time.Duration
}

func newPull(a *app.App) *cobra.Command {
	var opts pullOptions
	cmd := a.Command(app.Spec{
		Use:   "pull [REFERENCE...] [flags]",
		Short: "Take in a vulnerability database from an OCI registry",
		Long: `Take in a vulnerability database from an OCI registry.

REFERENCE is HOST/REPOSITORY:TAG, or with @sha256: and a digest in place of the tag; without
one, vulndb.repository and vulndb.java_repository of the configuration. A registry has the
databases as Trivy publishes them: oras copy, skopeo copy and registries that mirror bring
them there. What digests promise is proved, and then what mobileops vulndb import proves.
When nothing is new there, nothing is downloaded.`,
		Example: `
mobileops vulndb pull
mobileops vulndb pull registry.example.org/security/trivy-db:2
mobileops vulndb pull 127.0.0.1:5000/trivy-db:2 --plain-http
41 */6 * * * root mobileops vulndb pull --quiet   # cron: four times a day
`,
		Statuses: []app.Status{
			{Code: 0, Text: "it is in place, also where it was before"},
			{Code: 3, Text: "the registry does not answer, breaks off or has an error; what was in place still is"},
			{Code: 4, Text: "the registry wants other credentials, or others may read those"},
			{Code: 5, Text: "it is not what its digest promises, damaged, older or far smaller than what is in place, or not signed; what was in place still is"},
			{Code: 7, Text: "no repository is configured and none was named"},
			{Code: 8, Text: "another process changes the databases"},
		},
		Args:    cobra.ArbitraryArgs,
		Files:   []string{storeFiles, stateFile, keyFiles, "vulndb.credentials: passwords for registries, as docker login writes them"},
		Audited: true,
		Run:     func(ctx context.Context, args []string) error { return runPull(ctx, a, &opts, args) },
	})
	fs := cmd.Flags()
	addTerms(fs, &opts.Terms)
	addSignature(fs, &opts.Terms, "signature that vouches for the layer, which is db.tar.gz: `FILE` of minisign")
	fs.BoolVar(&opts.plainHTTP, "plain-http", false, "talk to the registry without TLS (to this host that is allowed anyway)")
	fs.StringVar(&opts.credentials, "credentials", "", "passwords for registries: `FILE` as docker login writes it")
	fs.DurationVar(&opts.timeout, "timeout", time.Hour, "give up after `TIME` in all")
	fs.DurationVar(&opts.stall, "stall", time.Minute, "give up when nothing comes for `TIME`")
	app.CompleteFiles(cmd, "signature", "minisig")
	app.CompleteFiles(cmd, "credentials", "json")
	a.BindFlag("vulndb.credentials", fs.Lookup("credentials"))
	return cmd
}

func runPull(ctx context.Context, a *app.App, o *pullOptions, refs []string) error {
	if o.timeout <= 0 || o.stall <= 0 {
		return app.UsageError("--timeout and --stall are more than no time")
	}
	s, c, progress, err := changer(a)
	if err != nil {
		return err
	}
	if len(refs) == 0 {
		for _, ref := range []string{c.Vulndb.Repository, c.Vulndb.JavaRepository} {
			if ref != "" {
				refs = append(refs, ref)
			}
		}
	}
	if len(refs) == 0 {
		return failure.Hint(failure.New(failure.NotReady, "no repository is configured, and none was named"),
			"name one: mobileops vulndb pull HOST/REPOSITORY:TAG, or set vulndb.repository")
	}
	if o.Signature != "" && len(refs) > 1 {
		return app.UsageError("--signature is for one reference")
	}
	if err := registry.Check(c.Vulndb.Credentials, "vulndb.credentials"); err != nil {
		return err
	}
	lookup := registry.Credentials[vulndb.Credential](c.Vulndb.Credentials, "vulndb.credentials")
	var doc document
	for _, ref := range refs {
		res, err := s.Pull(ctx, ref, vulndb.PullOptions{
			Terms: o.Terms, PlainHTTP: o.plainHTTP, Credentials: lookup, Proxy: http.ProxyFromEnvironment, Stall: o.stall, Timeout: o.timeout,
		})
		progress.stop()
		if res != nil {
			doc.Outcomes = append(doc.Outcomes, outcomeOf(ref, res, time.Now()))
			a.SetResult("%s", doc.Outcomes[len(doc.Outcomes)-1].line(time.Now()))
		}
		if err != nil {
			if len(doc.Outcomes) > 0 {
				if perr := printOutcomes(a, "pull", doc); perr != nil {
					return perr
				}
			}
			return err
		}
	}
	return printOutcomes(a, "pull", doc)
}
