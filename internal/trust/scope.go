package trust

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

const scopeSchema = "mobileops.update-key/v1"

// maxScope bounds how many names or channels a key is limited to.
const maxScope = 64

// Scope says which packages a key may vouch for. The zero Scope is all.
type Scope struct {
	Names    []string // of packages; empty: all
	Channels []string // empty: all
}

// All reports whether the scope limits nothing.
func (s Scope) All() bool { return len(s.Names) == 0 && len(s.Channels) == 0 }

// Check returns what is wrong with the words of s.
func (s Scope) Check() error {
	if len(s.Names) > maxScope || len(s.Channels) > maxScope {
		return fmt.Errorf("a key is limited to at most %d names and %d channels", maxScope, maxScope)
	}
	for _, name := range s.Names {
		if err := CheckName(name); err != nil {
			return err
		}
	}
	for _, channel := range s.Channels {
		if err := CheckChannel(channel); err != nil {
			return err
		}
	}
	return nil
}

// allows returns why the key of that id may not vouch for r.
func (s Scope) allows(id string, r Release) error {
	const hint = "if it should: remove the key and add it again with mobileops update key add"
	if len(s.Names) > 0 && !slices.Contains(s.Names, r.Name) {
		return refuse(CodeKeyScope, hint, "it is signed as %s by the key %s, which is trusted only for %s", r.Name, id, strings.Join(s.Names, ", "))
	}
	if len(s.Channels) > 0 && !slices.Contains(s.Channels, r.Channel) {
		return refuse(CodeKeyScope, hint, "it is signed for the channel %s by the key %s, which is trusted only for %s", r.Channel, id, strings.Join(s.Channels, ", "))
	}
	return nil
}

// scopeFile is the form of the file that limits a key.
type scopeFile struct {
	Schema   string   `yaml:"schema"`
	Names    []string `yaml:"names,omitempty,flow"`
	Channels []string `yaml:"channels,omitempty,flow"`
}

// parseScope reads the file that limits a key. A file that limits nothing is
// refused: whoever wrote it meant to.
func parseScope(text []byte) (Scope, error) {
	var f scopeFile
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return Scope{}, err
	}
	if f.Schema != scopeSchema {
		return Scope{}, fmt.Errorf("its schema is %.80q, not %q", f.Schema, scopeSchema)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return Scope{}, errors.New("there is something after its first document")
	}
	s := Scope{Names: f.Names, Channels: f.Channels}
	if s.All() {
		return s, errors.New("it limits the key neither to names nor to channels")
	}
	return s, s.Check()
}

func (s Scope) file() ([]byte, error) {
	return yaml.Marshal(scopeFile{scopeSchema, s.Names, s.Channels})
}
