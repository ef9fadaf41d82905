package logs

import (
	"context"
	"fmt"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/seal"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newKey(a *app.App) *cobra.Command {
	return a.Group("key", "Make keys for stored logs, and change who can read them", newKeyGenerate(a), newKeyRewrap(a))
}

func newKeyGenerate(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "generate FILE",
		Short: "Make a key file with which logs are encrypted and read",
		Long: `Make a key file with which logs are encrypted and read.

Set logs.recipients to it, and what is collected from then on is encrypted;
set logs.identities to it where logs are searched. A key file can do both; with
age keys (age-keygen) a host can collect what it cannot read: its public key in
logs.recipients, the private one elsewhere. An existing file is never
overwritten. Keep a copy: without it what was encrypted is lost.`,
		Example: `
mobileops logs key generate /etc/mobileops/logs.key
mobileops logs collect --once    # with logs.recipients: /etc/mobileops/logs.key in the configuration
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the key file was made"},
			{Code: 3, Text: "it exists already, or cannot be written"},
		},
		Files:    []string{"FILE: 32 random bytes, mode 0600"},
		Audited:  true,
		Run:      func(_ context.Context, args []string) error { return runKeyGenerate(a, args[0]) },
		Complete: func(context.Context, []string, string) []string { return app.Files() },
	})
}

func runKeyGenerate(a *app.App, path string) error {
	key, err := seal.GenerateKeyFile(path)
	if err != nil {
		return err
	}
	a.SetResult("key %s", key.ID())
	if a.Streams.Quiet {
		return nil
	}
	_, err = fmt.Fprintf(a.Streams.Out, "made key %s in %s; keep a copy elsewhere\n", key.ID(), ui.Escape(path))
	return err
}

func newKeyRewrap(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "rewrap",
		Short: "Change who can read what is encrypted already",
		Long: `Change who can read what is encrypted already.

Every encrypted segment is wrapped for those in logs.recipients, and for nobody
else, with the keys in logs.identities. Only headers are written, so it takes
seconds for gigabytes; an interrupted run is finished by the next. Whoever kept
an old header together with an old key can still read: encrypt anew by
collecting anew if a key was stolen.`,
		Example: `
mobileops logs key rewrap                                # after a change of logs.recipients
`,
		Statuses: []app.Status{
			{Code: 0, Text: "all encrypted segments are wrapped for logs.recipients"},
			{Code: 4, Text: "the keys in logs.identities do not open a segment"},
			{Code: 7, Text: "logs.recipients or logs.identities is not set"},
		},
		Files:   []string{storeFiles, stateFile},
		Audited: true,
		Run:     func(ctx context.Context, _ []string) error { return runKeyRewrap(ctx, a) },
	})
}

func runKeyRewrap(ctx context.Context, a *app.App) error {
	s, c, err := openStore(a)
	if err != nil {
		return err
	}
	if c.Logs.Recipients == "" || c.Logs.Identities == "" {
		return failure.Hint(failure.New(failure.NotReady, "nobody is named who can read, or no key to open with"), "set logs.recipients and logs.identities in the configuration")
	}
	to, err := readRecipients(c.Logs.Recipients)
	if err != nil {
		return err
	}
	ids, err := seal.IdentityFile(c.Logs.Identities)
	if err != nil {
		return err
	}
	r, err := s.Rewrap(ctx, ids, to)
	a.SetResult("%d segments rewrapped", r.Segments)
	if r.Pending {
		a.Streams.Notice("mobileops: logs key rewrap: a collector is at work: what it has not made segments of is for the keys with which it was started (restart it, and rewrap again)")
	}
	if err != nil {
		return err
	}
	if a.Streams.Quiet {
		return nil
	}
	_, err = fmt.Fprintf(a.Streams.Out, "%s rewrapped\n", ui.Plural(int64(r.Segments), "segment", "segments"))
	return err
}
