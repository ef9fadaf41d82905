package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/update/pack"
)

// Kinds of generations.
const (
	Adopted = "adopted" // the tree that was there before
	Updated = "update"  // made by a package
	Backup  = "backup"  // a copy of the tree as it was
)

// Generation describes one tree. Times are in UTC.
type Generation struct {
	Schema  string    `json:"schema"`
	Number  int       `json:"number"`
	Kind    string    `json:"kind"`
	Created time.Time `json:"created"`
	By      string    `json:"by,omitempty"`     // who asked for it
	Change  string    `json:"change,omitempty"` // the id of the change that allowed it
	Base    int       `json:"base"`             // the generation it was made from; 0: none
	Origin  *Origin   `json:"package,omitempty"`
	// Packages are all whose content is in the tree, by name.
	Packages map[string]Origin `json:"packages,omitempty"`
	Manifest *pack.Manifest    `json:"package_manifest,omitempty"` // of Origin
	Config   []string          `json:"config,omitempty"`           // patterns of configuration, of all packages
	Data     []string          `json:"data,omitempty"`             // directories that are links to data/, of all packages
	Stats    Stats             `json:"stats"`
	Settled  []Settled         `json:"config_changes,omitempty"` // what became of configuration
	Seen     map[string]string `json:"config_seen,omitempty"`    // digests of what it was merged with
	Edited   []string          `json:"edited,omitempty"`         // files of packages that were changed in the base, and are as packaged here
	Left     []string          `json:"left_behind,omitempty"`    // what the base had beside packages and is not here

	Current bool   `json:"-"`
	Staged  bool   `json:"-"` // was never current
	Pinned  *Pin   `json:"-"` // kept by prune
	Damaged string `json:"-"` // why it cannot be read
}

// Origin is the package that a tree, or a part of it, came from.
type Origin struct {
	Name     string    `json:"name"`
	Version  string    `json:"version"`
	Sequence uint64    `json:"sequence"`
	Channel  string    `json:"channel"`
	Expires  time.Time `json:"expires,omitzero"`
	Digest   string    `json:"digest"`        // BLAKE2b-512 of the package file, in hexadecimal digits
	Key      string    `json:"key,omitempty"` // id of the key that vouched for it
	From     string    `json:"from"`          // where it was got
}

// Stats count what a generation is made of. Sizes are in bytes.
type Stats struct {
	Files     int   `json:"files"`
	Bytes     int64 `json:"bytes"`
	NewFiles  int   `json:"new_files"` // whose content was not there before
	NewBytes  int64 `json:"new_bytes"`
	Links     int   `json:"symlinks"`
	Dirs      int   `json:"directories"`
	Config    int   `json:"config_files"`
	Local     int   `json:"local_files"` // of no package
	Conflicts int   `json:"conflicts"`
	SetID     int   `json:"setid_files,omitempty"` // with setuid or setgid bits
}

// Pin says why a generation is kept.
type Pin struct {
	Reason string    `json:"reason,omitempty"`
	By     string    `json:"by"`
	At     time.Time `json:"at"`
}

const generationSchema = "mobileops.update.generation/v1"

// maxDescription bounds generation.json, in bytes.
const maxDescription = 32 << 20

// Generation reads what is known of generation n: ErrMissing when there is none.
func (s *Store) Generation(n int) (*Generation, error) {
	dir := s.generation(n)
	path := filepath.Join(dir, nameGeneration)
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(dir); err == nil {
			return nil, s.damaged(n, "it has no "+nameGeneration)
		}
		if current, err := s.Current(); err == nil && current == n {
			return nil, s.damaged(n, "it is current, and gone")
		}
		return nil, fmt.Errorf("%w: %d", ErrMissing, n)
	} else if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxDescription {
		return nil, s.damaged(n, path+" is no file, or too large")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	g := new(Generation)
	if err := json.Unmarshal(data, g); err != nil || g.Schema != generationSchema || g.Number != n {
		return nil, s.damaged(n, fmt.Sprintf("%s: it does not describe generation %d", path, n))
	}
	if _, err := os.Lstat(s.Tree(n)); errors.Is(err, fs.ErrNotExist) {
		return nil, s.damaged(n, "its tree is gone")
	}
	current, err := s.Current()
	if err != nil {
		return nil, err
	}
	g.look(dir, current)
	return g, nil
}

// look says how the generation stands, whether or not its description can be read.
func (g *Generation) look(dir string, current int) {
	g.Current = current == g.Number
	if _, err := os.Lstat(filepath.Join(dir, nameStaged)); err == nil {
		g.Staged = !g.Current
	}
	if data, err := os.ReadFile(filepath.Join(dir, namePinned)); err == nil {
		g.Pinned = new(Pin)
		_ = json.Unmarshal(data, g.Pinned) // a pin that cannot be read keeps as well
	}
}

// damaged is what is wrong with generation n. A current one is to be left, since
// nothing can be made from it.
func (s *Store) damaged(n int, what string) error {
	err := fmt.Errorf("generation %d: %w: %s", n, ErrDamaged, what)
	if current, readErr := s.Current(); readErr != nil || current != n {
		return err
	}
	numbers, readErr := s.Numbers()
	for _, other := range slices.Backward(numbers) {
		if other == n {
			continue
		}
		if _, bad := s.Generation(other); bad == nil && readErr == nil {
			return failure.Hint(err, fmt.Sprintf("it is current: go to one that is whole, such as mobileops rollback --to %d, then apply the package again", other))
		}
	}
	return failure.Hint(err, fmt.Sprintf("it is current, and no other is whole: restore %s from a backup", s.dir))
}

// write puts the description into the directory of the generation. It is durable
// with what syncs the filesystem later.
func (g *Generation) write(dir string) error {
	data, err := g.encode()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, nameGeneration), data, 0o644)
}

func (g *Generation) encode() ([]byte, error) {
	data, err := json.MarshalIndent(g, "", " ")
	return append(data, '\n'), err
}

// Pin keeps generation n from Prune, whatever its age. A nil pin lets it go
// again.
func (t *Session) Pin(n int, p *Pin) error {
	if _, err := t.Generation(n); err != nil && !(p == nil && errors.Is(err, ErrDamaged)) { // what is damaged can be let go
		return err
	}
	path := filepath.Join(t.generation(n), namePinned)
	if p == nil {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return explain(err)
		}
		return explain(durable.SyncDir(t.generation(n)))
	}
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return explain(durable.WriteFile(path, append(data, '\n'), 0o644))
}
