package update

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update"
	"github.com/spf13/cobra"
)

type applyOptions struct {
	signature      string
	stageOnly      bool
	allowDowngrade bool
	change         string
	prune          bool
	now            bool
	dryRun         bool
}

func (o *applyOptions) addFlags(a *app.App, cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&o.signature, "signature", "", "the signature is in `FILE` (default PKG.minisig)")
	fs.BoolVar(&o.allowDowngrade, "allow-downgrade", false, "apply it although a newer one was accepted; needs --change with a change of kind downgrade")
	fs.StringVar(&o.change, "change", "", "the approved change `ID` that allows it")
	fs.BoolVar(&o.prune, "prune", false, "afterwards remove generations beyond those that update.keep leaves")
	app.CompleteFiles(cmd, "signature", "minisig")
	completeChanges(a, cmd)
}

// trialStatuses are those of commands that make a generation live.
var trialStatuses = []app.Status{
	{Code: 3, Text: "it failed: a hook, the health check, the disk. What was current before is current"},
	{Code: 4, Text: "not allowed: no approved change, or this is not root"},
	{Code: 6, Text: "it is live, and configuration that was edited here is in conflict with what the package brings: it was kept, and the new one is beside it as NAME.mobileops-new"},
}

// otherUpdate is said of commands that change the store.
const otherUpdate = "another update is running, or another process holds the state"

func newApply(a *app.App) *cobra.Command {
	var o applyOptions
	cmd := a.Command(app.Spec{
		Use:   "apply PKG|NAME[@VERSION] [flags]",
		Short: "Apply a package: wholly, or not at all",
		Long: `Apply a package: wholly, or not at all.

PKG is a file, .tar.zst or .tar.gz, with its minisign signature beside it as
PKG.minisig. NAME is a package of the repository that is configured
(update.repository); it is downloaded first.

The signature is proved by the keys in update.keys, and nothing is live before the
last byte was proved. What did not change is linked, not copied. A generation
becomes current by one rename; then its hook and its health check decide whether
it stays. When they fail, or mobileops dies meanwhile, the host goes back by
itself. Configuration that was edited here is merged with what the package brings.

--dry-run proves and refuses as if it were applied, and ends with the status that
this would give if hooks and health check passed: these are not run. Whether there
is room is not looked at. A package of the repository is downloaded all the same.`,
		Example: `
mobileops update apply security-patches.tar.zst
mobileops update apply security-patches.tar.zst --dry-run        # what would it change?
mobileops update apply platform                                  # the latest one of the repository
mobileops update apply platform-2.4.1.tar.zst --stage-only && mobileops update activate
mobileops update apply hotfix.tar.zst --change C-7Q2FM3          # runbook: with the change that was approved
30 3 * * 0 root mobileops update apply platform --prune --quiet  # cron: mails when it failed
`,
		Args: cobra.ExactArgs(1),
		Statuses: append([]app.Status{
			{Code: 0, Text: "it is live, or staged with --stage-only, or would be with --dry-run"},
			{Code: 1, Text: "the repository has no such package for this host"},
			{Code: 5, Text: "the package is not to be trusted: signature, key, expiry, downgrade, channel, or what is in it. Nothing was changed"},
			{Code: 7, Text: "no key is trusted here yet, no repository is configured, or the store and the installation are on different filesystems"},
			{Code: 8, Text: "the repository has nothing newer, of which --quiet says nothing; or " + otherUpdate},
		}, trialStatuses...),
		Files:    []string{targetFile, storeFiles, keyFiles, stateFile},
		Audited:  true,
		Complete: completePackages(a),
		Run:      func(ctx context.Context, args []string) error { return runApply(ctx, a, &o, args[0]) },
	})
	o.addFlags(a, cmd)
	cmd.Flags().BoolVar(&o.stageOnly, "stage-only", false, "lay the generation out and leave the current one current: mobileops update activate makes it live")
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "change nothing: prove the package and show what would be new, changed and removed, configuration in conflict, and hooks")
	cmd.Flags().BoolVar(&o.now, "now", false, "apply it although a staged rollout has not come to this host")
	return cmd
}

// isFile says whether an argument means a file and not the name of a package.
func isFile(arg string) bool {
	if strings.Contains(arg, "/") || strings.Contains(arg, ".tar") {
		return true
	}
	st, err := os.Stat(arg)
	return err == nil && st.Mode().IsRegular()
}

func runApply(ctx context.Context, a *app.App, o *applyOptions, arg string) error {
	if err := a.Govern("update.require_change"); err != nil {
		return err
	}
	e, c, err := newEngine(a, "update apply")
	if err != nil {
		return err
	}
	r := update.Request{Path: arg, Signature: o.signature, StageOnly: o.stageOnly, AllowDowngrade: o.allowDowngrade, Change: o.change}
	if o.prune {
		r.Retain = c.Update.Keep
	}
	if !isFile(arg) {
		if o.signature != "" {
			return app.UsageError("--signature is for a file, and %q is the name of a package in the repository", arg)
		}
		if err := fetch(ctx, a, e, c, o, arg, &r); err != nil {
			return err
		}
	}
	if o.dryRun {
		return foresee(ctx, a, e, r)
	}
	return apply(ctx, a, e, r, "apply")
}

// apply applies a package and says what became of it.
func apply(ctx context.Context, a *app.App, e *update.Engine, r update.Request, verb string) error {
	n := newNotice(a, "update "+verb)
	var files, bytes atomic.Int64
	n.Read = func(f, b int64) { files.Store(f); bytes.Store(b) }
	bar := a.Streams.Progress("unpacking", func() ui.Counters { return ui.Counters{Files: files.Load(), Bytes: bytes.Load()} })
	phase := n.Phase
	n.Phase = func(words string) {
		if !strings.HasPrefix(words, "unpacking") {
			bar.Stop()
		}
		phase(words)
	}
	res, err := e.Apply(ctx, r, n)
	bar.Stop()
	return finish(a, e, verb, verb == "self", res, err)
}

// finish prints what became of making a generation live, and gives the error.
func finish(a *app.App, e *update.Engine, verb string, self bool, res *update.Result, err error) error {
	if res == nil {
		return noGeneration(err)
	}
	a.SetResult("%s", outcome(res))
	if perr := printResult(a, e.Store(), verb, self, res, err); perr != nil {
		return perr
	}
	if err != nil {
		return err
	}
	if verb == "rollback" { // what is gone back to is as it was left
		return nil
	}
	return conflicts(e.Store(), res)
}

// outcome says in one line what became of it.
func outcome(r *update.Result) string {
	g := r.Generation
	what := fmt.Sprintf("generation %d", g.Number)
	if g.Origin != nil {
		what += fmt.Sprintf(" (%s %s)", g.Origin.Name, g.Origin.Version)
	}
	switch {
	case r.Undone != "":
		return what + fmt.Sprintf(" was live and failed; generation %d is current again", r.From)
	case r.Live:
		return what + " is current"
	}
	return what + " is staged"
}
