package trust

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
)

// maxTokenURI bounds the URI of a key on a token, in bytes.
const maxTokenURI = 4 << 10

// tokenURI is what of an RFC 7512 URI can be told to pkcs11-tool. An attribute
// that cannot be is refused rather than ignored: without it another key might be
// meant.
type tokenURI struct {
	spec          string
	token, object string
	id            []byte // CKA_ID
	slot          string // number of the slot
	module        string // path; "": that of OpenSC
	pinSource     string // path; "": ask
}

func (u *tokenURI) String() string { return u.spec }

// parseTokenURI reads "pkcs11:token=ops;object=update-key?module-path=/a.so&pin-source=/b".
func parseTokenURI(spec string) (*tokenURI, error) {
	u := &tokenURI{spec: spec}
	if len(spec) > maxTokenURI {
		return nil, failure.Errorf(failure.Usage, "the URI of a key is longer than %d bytes", maxTokenURI)
	}
	path, query, _ := strings.Cut(strings.TrimPrefix(spec, pkcs11Scheme), "?")
	seen := make(map[string]bool)
	for _, part := range []struct{ text, separator string }{{path, ";"}, {query, "&"}} {
		if part.text == "" {
			continue
		}
		for _, attribute := range strings.Split(part.text, part.separator) {
			name, value, _ := strings.Cut(attribute, "=")
			decoded, err := url.PathUnescape(value)
			if err == nil && seen[name] {
				err = errors.New("it is there twice")
			}
			if err == nil {
				seen[name] = true
				err = u.set(part.separator == "&", name, decoded)
			}
			if name == "pin-value" { // nothing of it may be shown
				return nil, failure.Hint(failure.New(failure.Usage, "a PIN does not belong into the URI, where everybody on this host sees it"),
					"put it into a file with mode 0600, and name that: pin-source=FILE")
			}
			if err != nil {
				return nil, failure.Errorf(failure.Usage, "%s: attribute %.80q: %w", spec, name, err)
			}
		}
	}
	if u.object == "" && u.id == nil {
		return nil, failure.Errorf(failure.Usage, "%s names no key: object=LABEL or id=%%01 is needed", spec)
	}
	return u, nil
}

func (u *tokenURI) set(query bool, name, value string) error {
	if value == "" || strings.ContainsRune(value, 0) {
		return errors.New("it has no value")
	}
	switch {
	case !query && name == "token":
		u.token = value
	case !query && name == "object":
		u.object = value
	case !query && name == "id":
		u.id = []byte(value)
	case !query && name == "slot-id":
		u.slot = value
	case !query && name == "type":
		if value != "private" {
			return fmt.Errorf("%.40q is no key to sign with", value)
		}
	case query && name == "module-path":
		if !filepath.IsAbs(value) {
			return errors.New("the path must be absolute")
		}
		u.module = value
	case query && name == "pin-source":
		u.pinSource = strings.TrimPrefix(value, "file:")
		if !filepath.IsAbs(u.pinSource) {
			return errors.New("it must be the absolute path of a file")
		}
	case query && name == "pin-value":
	default:
		return errors.New("it is not one of token, object, id, slot-id and type, or after ? of module-path and pin-source")
	}
	return nil
}

// args returns how pkcs11-tool is told of the token.
func (u *tokenURI) args() []string {
	var args []string
	add := func(flag, value string) {
		if value != "" {
			args = append(args, flag, value)
		}
	}
	add("--module", u.module)
	add("--token-label", u.token)
	add("--slot", u.slot)
	return args
}

// pin reads the PIN from where the URI says, or asks for it.
func (u *tokenURI) pin(password func() ([]byte, error)) ([]byte, error) {
	pin, err := []byte(nil), error(nil)
	if u.pinSource == "" {
		pin, err = password()
	} else {
		var private bool
		pin, private, err = readSecret(u.pinSource)
		if err == nil && !private {
			err = failure.Hint(failure.Errorf(failure.NotAllowed, "others than its owner may read or write %s", u.pinSource), "chmod 600 "+u.pinSource)
		}
		pin, _, _ = bytes.Cut(pin, []byte("\n"))
		pin = bytes.TrimSuffix(pin, []byte("\r"))
	}
	if err != nil {
		return nil, err
	}
	if len(pin) == 0 || bytes.IndexByte(pin, 0) >= 0 {
		return nil, failure.Errorf(failure.Usage, "the PIN of %s is empty, or has a zero byte", u)
	}
	return pin, nil
}
