package trust

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// tokenTool is the program of OpenSC that speaks PKCS #11. Loading a module
// into this process would take cgo.
const tokenTool = "pkcs11-tool"

// pinVariable hands over the PIN: the arguments of a process are seen by
// everybody on a host, its environment only by its user and root.
const pinVariable = "MOBILEOPS_TOKEN_PIN"

// maxToolMessage is the longest message, in bytes, that pkcs11-tool of OpenSC
// 0.23 has a token sign with EDDSA: it reads one buffer, calls C_Sign, and for
// more calls C_SignUpdate, which answers CKR_OPERATION_NOT_INITIALIZED. What a
// signature of a package signs is shorter always.
const maxToolMessage = 1024

// tokenSigner has a PKCS #11 token sign.
type tokenSigner struct {
	uri    *tokenURI
	tool   string
	pin    []byte
	id     string // CKA_ID of the key in hexadecimal
	public PublicKey
}

// openToken finds a key on a token and reads its public half.
func openToken(ctx context.Context, spec string, password func() ([]byte, error)) (Signer, error) {
	uri, err := parseTokenURI(spec)
	if err != nil {
		return nil, err
	}
	tool, err := exec.LookPath(tokenTool)
	if err != nil {
		return nil, failure.Hint(failure.Errorf(failure.NotReady, "%s is needed to sign with a token: %w", tokenTool, err), "apt install opensc")
	}
	s := &tokenSigner{uri: uri, tool: tool}
	if s.pin, err = uri.pin(password); err != nil {
		return nil, err
	}
	// Public keys are readable without a PIN on most tokens, and a wrong PIN
	// that is not tried does not count.
	login := false
	if err = s.find(ctx, login); failure.KindOf(err) == failure.NotReady {
		login = true
		err = s.find(ctx, login)
	}
	if err != nil {
		return nil, err
	}
	text, err := s.run(ctx, login, nil, "--read-object", "--type", "pubkey", "--id", s.id)
	if err != nil {
		return nil, err
	}
	if s.public, err = parseTokenKey(text); err != nil {
		return nil, failure.Errorf(failure.Failed, "%s: the public key of the token: %w", s, err)
	}
	return s, nil
}

// parseTokenKey reads what pkcs11-tool writes of a public key: PEM, or by other
// versions the same in DER.
func parseTokenKey(text []byte) (PublicKey, error) {
	if len(text) > 0 && text[0] == 0x30 { // SEQUENCE
		return publicFromPKIX("PUBLIC KEY", text)
	}
	return ParsePublicKey(text)
}

// find finds the CKA_ID of the one key that the URI names. When it signs,
// pkcs11-tool chooses by that alone, and ignores a label.
func (s *tokenSigner) find(ctx context.Context, login bool) error {
	text, err := s.call(ctx, login, "--list-objects", "--type", "pubkey")
	if err != nil {
		return err
	}
	var ids []string
	for _, key := range parseObjects(text) {
		if (s.uri.object == "" || key.label == s.uri.object) && (s.uri.id == nil || key.id == hex.EncodeToString(s.uri.id)) {
			ids = append(ids, key.id)
		}
	}
	switch see := "see what is there: " + tokenTool + " --list-objects --type pubkey"; {
	case len(ids) == 0:
		return failure.Hint(failure.Errorf(failure.NotReady, "%s: there is no such public key", s), see)
	case len(ids) > 1:
		return failure.Hint(failure.Errorf(failure.Usage, "%s: %d keys are called so; name one by id=%%01 as well", s, len(ids)), see)
	case ids[0] == "":
		return failure.Hint(failure.Errorf(failure.NotReady, "%s: the key has no CKA_ID", s), "give both halves one: "+tokenTool+" --set-id")
	}
	s.id = ids[0]
	return nil
}

// tokenObject is an object of a token, as pkcs11-tool lists it.
type tokenObject struct{ label, id string }

// parseObjects reads what pkcs11-tool --list-objects prints: a line of what
// each object is, and its attributes in lines that are indented.
func parseObjects(text []byte) (list []tokenObject) {
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		if line != "" && !strings.HasPrefix(line, " ") {
			list = append(list, tokenObject{})
			continue
		}
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if len(list) == 0 {
			continue
		}
		switch last := &list[len(list)-1]; name {
		case "label":
			last.label = strings.TrimSpace(value)
		case "ID":
			last.id = strings.ToLower(strings.TrimSpace(value))
		}
	}
	return list
}

func (s *tokenSigner) Public() PublicKey { return s.public }

func (s *tokenSigner) String() string { return s.uri.String() }

func (s *tokenSigner) Sign(ctx context.Context, message []byte) ([]byte, error) {
	signature, err := s.run(ctx, true, message, "--sign", "--mechanism", "EDDSA", "--id", s.id)
	if err != nil && len(message) > maxToolMessage && failure.KindOf(err) == failure.Failed {
		err = failure.Hint(err, fmt.Sprintf("%s signs at most %d bytes, and this is a message of %d: let a program sign, as exec:PROGRAM", tokenTool, maxToolMessage, len(message)))
	}
	if err != nil {
		return nil, err
	}
	return proved(s, message, signature)
}

// run calls pkcs11-tool for a message and returns what it made of it.
func (s *tokenSigner) run(ctx context.Context, login bool, message []byte, do ...string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "mobileops-token-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "out")
	do = append(do, "--output-file", out)
	if message != nil {
		in := filepath.Join(dir, "in")
		if err := os.WriteFile(in, message, 0o600); err != nil {
			return nil, err
		}
		do = append(do, "--input-file", in)
	}
	if _, err := s.call(ctx, login, do...); err != nil {
		return nil, err
	}
	b, err := readRegular(out, maxAnswer)
	if err != nil {
		return nil, failure.Errorf(failure.Failed, "%s: nothing came from the token: %w", s, err)
	}
	return b, nil
}

// call calls pkcs11-tool and returns what it printed. A PIN is given once:
// tokens lock themselves after a few wrong ones.
func (s *tokenSigner) call(ctx context.Context, login bool, do ...string) ([]byte, error) {
	args := append(s.uri.args(), do...)
	if login {
		args = append(args, "--login", "--pin", "env:"+pinVariable)
	}
	cmd := exec.CommandContext(ctx, s.tool, args...)
	if login {
		cmd.Env = append(cmd.Environ(), pinVariable+"="+string(s.pin))
	}
	printed, err := call(cmd, nil)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, s.explain(err)
	}
	return printed, nil
}

// explain gives the failures of pkcs11-tool that have a remedy their kind.
func (s *tokenSigner) explain(err error) error {
	var e *programError
	if !errors.As(err, &e) {
		return err
	}
	for _, known := range []struct {
		said, hint string
		kind       failure.Kind
	}{
		{"CKR_PIN_INCORRECT", "tokens lock themselves after a few wrong PINs", failure.NotAllowed},
		{"CKR_PIN_LOCKED", "unlock the token as its maker says", failure.NotAllowed},
		{"CKR_PIN_LEN_RANGE", "tokens lock themselves after a few wrong PINs", failure.NotAllowed},
		{"No slot with token named", "see what is there: " + tokenTool + " --list-token-slots", failure.NotReady},
		{"Failed to load pkcs11 module", "name the module of the token with ?module-path=/path/to/module.so", failure.NotReady},
		{"rivate key not found", "see what is there: " + tokenTool + " --list-objects --login", failure.NotReady},
	} {
		if strings.Contains(e.stderr, known.said) {
			return failure.Hint(failure.Errorf(known.kind, "%s: %w", s, err), known.hint)
		}
	}
	return failure.Errorf(failure.Failed, "%s: %w", s, err)
}
