package repo

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/trust"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Limits of what the metadata says about one package.
const (
	maxCustom     = 16 << 10 // bytes
	maxAdvisories = 256
	maxWord       = 128 // bytes of an advisory's id and of a salt
	maxPath       = 512 // bytes of the path of a target
)

// Severities are those that a package can have, mildest first. The empty one
// says nothing.
func Severities() []string { return []string{"low", "medium", "high", "critical"} }

// Target is a package in a repository.
type Target struct {
	Release    trust.Release
	Path       string // below targets/, without a digest in it
	Length     int64  // bytes
	Hashes     map[string][]byte
	Severity   string    // of the worst hole that it closes: one of Severities, or ""
	Published  time.Time // zero: not said
	Advisories []string  // such as CVE-2026-1234
	Rollout    Rollout
	Signed     bool // whether its minisign signature is in the repository, too
}

// Unusable is a target that is meant for mobileops and cannot be understood.
type Unusable struct {
	Path   string
	Reason string
}

// custom is what targets.json says of a package beside length and hashes,
// under the key "mobileops". Its numbers are whole: the canonical JSON that is
// signed has no others.
type custom struct {
	Name       string         `json:"name"`
	Version    string         `json:"version"`
	Sequence   uint64         `json:"sequence"`
	Channel    string         `json:"channel"`
	Expires    time.Time      `json:"expires"`
	Severity   string         `json:"severity,omitempty"`
	Published  time.Time      `json:"published,omitzero"`
	Advisories []string       `json:"advisories,omitempty"`
	Rollout    *customRollout `json:"rollout,omitempty"` // nil: for all
}

type customRollout struct {
	BasisPoints int    `json:"basis_points"` // hundredths of a percent, 0 to 10000
	Salt        string `json:"salt"`
}

// parseCustom reads the custom metadata of a target. found is false when it
// says nothing to mobileops; then the target is somebody else's.
func parseCustom(raw []byte) (c custom, found bool, err error) {
	if len(raw) > maxCustom {
		return c, true, fmt.Errorf("its custom metadata is larger than %d bytes", maxCustom)
	}
	if len(raw) == 0 {
		return c, false, nil
	}
	var outer struct {
		Mobileops json.RawMessage `json:"mobileops"`
	}
	if err := json.Unmarshal(raw, &outer); err != nil || len(outer.Mobileops) == 0 || string(outer.Mobileops) == "null" {
		return c, false, nil
	}
	if err := json.Unmarshal(outer.Mobileops, &c); err != nil {
		return c, true, fmt.Errorf("its custom metadata: %w", err)
	}
	return c, true, c.check()
}

func (c *custom) release() trust.Release {
	return trust.Release{Name: c.Name, Version: c.Version, Sequence: c.Sequence, Channel: c.Channel, Expires: c.Expires.UTC()}
}

func (c *custom) check() error {
	if err := c.release().Check(); err != nil {
		return err
	}
	if c.Severity != "" && !slices.Contains(Severities(), c.Severity) {
		return fmt.Errorf("the severity %.40q is none of %s", c.Severity, strings.Join(Severities(), ", "))
	}
	if y := c.Published.UTC().Year(); !c.Published.IsZero() && (y < 1970 || y > 9999) {
		return fmt.Errorf("it was published in the year %d", y)
	}
	if len(c.Advisories) > maxAdvisories {
		return fmt.Errorf("it has more than %d advisories", maxAdvisories)
	}
	for _, a := range c.Advisories {
		if !printable(a) {
			return fmt.Errorf("the advisory %.40q is not 1 to %d printable ASCII characters without spaces", a, maxWord)
		}
	}
	if r := c.Rollout; r != nil {
		if r.BasisPoints < 0 || r.BasisPoints > Positions {
			return fmt.Errorf("its rollout of %d hundredths of a percent is not one of 0 to %d", r.BasisPoints, Positions)
		}
		if !printable(r.Salt) {
			return fmt.Errorf("the salt %.40q is not 1 to %d printable ASCII characters without spaces", r.Salt, maxWord)
		}
	}
	return nil
}

func printable(s string) bool {
	return s != "" && len(s) <= maxWord && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (c *custom) encode() (*json.RawMessage, error) {
	b, err := json.Marshal(map[string]*custom{"mobileops": c})
	return (*json.RawMessage)(&b), err
}

// DefaultSalt is the salt of a release that was given none.
func DefaultSalt(r trust.Release) string { return r.Name + "-" + r.Version }

// validPath says what is wrong with the path of a target. It becomes part of a
// URL and of a name in a directory, so it has neither dots for directories nor
// anything that would have to be escaped.
func validPath(p string) error {
	if p == "" || len(p) > maxPath {
		return fmt.Errorf("the path is not 1 to %d characters", maxPath)
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == "" || strings.HasPrefix(part, ".") || len(part) > 180 {
			return fmt.Errorf("%.80q in the path is empty, hidden or too long", part)
		}
	}
	for i := 0; i < len(p); i++ {
		c := p[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._-+~:@/", c) >= 0) {
			return fmt.Errorf("the path has %q at byte %d", c, i)
		}
	}
	return nil
}

// packagesOf lists the packages of verified targets, by name and sequence.
func packagesOf(targets map[string]*metadata.TargetFiles) (list []Target, unusable []Unusable) {
	for p, f := range targets {
		t, found, err := targetOf(p, f)
		switch {
		case !found:
		case err != nil:
			unusable = append(unusable, Unusable{Path: p, Reason: err.Error()})
		default:
			_, t.Signed = targets[trust.SignaturePath(p)]
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b Target) int {
		if n := strings.Compare(a.Release.Name, b.Release.Name); n != 0 {
			return n
		}
		if a.Release.Sequence != b.Release.Sequence {
			if a.Release.Sequence < b.Release.Sequence {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Path, b.Path)
	})
	slices.SortFunc(unusable, func(a, b Unusable) int { return strings.Compare(a.Path, b.Path) })
	return list, unusable
}

func targetOf(p string, f *metadata.TargetFiles) (t Target, found bool, err error) {
	if f == nil || f.Custom == nil {
		return t, false, nil
	}
	c, found, err := parseCustom(*f.Custom)
	if err != nil || !found {
		return t, found, err
	}
	if err := validPath(p); err != nil {
		return t, true, err
	}
	if f.Length < 0 {
		return t, true, fmt.Errorf("its length is %d", f.Length)
	}
	t = Target{
		Release: c.release(), Path: p, Length: f.Length, Hashes: map[string][]byte{},
		Severity: c.Severity, Published: c.Published.UTC(), Advisories: c.Advisories,
		Rollout: Rollout{Percent: 100, Salt: DefaultSalt(c.release())},
	}
	if c.Rollout != nil {
		t.Rollout = Rollout{Percent: float64(c.Rollout.BasisPoints) / 100, Salt: c.Rollout.Salt}
	}
	for name, sum := range f.Hashes {
		t.Hashes[name] = sum
	}
	if _, err := digests(t.Hashes); err != nil {
		return t, true, err
	}
	return t, true, nil
}
