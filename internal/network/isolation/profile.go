package isolation

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"go.yaml.in/yaml/v3"
)

// Profile is a set of options for isolation with a name: that of a file, or a
// built-in one.
type Profile struct {
	Description     string   `yaml:"description"`
	Allow           []string `yaml:"allow"` // as ParsePeer reads it
	Probe           []string `yaml:"probe"` // HOST:PORT
	Confirm         string   `yaml:"confirm"`
	DNS             bool     `yaml:"dns"`
	KeepEstablished bool     `yaml:"keep_established"`
	Strict          bool     `yaml:"strict"`
}

// maxProfile is the size of a profile in bytes.
const maxProfile = 1 << 20

// Profiles are the names that LoadProfile knows: the built-in one and those of
// files in dir.
func Profiles(dir string) []string {
	names := []string{"strict"}
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), ".yaml"); ok && name != "" && name != "strict" && !strings.Contains(name, ".") {
			names = append(names, name)
		}
	}
	return names
}

// LoadProfile returns the built-in profile "strict", or reads a YAML file: that of
// the path name, or NAME.yaml in dir when name is no path.
func LoadProfile(dir, name string) (p Profile, err error) {
	if name == "strict" {
		return Profile{Description: "neither DHCP nor router advertisements", Strict: true}, nil
	}
	path := name
	if !strings.ContainsAny(name, "/.") {
		path = filepath.Join(dir, name+".yaml")
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, failure.Hint(failure.Errorf(failure.Usage, "there is no profile %s", path), "give the path of a file, the name of one in "+dir+", or the built-in profile strict")
	}
	if err != nil {
		return p, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxProfile+1))
	if err != nil {
		return p, err
	}
	if len(data) > maxProfile {
		return p, failure.Errorf(failure.Usage, "profile %s: larger than %d bytes", name, maxProfile)
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&p); err != nil && !errors.Is(err, io.EOF) {
		return p, failure.Wrap(failure.Usage, fmt.Errorf("profile %s: %w", name, err))
	}
	return p, nil
}
