package integrity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newHistoryExport(a *app.App) *cobra.Command {
	return a.Command(app.Spec{
		Use:   "export DIR",
		Short: "Write the history as files that minisign verifies",
		Long: `Write the history as files that minisign verifies: N.json is record N,
N.json.minisig its signature, and mobileops.pub the public key that is in
force; keys that were in force before are called mobileops-KEYID.pub. DIR may
hold an earlier export of the same history, which then grows. A file that is
there and says something else stops it: one of the two histories is not true.`,
		Example: `
mobileops integrity history export /media/usb/web1
minisign -Vm 1.json -p mobileops.pub     # there, with Debian's minisign
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 5, Text: "the history cannot be trusted, or DIR holds another one; what fits is written"},
			{Code: 7, Text: "the history has no record yet"},
		},
		Files:    []string{stateFile, historyFile},
		Run:      func(ctx context.Context, args []string) error { return runHistoryExport(ctx, a, args[0]) },
		Complete: func(context.Context, []string, string) []string { return app.Dirs() },
	})
}

// historyExportReport is the document of integrity history export.
type historyExportReport struct {
	Schema  string `json:"schema"`
	Dir     string `json:"dir"`
	Records int    `json:"records"` // that are in DIR now
	Written int    `json:"written"` // files that were not there before
}

func runHistoryExport(ctx context.Context, a *app.App, dir string) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	chain, v, err := e.Past(ctx)
	if err != nil {
		return err
	}
	if chain.Len() == 0 && len(v.Problems) == 0 {
		return failure.Hint(failure.New(failure.NotReady, "the history has no record yet"), "take a baseline: mobileops integrity baseline")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	doc := historyExportReport{Schema: "mobileops.integrity.history.export/v1", Dir: dir}
	put := func(name string, data []byte) error {
		path := filepath.Join(dir, name)
		there, err := os.ReadFile(path)
		switch {
		case err == nil && bytes.Equal(there, data):
			return nil
		case err == nil:
			return failure.Errorf(failure.Untrustworthy, "%s says something else than this history: one of them is not true", path)
		case !errors.Is(err, fs.ErrNotExist):
			return failure.Wrap(failure.Failed, err)
		}
		doc.Written++
		return failure.Wrap(failure.Failed, durable.WriteFile(path, data, 0o644))
	}
	keys := map[string]bool{}
	err = chain.Records(func(r *history.Entry) error {
		name := fmt.Sprintf("%d.json", r.Counter)
		if err := put(name, r.Body); err != nil {
			return err
		}
		doc.Records++
		if r.Signer != v.Key && !keys[r.Signer] {
			keys[r.Signer] = true
			if err := put("mobileops-"+history.KeyID(r.Signer)+".pub", history.PublicKeyFile(r.Signer)); err != nil {
				return err
			}
		}
		if len(r.Signature) == 0 {
			return nil
		}
		return put(name+".minisig", r.Signature)
	})
	if err == nil && v.Key != "" {
		// The key in force may have changed since the last export.
		err = failure.Wrap(failure.Failed, durable.WriteFile(filepath.Join(dir, "mobileops.pub"), history.PublicKeyFile(v.Key), 0o644))
	}
	if err != nil {
		return err
	}
	if a.Streams.Format != ui.Text {
		err = a.Streams.Document(doc)
	} else if !a.Streams.Quiet {
		_, err = fmt.Fprintf(a.Streams.Out, "%s in %s, %s new; verify one: minisign -Vm %s -p %s\n",
			ui.Plural(int64(doc.Records), "record", "records"), ui.Escape(dir), ui.Plural(int64(doc.Written), "file is", "files are"),
			ui.Escape(filepath.Join(dir, "1.json")), ui.Escape(filepath.Join(dir, "mobileops.pub")))
	}
	if err != nil {
		return err
	}
	writeProblems(a.Streams.Err, a.Streams.Theme(), v.Problems)
	if len(v.Problems) > 0 {
		return failure.Silent(failure.Untrustworthy)
	}
	return nil
}
