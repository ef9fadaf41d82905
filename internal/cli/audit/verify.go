package audit

import (
	"context"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newVerify(a *app.App) *cobra.Command {
	var opts verifyOptions
	cmd := a.Command(app.Spec{
		Use:   "verify [--head FILE] [--public-key FILE]",
		Short: "Prove the audit chain, or name the first record that cannot be trusted",
		Long: `Prove the audit chain, or name the first record that cannot be trusted.

Each record's hash covers the record before it; heads of the chain are signed
every 64 records or hour, and the last one is kept outside of the state, which
shows a tail that was cut off.

Who can write the state, the key and the head on this host can forge all three.
A copy of audit-head.json and audit.pub on another host cannot be forged from
here: give them with --head and --public-key.`,
		Example: `
mobileops audit verify
mobileops audit verify --head /mnt/safe/audit-head.json --public-key /mnt/safe/audit.pub
41 * * * * root mobileops audit verify --quiet   # from cron: a mail only when it is broken
`,
		Statuses: []app.Status{
			{Code: 0, Text: "it is whole, or empty"},
			{Code: 4, Text: "the state belongs to another user"},
			{Code: 5, Text: "it is broken; the first record that cannot be trusted is named"},
			{Code: 6, Text: "it holds together, but a head or key to compare with is missing"},
			{Code: 8, Text: "another process holds the state for longer than --lock-timeout"},
		},
		Files: files(),
		Run:   func(ctx context.Context, _ []string) error { return runVerify(ctx, a, opts) },
	})
	opts.addFlags(cmd.Flags())
	app.CompleteFiles(cmd, "head", "json")
	app.CompleteFiles(cmd, "public-key", "pub", "pem")
	return cmd
}

type verifyOptions struct{ head, publicKey string }

func (o *verifyOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.head, "head", "", "compare with the signed head in `FILE`")
	fs.StringVar(&o.publicKey, "public-key", "", "check signatures with the public key in `FILE`")
}

// verifyReport is the document of mobileops audit verify --output json.
type verifyReport struct {
	Schema string `json:"schema"`
	Whole  bool   `json:"whole"` // nothing is wrong and nothing is missing
	audit.Verification
}

func runVerify(ctx context.Context, a *app.App, opts verifyOptions) error {
	chain, err := a.Audit()
	if err != nil {
		return err
	}
	v, verdict := chain.Verify(ctx, audit.VerifyOptions{HeadFile: opts.head, PublicKey: opts.publicKey})
	if verdict != nil && v.Breach == nil && failure.KindOf(verdict) != failure.Incomplete {
		return verdict // it could not be read, or not to its end
	}
	if a.Streams.Format != ui.Text {
		err = a.Streams.Document(verifyReport{"mobileops.audit.verify/v1", verdict == nil, v})
	} else {
		err = printVerification(a.Streams, v)
	}
	if err != nil {
		return err
	}
	return failure.Silent(failure.KindOf(verdict))
}

func printVerification(s *ui.Streams, v audit.Verification) error {
	theme := s.Theme()
	var lines []string
	if b := v.Breach; b != nil {
		at := fmt.Sprintf("record %d", b.Sequence)
		if b.Time != nil {
			at += " of " + b.Time.Local().Format(time.RFC3339)
		}
		lines = append(lines, fmt.Sprintf("%s  %s: %s", theme.Bad("broken"), at, ui.Printable(b.What)))
	}
	for _, u := range v.Unproven {
		lines = append(lines, fmt.Sprintf("%s  %s", theme.Warn("unproven"), ui.Printable(u)))
	}
	if !s.Quiet && v.Breach == nil {
		lines = append(lines, describe(theme, v)...)
	}
	for _, l := range lines {
		if _, err := fmt.Fprintln(s.Out, l); err != nil {
			return err
		}
	}
	return nil
}

func describe(theme ui.Theme, v audit.Verification) []string {
	if v.Records == 0 {
		return []string{"the audit chain is empty: nothing was recorded yet"}
	}
	word := theme.Good("whole")
	if len(v.Unproven) > 0 {
		word = theme.Warn("consistent")
	}
	lines := []string{
		fmt.Sprintf("%s  %s, from %s to %s", word, ui.Plural(int64(v.Records), "record", "records"), v.First.Local().Format(time.DateTime), v.Last.Local().Format(time.DateTime)),
		"head      " + v.Head,
	}
	if v.PublicKey != "" {
		lines = append(lines, fmt.Sprintf("signed    %s valid under key %s; %s since the last", ui.Plural(int64(v.Signatures), "head", "heads"), v.PublicKey, ui.Plural(int64(v.Unsigned), "record", "records")))
	}
	if v.Outside != nil {
		lines = append(lines, fmt.Sprintf("outside   %s says %s, and they are there", ui.Printable(v.HeadFile), ui.Plural(int64(v.Outside.Sequence), "record", "records")))
	}
	return lines
}
