package plugin

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/signing"
	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/plugin/source"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type indexOptions struct {
	key          string
	passwordFile string
	serial       uint64
	expires      string
}

func newIndex(a *app.App) *cobra.Command {
	var o indexOptions
	cmd := a.Command(app.Spec{
		Use:   "index DIR --key KEY [--expires WHEN]",
		Short: "Make a signed index of the packages in a directory, for any web server",
		Long: `Make a signed index of the packages in a directory, for any web server: index.json
and its signature, with which hosts find them by name. Copy the directory there, and
name it in plugin.indexes on the hosts.

An index is used until it expires, so that nobody can keep news from a host for
longer: make it anew in time, also when nothing changed. Every package is proved
before it gets into the index, by KEY or a key that is trusted here.

` + signing.Forms,
		Example: `
mobileops plugin index ./public --key release.key
15 1 * * * builder mobileops plugin index /srv/plugins --key /etc/release.key --expires 7d --quiet   # cron: hosts notice when it is held back
`,
		Args: cobra.ExactArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the index is there, and signed"},
			{Code: 4, Text: "the password is wrong, or others may read a key that is not encrypted"},
			{Code: 5, Text: "a package is not to be trusted, or the index before cannot be read; nothing was written"},
			{Code: 7, Text: "there is no such directory, key or token, or a program that is needed is missing"},
		},
		Files:   []string{"DIR/index.json, DIR/index.json.minisig: the index", keyFiles, "state.db in the state directory: who signed what"},
		Audited: true,
		Run:     func(ctx context.Context, args []string) error { return runIndex(ctx, a, &o, args[0]) },
		Complete: func(_ context.Context, args []string, _ string) []string {
			if len(args) > 0 {
				return nil
			}
			return app.Dirs()
		},
	})
	fs := cmd.Flags()
	fs.StringVar(&o.key, "key", "", "sign it with `KEY` (required)")
	fs.StringVar(&o.passwordFile, "password-file", "", "the password of the key, or the PIN of its token, is the first line of `FILE`")
	fs.StringVar(&o.expires, "expires", "30d", "it is not used any more after `WHEN`: a span such as 7d, or a date")
	fs.Uint64Var(&o.serial, "serial", 0, "its serial `NUMBER`; without it one more than that of the index before")
	signing.Complete(a, cmd, "key")
	app.CompleteFiles(cmd, "password-file")
	app.CompleteValues(cmd, "expires", "7d", "30d", "90d")
	app.CompleteValues(cmd, "serial")
	return cmd
}

// indexDocument is the document of plugin index.
type indexDocument struct {
	Schema  string          `json:"schema"`
	File    string          `json:"file"`
	FileB64 []byte          `json:"file_b64,omitempty"` // present when the path is not valid UTF-8
	Serial  uint64          `json:"serial"`
	Expires time.Time       `json:"expires"`
	Key     string          `json:"key"`
	Plugins []source.Plugin `json:"plugins"`
}

func runIndex(ctx context.Context, a *app.App, o *indexOptions, dir string) error {
	if o.key == "" {
		return app.UsageError("--key is needed: which key signs (make one: mobileops update key generate)")
	}
	now := time.Now()
	expires, err := until(o.expires, now)
	if err != nil {
		return err
	}
	if st, err := os.Stat(dir); err != nil {
		return signing.Named(err)
	} else if !st.IsDir() {
		return app.UsageError("%s is not a directory", dir)
	}
	keys, err := openKeys(a)
	if err != nil {
		return err
	}
	signer, err := signing.Open(ctx, a, o.key, o.passwordFile)
	if err != nil {
		return err
	}
	doc, err := source.MakeIndex(ctx, dir, source.PublishOptions{
		Signer: signer, Serial: o.serial, Expires: expires, Now: now,
		Describe: func(ctx context.Context, path string) (source.Described, error) {
			return described(ctx, path, either{trust.Pinned(signer.Public()), keys})
		},
	})
	if err != nil {
		return reword(err)
	}
	path := filepath.Join(dir, source.IndexName)
	a.SetResult("%s, number %d, signed by %s", path, doc.Serial, signer.Public().ID())
	out := &indexDocument{Schema: "mobileops.plugin.index/v1", File: path, FileB64: lossless(path), Serial: doc.Serial, Expires: doc.Expires, Key: signer.Public().ID(), Plugins: doc.Plugins}
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(out)
	}
	versions := 0
	for _, p := range doc.Plugins {
		versions += len(p.Versions)
	}
	return say(a.Streams, "%s: number %d with %s in %s, signed by key %s, until %s", ui.Escape(path), doc.Serial, ui.Plural(int64(len(doc.Plugins)), "plugin", "plugins"),
		ui.Plural(int64(versions), "version", "versions"), out.Key, doc.Expires.Format(time.RFC3339))
}

// either trusts what one of two sets of keys does.
type either struct{ first, second pack.Verifier }

// Verifier implements pack.Verifier.
func (e either) Verifier(signature []byte) (*trust.Verifier, error) {
	v, err := e.first.Verifier(signature)
	if trust.CodeOf(err) != trust.CodeWrongKey {
		return v, err
	}
	return e.second.Verifier(signature)
}

// described proves a package, every file of it, and says what it is.
func described(ctx context.Context, path string, keys pack.Verifier) (d source.Described, err error) {
	pkg, m, err := openProved(path, keys)
	if err == nil {
		defer pkg.Close()
		if err = m.CheckPackaged(); err == nil {
			err = pkg.Prove(ctx)
		}
	}
	if err != nil {
		return d, fmt.Errorf("%s: %w", path, err)
	}
	return source.Described{Name: m.Name, Version: m.Version, Sequence: pkg.Release.Sequence, Summary: m.Summary, Licence: m.Licence, MinVersion: m.MinVersion}, nil
}
