package update

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/signing"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type keyGenerateOptions struct {
	passwordFile string
	noPassword   bool
}

func newKeyGenerate(a *app.App) *cobra.Command {
	var opts keyGenerateOptions
	cmd := a.Command(app.Spec{
		Use:   "generate [NAME] [--password-file FILE | --no-password]",
		Short: "Make a key that signs packages: NAME.key, and NAME.pub for the hosts",
		Long: `Make a key that signs packages: NAME.key, and NAME.pub for the hosts. NAME is a
path without an ending, mobileops-update when it is not given. Files that exist
are never replaced.

NAME.key is encrypted by a password that is asked for, or read from
--password-file; encrypting takes a gigabyte of memory for some seconds. Whoever
has it can make packages that your hosts install: keep it on the machine that
signs, and a copy in a safe. The minisign tool reads both files.`,
		Example: `
mobileops update key generate release
mobileops update key add release.pub                      # on every host
mobileops update key generate ci --no-password            # a key for a build machine
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "both files are there"},
			{Code: 2, Text: "one of the files exists, or there is nobody to ask for a password; nothing was done"},
			{Code: 4, Text: "you may not write there"},
			{Code: 7, Text: "there is no such directory or password file"},
		},
		Files: []string{"NAME.key: the secret key, mode 0600", "NAME.pub: the public key"},
		Run: func(ctx context.Context, args []string) error {
			name := "mobileops-update"
			if len(args) > 0 {
				name = args[0]
			}
			return runKeyGenerate(ctx, a, &opts, name)
		},
		Complete: func(context.Context, []string, string) []string { return app.Files() },
	})
	fs := cmd.Flags()
	fs.StringVar(&opts.passwordFile, "password-file", "", "the password is the first line of `FILE`")
	fs.BoolVar(&opts.noPassword, "no-password", false, "do not encrypt the key: whoever reads its file can sign")
	app.CompleteFiles(cmd, "password-file")
	return cmd
}

// generatedKey is the document of update key generate.
type generatedKey struct {
	Schema    string `json:"schema"`
	ID        string `json:"id"`
	Key       string `json:"key"` // the public one, in minisign's base64
	Secret    string `json:"secret_file"`
	SecretB64 []byte `json:"secret_file_b64,omitempty"` // present when the path is not valid UTF-8
	Public    string `json:"public_file"`
	PublicB64 []byte `json:"public_file_b64,omitempty"`
	Encrypted bool   `json:"encrypted"`
}

func runKeyGenerate(ctx context.Context, a *app.App, o *keyGenerateOptions, name string) error {
	if o.noPassword && o.passwordFile != "" {
		return app.UsageError("give one of --password-file and --no-password")
	}
	secret, public := name+".key", name+".pub"
	for _, path := range []string{secret, public} { // before a password is asked for
		if _, err := os.Lstat(path); err == nil {
			return exists(path, "choose another NAME, or remove it if it is not in use anywhere")
		}
	}
	password, err := newPassword(ctx, a, o)
	if err != nil {
		return err
	}
	text, key, err := trust.SecretKeyFile(password)
	clear(password)
	if err != nil {
		return err
	}
	defer clear(text)
	// The public half first: killed in between, nothing is lost that was in use.
	if err := writeFresh(public, key.File(), 0o644, false); err != nil {
		return err
	}
	if err := writeFresh(secret, text, 0o600, false); err != nil {
		return errors.Join(err, os.Remove(public))
	}
	doc := &generatedKey{
		Schema: "mobileops.update.key.generate/v1", ID: key.ID(), Key: key.String(), Encrypted: !o.noPassword,
		Secret: secret, SecretB64: lossless(secret), Public: public, PublicB64: lossless(public),
	}
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(doc)
	}
	if a.Streams.Quiet {
		return nil
	}
	theme := a.Streams.Theme()
	for _, row := range [][2]string{{"Key", doc.Key}, {"ID", doc.ID}, {"Secret", secret}, {"Public", public}} {
		if _, err := fmt.Fprintf(a.Streams.Out, "%s %s\n", theme.Heading(fmt.Sprintf("%-6s", row[0])), ui.Escape(row[1])); err != nil {
			return err
		}
	}
	a.Streams.Notice("next, on every host that is to install what it signs: mobileops update key add %s", ui.Escape(public))
	return nil
}

// newPassword returns the password that a new key is encrypted with; nil: none.
func newPassword(ctx context.Context, a *app.App, o *keyGenerateOptions) ([]byte, error) {
	if o.noPassword {
		return nil, nil
	}
	if o.passwordFile != "" {
		return signing.ReadPassword(o.passwordFile)
	}
	const flags = "--password-file or --no-password"
	first, err := a.Streams.Password(ctx, "Password for the new key:", flags)
	if err != nil {
		return nil, err
	}
	again, err := a.Streams.Password(ctx, "The same again:", flags)
	if err != nil {
		return nil, err
	}
	switch {
	case first != again:
		return nil, app.UsageError("the two passwords differ; nothing was done")
	case first == "":
		return nil, failure.Hint(app.UsageError("the password is empty; nothing was done"), "--no-password makes a key without one")
	}
	return []byte(first), nil
}

// writeFresh writes a whole file that must not exist unless force is set.
func writeFresh(path string, data []byte, mode fs.FileMode, force bool) error {
	f, err := durable.Create(path, mode)
	if err != nil {
		return signing.Named(err)
	}
	defer f.Abort()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return commit(f, path, force)
}

// commit gives a written file its name, which must be free unless force is set.
func commit(f *durable.File, path string, force bool) error {
	if force {
		return f.Commit()
	}
	err := f.CommitNew()
	if errors.Is(err, fs.ErrExist) {
		return exists(path, "--force replaces it")
	}
	return err
}

// exists is the error about a file that is not replaced.
func exists(path, hint string) error {
	return failure.Hint(app.UsageError("%s exists already", path), hint)
}
