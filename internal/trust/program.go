package trust

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// maxAnswer bounds what a program may print, in bytes.
const maxAnswer = 64 << 10

// programSigner has a program sign that the operator names: for keys in a
// cloud, or on a token that pkcs11-tool does not know. The program is called as
//
//	PROGRAM public  prints the public key, as a file of minisign or in PEM
//	PROGRAM sign    reads the message to its end, prints the 64 bytes of the signature
//
// and ends with status 0. What it says on standard error is part of the message
// when it does not.
type programSigner struct {
	path   string
	public PublicKey
}

func openProgram(ctx context.Context, path string) (Signer, error) {
	if !filepath.IsAbs(path) {
		return nil, failure.Errorf(failure.Usage, "%s%s: the path of the program must be absolute", execScheme, path)
	}
	s := &programSigner{path: path}
	text, err := call(exec.CommandContext(ctx, path, "public"), nil)
	if err != nil {
		return nil, err
	}
	if s.public, err = ParsePublicKey(text); err != nil {
		return nil, failure.Errorf(failure.Failed, "%s public printed no public key: %w", path, err)
	}
	return s, nil
}

func (s *programSigner) Public() PublicKey { return s.public }

func (s *programSigner) String() string { return execScheme + s.path }

func (s *programSigner) Sign(ctx context.Context, message []byte) ([]byte, error) {
	signature, err := call(exec.CommandContext(ctx, s.path, "sign"), message)
	if err != nil {
		return nil, err
	}
	return proved(s, message, signature)
}

// programError says that a program did not do what it was called for.
type programError struct {
	name   string
	stderr string
	err    error
}

func (e *programError) Error() string {
	said := strings.Join(strings.Fields(e.stderr), " ")
	if said == "" {
		return e.name + ": " + e.err.Error()
	}
	return e.name + ": " + e.err.Error() + ": " + said
}

func (e *programError) Unwrap() error { return e.err }

// call runs a program and returns what it printed. One that takes its time, such
// as a token that waits to be touched, is waited for until the context ends.
func call(cmd *exec.Cmd, input []byte) ([]byte, error) {
	var out, said limited
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &said
	cmd.WaitDelay = 5 * time.Second // for children of the program that keep its output open
	err := cmd.Run()
	name := filepath.Base(cmd.Path)
	switch {
	case err == nil && out.over:
		return nil, failure.Errorf(failure.Failed, "%s printed more than %d bytes", name, maxAnswer)
	case err == nil:
		return out.kept.Bytes(), nil
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) { // it, or what its first line names
		return nil, failure.Hint(failure.Errorf(failure.NotReady, "%s cannot be run: %w", name, err), "the program must be there, and executable")
	}
	return nil, failure.Wrap(failure.Failed, &programError{name, said.kept.String(), err})
}

// limited keeps the first maxAnswer bytes of what is written to it. It has no
// ReadFrom, by which io.Copy would go around the limit.
type limited struct {
	kept bytes.Buffer
	over bool
}

func (l *limited) Write(p []byte) (int, error) {
	room := maxAnswer - l.kept.Len()
	if len(p) > room {
		l.over = true
	}
	l.kept.Write(p[:min(len(p), room)])
	return len(p), nil
}
