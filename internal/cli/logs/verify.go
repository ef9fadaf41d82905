package logs

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/logs/store"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newVerify(a *app.App) *cobra.Command {
	var opts verifyOptions
	cmd := a.Command(app.Spec{
		Use:   "verify [--public-key FILE] [--seal FILE]",
		Short: "Prove that stored logs are as they were collected",
		Long: `Prove that stored logs are as they were collected.

Every segment is read and compared with the Merkle log, whose growth is sealed
with the signing key of this host every few minutes. What was altered, removed
or inserted is named. What retention let go, and what was merged, is in the
Merkle log and no problem.

Records that were collected since the last seal can be cut off without trace;
logs.seal_every says how long that is at most. Who has the signing key of the
host can write another history: keep the public key, and seals, elsewhere. The
newest seal is part of --output json; with --seal the store must be one that
grew from what it seals.`,
		Example: `
mobileops logs verify
mobileops logs verify --output json | jq .newest > /media/usb/seal.json   # runbook: keep a seal elsewhere
mobileops logs verify --public-key /media/usb/audit.pub --seal /media/usb/seal.json
0 4 * * * root mobileops logs verify --quiet             # cron: mails only what is wrong
`,
		Statuses: []app.Status{
			{Code: 0, Text: "everything is as it was collected"},
			{Code: 5, Text: "something was altered, removed or inserted; it is named"},
			{Code: 6, Text: "something could not be read"},
			{Code: 7, Text: "nothing was collected yet"},
		},
		Files: []string{storeFiles, stateFile, "/var/lib/mobileops/keys/audit.pub: the key, without --public-key"},
		Run:   func(ctx context.Context, _ []string) error { return runVerify(ctx, a, &opts) },
	})
	opts.addFlags(cmd.Flags())
	app.CompleteFiles(cmd, "public-key", "pub", "pem")
	app.CompleteFiles(cmd, "seal", "json")
	return cmd
}

type verifyOptions struct {
	key   string
	seals []string
}

func (o *verifyOptions) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&o.key, "public-key", "", "check signatures with the key in `FILE` instead of the one of this host")
	fs.StringArrayVar(&o.seals, "seal", nil, "the store must have grown from what the seal in `FILE` seals; may be repeated")
}

func runVerify(ctx context.Context, a *app.App, o *verifyOptions) error {
	outside, err := readSeals(o.seals)
	if err != nil {
		return err
	}
	s, _, err := openStore(a)
	if err != nil {
		return err
	}
	if empty, err := s.Empty(ctx); err != nil {
		return err
	} else if empty {
		return failure.Hint(failure.New(failure.NotReady, "nothing was collected yet"), "collect the logs of this host: mobileops logs collect --once")
	}
	keyFile := o.key
	if keyFile == "" {
		chain, err := a.Audit()
		if err != nil {
			return err
		}
		_, keyFile = chain.KeyFiles()
	}
	pub, err := audit.ReadPublicKey(keyFile)
	if err != nil {
		return err
	}
	var done, total atomic.Int64
	bar := a.Streams.Progress("reading segments", func() ui.Counters {
		return ui.Counters{Bytes: done.Load(), TotalBytes: total.Load()}
	})
	r, err := s.Verify(ctx, store.VerifyOptions{Key: pub, Outside: outside, Progress: func(d, t int64) { done.Store(d); total.Store(t) }})
	bar.Stop()
	if r == nil {
		return err
	}
	if perr := printVerified(a.Streams, r); perr != nil {
		return perr
	}
	if err != nil {
		return err
	}
	if k := r.Kind(); k != failure.None {
		return failure.Silent(k)
	}
	return nil
}

// maxSeal is how large a file with a seal may be, in bytes.
const maxSeal = 64 << 10

// readSeals reads seals that were kept elsewhere.
func readSeals(files []string) ([]*store.Seal, error) {
	var list []*store.Seal
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, failure.Wrap(failure.Usage, err)
		}
		data, err := io.ReadAll(io.LimitReader(f, maxSeal))
		f.Close()
		if err != nil {
			return nil, err
		}
		seal := new(store.Seal)
		if err := json.Unmarshal(data, seal); err != nil {
			return nil, failure.Errorf(failure.Usage, "%s: %w", name, err)
		}
		list = append(list, seal)
	}
	return list, nil
}

func printVerified(s *ui.Streams, r *store.VerifyReport) error {
	if s.Format != ui.Text {
		return s.Document(struct {
			Schema string `json:"schema"`
			*store.VerifyReport
		}{"mobileops.logs.verify/v1", r})
	}
	theme := s.Theme()
	if len(r.Problems) > 0 {
		table := s.NewTable(ui.Column{Title: "WHAT"}, ui.Column{Title: "WHERE", Min: 16, KeepEnd: true}, ui.Column{Title: "DETAIL", Min: 20})
		for _, p := range r.Problems {
			table.Row(ui.Cell{Text: p.What, Style: theme.Bad}, p.Name, p.Detail)
		}
		if err := table.Print(); err != nil {
			return err
		}
	}
	if s.Quiet {
		return nil
	}
	for _, n := range r.Notes {
		fmt.Fprintln(s.Out, "note: "+ui.Escape(n))
	}
	line := fmt.Sprintf("%s with %s (%s), %s", ui.Plural(r.Segments, "segment", "segments"), ui.Plural(r.Records, "record", "records"), ui.Bytes(r.Bytes), ui.Plural(r.Seals, "seal", "seals"))
	if len(r.Problems) == 0 {
		line = theme.Good("intact") + ": " + line
	} else {
		line = theme.Bad(ui.Plural(int64(len(r.Problems)), "problem", "problems")) + " in " + line
	}
	if r.Newest != nil {
		line += ", the last of " + localTime(r.Newest.Time)
	}
	if r.Unsealed > 0 {
		line += fmt.Sprintf("; %s since are not sealed yet", ui.Plural(int64(r.Unsealed), "record of the log", "records of the log"))
	}
	_, err := fmt.Fprintln(s.Out, line)
	return err
}
