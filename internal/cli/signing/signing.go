// Package signing is what commands that sign, or that trust who signs, have in
// common: which keys there are, how their passwords are asked for, and how Tab
// completes them.
package signing

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// Forms says in help which keys sign.
const Forms = `KEY is a file of mobileops update key generate or of minisign, an ed25519 key in
PEM (openssl genpkey -algorithm ed25519), a token as
pkcs11:token=ops;object=update-key?module-path=/usr/lib/softhsm/libsofthsm2.so,
or a program as exec:/path/to/program. A password or PIN is asked for, or read
from --password-file.`

// Open opens the key that signs, and asks for its password if it has one.
func Open(ctx context.Context, a *app.App, spec, passwordFile string) (trust.Signer, error) {
	return trust.OpenSigner(ctx, spec, func() ([]byte, error) {
		if passwordFile != "" {
			return ReadPassword(passwordFile)
		}
		question := "Password of " + spec + ":"
		if strings.HasPrefix(spec, "pkcs11:") {
			question = "PIN of " + spec + ":"
		}
		word, err := a.Streams.Password(ctx, ui.Escape(question), "--password-file")
		return []byte(word), err
	})
}

// Complete completes a flag that names a key to sign with.
func Complete(a *app.App, cmd *cobra.Command, flag string) {
	a.CompleteFlag(cmd, flag, func(_ context.Context, _ []string, typed string) []string {
		if typed != "" && (strings.HasPrefix("pkcs11:", typed) || strings.HasPrefix("exec:", typed)) {
			return []string{"pkcs11:", "exec:"}
		}
		return app.Files()
	})
}

// maxPassword bounds what is read as a password, in bytes.
const maxPassword = 1024

// ReadPassword reads the first line of a file.
func ReadPassword(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not hang a build
	if err != nil {
		return nil, Named(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxPassword+2))
	if err != nil {
		return nil, err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 || len(line) > maxPassword {
		return nil, app.UsageError("the first line of %s is empty, or longer than %d bytes", path, maxPassword)
	}
	return line, nil
}

// PublicKey reads a key that is given as the name of a file or as its text, in
// which there may be slashes.
func PublicKey(from string) (trust.PublicKey, error) {
	key, err := trust.ReadPublicKey(from)
	if errors.Is(err, fs.ErrNotExist) {
		if key, bad := trust.ParsePublicKey([]byte(from)); bad == nil {
			return key, nil
		}
	}
	return key, err
}

// Named gives the errors of opening a file that an operator named their kind.
func Named(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return failure.Wrap(failure.NotReady, err)
	case errors.Is(err, fs.ErrPermission):
		return failure.Wrap(failure.NotAllowed, err)
	}
	return err
}
