package change

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/failure"
)

// maxSignature bounds a signature file of minisign, in bytes: four short lines.
const maxSignature = 8 << 10

// Signed is an approval that was given elsewhere: a signature of minisign over
// Message.
type Signed struct {
	Key  string `json:"key"`  // the public key, in minisign's base64
	Text string `json:"text"` // the signature file
}

var rawBase64 = base64.RawStdEncoding.Strict()

// Message returns what an approver elsewhere signs: all that was asked for, one
// line each, text in quotes. Nothing that happens to the change later alters it.
func (c *Change) Message() []byte {
	var b bytes.Buffer
	line := func(name, value string) { fmt.Fprintf(&b, "%s: %s\n", name, value) }
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
	b.WriteString("I approve this change. mobileops.change.approval/v1\n")
	line("id", c.ID)
	line("host", strconv.QuoteToASCII(c.Host))
	line("kind", string(c.Kind))
	line("name", strconv.QuoteToASCII(c.Name))
	line("version", strconv.QuoteToASCII(c.Version))
	line("blake2b", c.Digest)
	line("risk", string(c.Risk))
	line("emergency", strconv.FormatBool(c.Emergency))
	line("from", at(c.From))
	line("until", at(c.Until))
	line("requested", at(c.Requested))
	line("requester", strconv.QuoteToASCII(c.Requester.Describe()))
	line("reason", strconv.QuoteToASCII(c.Reason))
	line("rollback plan", strconv.QuoteToASCII(c.Rollback))
	return b.Bytes()
}

// verify checks the signature over a message.
func (s *Signed) verify(message []byte) error {
	key, err := parseMinisignKey(s.Key)
	if err != nil {
		return err
	}
	if len(s.Text) > maxSignature || !minisign.Verify(key, message, []byte(s.Text)) {
		return failure.New(failure.Untrustworthy, "the signature is not one of key "+KeyID(s.Key)+" over this change")
	}
	return nil
}

// approver returns who approved: whose account it was, or who signed.
func (a *Approval) approver() *Identity {
	if a.Signed == nil {
		return &a.By
	}
	return signer(a.Signed.Key)
}

func signer(key string) *Identity {
	i := &Identity{Keys: []string{key}}
	i.UID, i.LoginUID = -1, -1
	return i
}

// Approver returns who approved, for readers.
func (a *Approval) Approver(people *People) string {
	who := *a.approver()
	if names := people.personOf(&who); len(names) > 0 {
		who.Person = names[0]
	}
	return who.Describe()
}

// parseMinisignKey reads the base64 of a public key, as it stands on the second
// line of its file.
func parseMinisignKey(text string) (k minisign.PublicKey, err error) {
	if raw, err := base64.StdEncoding.Strict().DecodeString(text); err != nil || base64.StdEncoding.EncodeToString(raw) != text {
		return k, errors.New("not a public key of minisign")
	}
	err = k.UnmarshalText([]byte(text))
	return k, err
}

// findSigner returns the signature as one of somebody whom the file of people
// names.
func (p *People) findSigner(text, message []byte) (*Signed, error) {
	if len(text) > maxSignature {
		return nil, failure.Errorf(failure.Untrustworthy, "%d bytes are no signature of minisign", len(text))
	}
	var s minisign.Signature
	if err := s.UnmarshalText(bytes.TrimRight(text, "\r\n")); err != nil {
		return nil, failure.Errorf(failure.Untrustworthy, "this is no signature of minisign: %w", err)
	}
	if p == nil {
		return nil, failure.Hint(failure.New(failure.NotReady, "nobody is known whose signature counts"), "name people and their keys in a file, and the file in the configuration: change.people")
	}
	id := fmt.Sprintf("%016X", s.KeyID)
	var wrong error
	for _, person := range p.list {
		for _, key := range person.Keys {
			if strings.HasPrefix(key, "SHA256:") || KeyID(key) != id {
				continue
			}
			signed := &Signed{Key: key, Text: strings.TrimRight(string(text), "\r\n") + "\n"}
			if wrong = signed.verify(message); wrong == nil {
				return signed, nil
			}
		}
	}
	if wrong != nil {
		return nil, failure.Hint(wrong, "sign what mobileops change show ID --message prints, byte for byte")
	}
	return nil, failure.Errorf(failure.NotAllowed, "key %s is of nobody whom the file of people names", id)
}

// ReadSignature reads a signature file of minisign.
func ReadSignature(path string) ([]byte, error) {
	// Without O_NONBLOCK, opening a FIFO waits for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Errorf(failure.Usage, "there is no signature %s", path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, failure.Errorf(failure.Usage, "%s is not a regular file", path)
	}
	return io.ReadAll(io.LimitReader(f, maxSignature+1))
}
