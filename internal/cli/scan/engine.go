package scan

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/buildinfo"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/scan"
	"github.com/mobileops/mobileops/internal/scan/ledger"
	"github.com/mobileops/mobileops/internal/scan/license"
	"github.com/mobileops/mobileops/internal/scan/vulndb"
	"github.com/mobileops/mobileops/internal/scan/worker"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
)

// Bounds of mobileops-scan that nobody needs to choose.
const (
	stall       = 15 * time.Minute // without any progress
	maxReport   = 512 << 20        // bytes
	maxUnpacked = 32 << 30         // bytes of one file, such as a layer
)

// newEngine returns the engine that the configuration describes. attribution is a
// file that gives credit for what the target has no texts of; "": there is none.
// Nothing is opened yet.
func newEngine(a *app.App, allowStale bool, attribution string) (*engine.Engine, error) {
	if err := a.Govern(append([]string{"scan.license_policy", "vulndb.max_age"}, rules...)...); err != nil {
		return nil, err
	}
	c, err := a.Config()
	if err != nil {
		return nil, err
	}
	store, err := a.State()
	if err != nil {
		return nil, err
	}
	policy, err := licensePolicy(c)
	if err != nil {
		return nil, err
	}
	if attribution != "" {
		data, err := readFile(attribution, maxAttribution)
		if err != nil {
			return nil, err
		}
		given, err := license.ParseAttribution(attribution, data)
		if err != nil {
			return nil, err
		}
		policy = policy.WithAttribution(given)
	}
	dir := filepath.Join(c.StateDir, "scan")
	return engine.New(engine.Options{
		Dir: dir, State: store, Ledger: ledgerOf(c), Licenses: policy,
		Database: databaseOf(c, store, allowStale),
		MaxAge:   c.Vulndb.MaxAge,
		Worker:   func() (*worker.Worker, error) { return FindWorker(a) },
		Limits: worker.Limits{
			Memory: c.Scan.Memory, Time: c.Scan.Timeout, Stall: stall, Output: maxReport, File: maxUnpacked, Background: a.Streams.Quiet,
		},
		Memo: c.Scan.Memo, SecretRules: c.Scan.SecretRules,
	}), nil
}

// databaseOf is the vulnerability database, with what is known of exploits.
func databaseOf(c *config.Config, store *state.Store, allowStale bool) *vulndb.Store {
	return vulndb.New(vulndb.Options{Dir: filepath.Join(c.StateDir, "scan", "vulndb"), State: store, MaxAge: c.Vulndb.MaxAge, AllowStale: allowStale})
}

// knowsKEV is an error unless there is a list of what is exploited: without it
// nothing is, which is no good news.
func knowsKEV(a *app.App) error {
	c, err := a.Config()
	if err != nil {
		return err
	}
	store, err := a.State()
	if err != nil {
		return err
	}
	intel, err := databaseOf(c, store, false).Intel()
	if err != nil {
		return err
	}
	if kev, _ := intel.Dates(); kev.IsZero() {
		return failure.Hint(failure.New(failure.NotReady, "--fail-on kev: it is not known what is exploited"), "import the list: mobileops vulndb import known_exploited_vulnerabilities.json")
	}
	return nil
}

// FindWorker finds the program with Trivy in it.
func FindWorker(a *app.App) (*worker.Worker, error) {
	c, err := a.Config()
	if err != nil {
		return nil, err
	}
	ours, err := os.Executable()
	if err != nil {
		return nil, failure.Wrap(failure.Failed, err)
	}
	return worker.Find(worker.Options{Path: c.Scan.Worker, Executable: ours, StateDir: c.StateDir, Version: buildinfo.Get().Version, Environ: os.Environ()})
}

// ledgerOf is the memory of scans, with the deadlines of the configuration.
func ledgerOf(c *config.Config) ledger.Ledger {
	s := c.Scan.SLA
	return ledger.Ledger{Policy: ledger.Policy{
		Basis: ledger.Basis(s.Basis), Critical: s.Critical, High: s.High, Medium: s.Medium, Low: s.Low, KEV: s.KEV, Approval: c.Scan.WaiverApproval,
	}}
}

// Limits of files that are read whole, in bytes.
const (
	maxPolicy      = 4 << 20
	maxAttribution = 256 << 20
)

func licensePolicy(c *config.Config) (*license.Policy, error) {
	if c.Scan.LicensePolicy == "" {
		return license.DefaultPolicy(), nil
	}
	data, err := readFile(c.Scan.LicensePolicy, maxPolicy)
	if err != nil {
		return nil, err
	}
	return license.ParsePolicy(c.Scan.LicensePolicy, data)
}

// readFile reads a file that somebody named, up to a number of bytes.
func readFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, unreadable(path, err)
	case !info.Mode().IsRegular():
		return nil, failure.Errorf(failure.Failed, "%s is no regular file", ui.Escape(path))
	case info.Size() > limit:
		return nil, failure.Errorf(failure.Failed, "%s has %s, more than %s", ui.Escape(path), ui.Bytes(info.Size()), ui.Bytes(limit))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, failure.Wrap(failure.Failed, err)
	}
	return data, nil
}

// completeNames completes the names that --asset gave.
func completeNames(a *app.App) func(context.Context, []string, string) []string {
	return func(ctx context.Context, _ []string, typed string) (words []string) {
		for _, id := range completeAssets(a)(ctx, nil, typed) {
			if name, ok := strings.CutPrefix(id, "named:"); ok {
				words = append(words, name)
			}
		}
		return words
	}
}

// completeAssets completes the name of something that was scanned.
func completeAssets(a *app.App) func(context.Context, []string, string) []string {
	return func(ctx context.Context, args []string, _ string) (words []string) {
		if len(args) > 0 {
			return nil
		}
		c, err := a.Config()
		if err != nil {
			return nil
		}
		store, err := a.State()
		if err != nil {
			return nil
		}
		_ = store.View(ctx, func(tx *state.Tx) error {
			list, err := ledgerOf(c).Assets(tx)
			for i := range list {
				words = append(words, list[i].ID)
			}
			return err
		})
		return words
	}
}
