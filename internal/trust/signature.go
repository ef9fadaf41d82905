package trust

import (
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/failure"
)

// maxSignature bounds what is read as a signature file, in bytes: two lines of
// base64 and two of comments, each of which minisign itself bounds at 8 KiB or
// less.
const maxSignature = 16 << 10

// SignaturePath returns where the signature of a package lies.
func SignaturePath(pkg string) string { return pkg + ".minisig" }

// ReadSignature reads the signature file that lies beside a package. When there
// is none the error is an *Error with CodeUnsigned.
func ReadSignature(pkg string) ([]byte, error) {
	path := SignaturePath(pkg)
	b, err := readRegular(path, maxSignature)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, About(pkg, unsigned())
	}
	if errors.Is(err, errTooLarge) || errors.Is(err, errNotRegular) {
		return nil, About(pkg, refuse(CodeMalformedSignature, "get package and signature again", "%s is not a signature: %w", path, err))
	}
	return b, err
}

func unsigned() error {
	return refuse(CodeUnsigned, "its signature belongs beside it, with the ending .minisig: get both, or sign it: mobileops update sign",
		"it is not signed")
}

// parseSignature reads a signature file of minisign, exactly: four lines, the
// last of which may lack its end.
func parseSignature(text []byte) (*minisign.Signature, error) {
	if len(text) == 0 {
		return nil, unsigned()
	}
	bad := func(line int, what string) error {
		return refuse(CodeMalformedSignature, "get package and signature again", "its signature is malformed at line %d: %s", line, what)
	}
	if len(text) > maxSignature {
		return nil, bad(1, "it is too long")
	}
	lines := strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")
	if len(lines) == 5 && lines[4] == "" {
		lines = lines[:4]
	}
	if len(lines) != 4 {
		return nil, bad(min(len(lines), 5), "a signature has four lines")
	}
	for _, n := range []int{1, 3} {
		if _, ok := decodeLine(lines[n]); !ok {
			return nil, bad(n+1, "not base64")
		}
	}
	for n, prefix := range map[int]string{0: "untrusted comment: ", 2: "trusted comment: "} {
		if !strings.HasPrefix(lines[n], prefix) {
			return nil, bad(n+1, "it does not begin with \""+prefix+"\"")
		}
	}
	s := new(minisign.Signature)
	if err := s.UnmarshalText([]byte(strings.Join(lines, "\n"))); err != nil {
		return nil, bad(2, strings.TrimPrefix(err.Error(), "minisign: "))
	}
	if s.Algorithm != minisign.HashEdDSA {
		return nil, refuse(CodeLegacySignature, "sign it again: mobileops update sign, or minisign -S -H",
			"its signature is of the legacy algorithm of minisign, which does not hash the package first")
	}
	return s, nil
}

// decodeLine decodes one line of base64. Of the several forms in which base64
// writes the same bytes only the usual one is taken: otherwise a signature could
// be changed without being noticed.
func decodeLine(line string) ([]byte, bool) {
	raw, err := base64.StdEncoding.Strict().DecodeString(line)
	return raw, err == nil && base64.StdEncoding.EncodeToString(raw) == line
}

var (
	errTooLarge   = failure.New(failure.Untrustworthy, "it is too large")
	errNotRegular = failure.New(failure.Untrustworthy, "it is not a regular file")
)

// readRegular reads a regular file of at most limit bytes. It does not wait for
// the other end of a FIFO.
func readRegular(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readOpen(f, limit)
}

func readOpen(f *os.File, limit int64) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errNotRegular
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = errTooLarge
	}
	return b, err
}
