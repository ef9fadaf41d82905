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

func newHead(a *app.App) *cobra.Command {
	var opts headOptions
	cmd := a.Command(app.Spec{
		Use:   "head [--sign [--force]]",
		Short: "Show where the audit chain ends, or sign it now",
		Long: `Show where the audit chain ends, or sign it now.

A head is signed every 64 records or hour without being asked. Sign one before
the head is copied to another host. --sign refuses while the last signed head
speaks of records that the chain does not have; when that is because an older
state was restored on purpose, --force signs and keeps the old head as evidence
beside the new one.`,
		Example: `
mobileops audit head
mobileops audit head --sign && scp /var/log/mobileops/audit-head.json vault:heads/
`,
		Statuses: []app.Status{
			{Code: 4, Text: "the state belongs to another user"},
			{Code: 5, Text: "the chain does not end where it says, or the key is gone; nothing was signed"},
			{Code: 7, Text: "the chain is empty, so there is nothing to sign"},
			{Code: 8, Text: "another process holds the state for longer than --lock-timeout"},
		},
		Files:   files(),
		Audited: true,
		Run:     func(ctx context.Context, _ []string) error { return runHead(ctx, a, opts) },
	})
	opts.addFlags(cmd.Flags())
	return cmd
}

type headOptions struct{ sign, force bool }

func (o *headOptions) addFlags(fs *pflag.FlagSet) {
	fs.BoolVar(&o.sign, "sign", false, "sign the head now and write it outside of the state")
	fs.BoolVar(&o.force, "force", false, "sign although the last signed head speaks of records that are not there")
}

// headReport is the document of mobileops audit head --output json.
type headReport struct {
	Schema    string            `json:"schema"`
	Sequence  uint64            `json:"sequence"` // 0: the chain is empty
	Hash      string            `json:"hash,omitempty"`
	Signed    *audit.SignedHead `json:"signed,omitempty"` // the last signed head
	HeadFile  string            `json:"head_file,omitempty"`
	PublicKey string            `json:"public_key"`     // where the public key is
	Kept      string            `json:"kept,omitempty"` // where --force put the head that was there
}

func runHead(ctx context.Context, a *app.App, opts headOptions) error {
	if opts.force && !opts.sign {
		a.OnlyLooked()
		return app.UsageError("--force goes with --sign")
	}
	chain, err := a.Audit()
	if err != nil {
		return err
	}
	r := headReport{Schema: "mobileops.audit.head/v1", HeadFile: chain.HeadFile()}
	_, r.PublicKey = chain.KeyFiles()
	head, signed, err := chain.Head(ctx)
	if !opts.sign || head.Sequence == 0 {
		a.OnlyLooked()
	}
	if err != nil {
		return err
	}
	r.Signed = signed
	if r.Sequence = head.Sequence; r.Sequence > 0 {
		r.Hash = head.Hash.String()
	}
	if opts.sign && r.Sequence == 0 {
		return failure.New(failure.NotReady, "the audit chain is empty, so there is no head to sign")
	}
	if opts.sign {
		if r.Signed, r.Kept, err = chain.Sign(ctx, opts.force); err != nil {
			return err
		}
		r.Sequence, r.Hash = r.Signed.Sequence, r.Signed.Hash
		a.SetResult("signed record %d", r.Sequence)
	}
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(r)
	}
	return printHead(a.Streams, r)
}

func printHead(s *ui.Streams, r headReport) error {
	var lines []string
	switch {
	case s.Quiet && r.Kept == "":
		return nil
	case r.Sequence == 0:
		lines = append(lines, "the audit chain is empty: nothing was recorded yet")
	default:
		lines = append(lines, fmt.Sprintf("record    %d", r.Sequence), "hash      "+r.Hash)
	}
	if h := r.Signed; h != nil {
		lines = append(lines,
			fmt.Sprintf("signed    record %d at %s", h.Sequence, h.Time.Local().Format(time.DateTime)),
			"head      "+r.HeadFile,
			"key       "+r.PublicKey)
	}
	if r.Kept != "" {
		lines = append(lines, "evidence  "+r.Kept)
	}
	for _, l := range lines {
		if _, err := fmt.Fprintln(s.Out, ui.Printable(l)); err != nil {
			return err
		}
	}
	return nil
}
