package update

import (
	"context"
	"errors"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/cli/signing"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/update/repo"
	"github.com/spf13/cobra"
)

// Files of a repository, as help says them.
const (
	repoPublic  = "DIR/metadata/, DIR/targets/: what hosts see, for any web server or a USB stick"
	repoPrivate = "DIR/.publisher/: where the keys are, and what will be published next"
)

func newRepo(a *app.App) *cobra.Command {
	return a.Group("repo", "Run a repository of packages, with files and any web server",
		newRepoInit(a), newRepoAdd(a), newRepoPublish(a), newRepoRollout(a), newRepoRemove(a), newRepoRotateKey(a), newRepoShow(a), newRepoList(a))
}

// repoKeys opens the keys of a repository, each once, so that a password is
// asked for once.
type repoKeys struct {
	a            *app.App
	passwordFile string
	opened       map[string]trust.Signer
}

func newRepoKeys(a *app.App, passwordFile string) *repoKeys {
	return &repoKeys{a: a, passwordFile: passwordFile, opened: map[string]trust.Signer{}}
}

func (k *repoKeys) open(ctx context.Context, spec string) (trust.Signer, error) {
	spec, err := lasting(spec)
	if err != nil {
		return nil, err
	}
	if s := k.opened[spec]; s != nil {
		return s, nil
	}
	s, err := signing.Open(ctx, k.a, spec, k.passwordFile)
	if err == nil {
		k.opened[spec] = s
	}
	return s, err
}

// lasting makes a specification one that means the same from any directory:
// the repository remembers it.
func lasting(spec string) (string, error) {
	if strings.HasPrefix(spec, "pkcs11:") || strings.HasPrefix(spec, "exec:") || spec == "" {
		return spec, nil
	}
	return filepath.Abs(spec)
}

func (k *repoKeys) all(ctx context.Context, specs []string) ([]trust.Signer, error) {
	var list []trust.Signer
	for _, spec := range specs {
		s, err := k.open(ctx, spec)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// of returns what Publisher asks for: the keys of a role that were given, or
// those that the repository remembers. Of several that it remembers, such as
// root keys of two people, those that are here will do.
func (k *repoKeys) of(ctx context.Context, p *repo.Publisher, given map[string][]string) func(string) ([]trust.Signer, error) {
	return func(role string) ([]trust.Signer, error) {
		if len(given[role]) > 0 {
			return k.all(ctx, given[role])
		}
		specs, err := p.KeySpecs(role)
		if err != nil {
			return nil, err
		}
		var list []trust.Signer
		var errs []error
		for _, spec := range specs {
			s, err := k.open(ctx, spec)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			list = append(list, s)
		}
		if len(list) == 0 {
			return nil, errors.Join(errs...)
		}
		return list, nil
	}
}

// roleKeyFlags are --root-key, --targets-key and so on.
type roleKeyFlags struct {
	root                         []string
	targets, snapshot, timestamp string
	passwordFile                 string
}

func (o *roleKeyFlags) addFlags(a *app.App, cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVar(&o.root, "root-key", nil, "sign the root with `KEY`; may be repeated")
	fs.StringVar(&o.targets, "targets-key", "", "sign the list of packages with `KEY`")
	fs.StringVar(&o.snapshot, "snapshot-key", "", "sign the snapshot with `KEY`")
	fs.StringVar(&o.timestamp, "timestamp-key", "", "sign the timestamp with `KEY`")
	fs.StringVar(&o.passwordFile, "password-file", "", "the password of the keys, or the PIN of their token, is the first line of `FILE`")
	app.CompleteFiles(cmd, "password-file")
	for _, f := range []string{"root-key", "targets-key", "snapshot-key", "timestamp-key"} {
		signing.Complete(a, cmd, f)
	}
}

// specs are the keys that were given, by role.
func (o *roleKeyFlags) specs() map[string][]string {
	m := map[string][]string{"root": o.root}
	for role, spec := range map[string]string{"targets": o.targets, "snapshot": o.snapshot, "timestamp": o.timestamp} {
		if spec != "" {
			m[role] = []string{spec}
		}
	}
	return m
}

// lifetime reads a span for how long something is good.
func lifetime(flag, value string) (time.Duration, error) {
	if value == "" {
		return 0, nil
	}
	d, ok := moment.Span(value)
	if !ok || d < time.Minute || d > 20*365*24*time.Hour {
		return 0, app.UsageError("bad value %q for --%s: a span from a minute to 20 years, such as 7d", value, flag)
	}
	return d, nil
}

// repoDocument is the document of every mobileops update repo command; what a
// command has nothing to say about is left out.
type repoDocument struct {
	Schema       string        `json:"schema"`
	Directory    string        `json:"directory"`
	DirectoryB64 []byte        `json:"directory_b64,omitempty"` // present when the path is not valid UTF-8
	Root         *rootRecord   `json:"root,omitempty"`
	Roles        []roleRecord  `json:"roles,omitempty"`
	Packages     []offerRecord `json:"packages,omitempty"`
	Signed       []string      `json:"signed,omitempty"`  // roles that were signed anew
	Added        []string      `json:"added,omitempty"`   // paths that are new or changed
	Removed      []string      `json:"removed,omitempty"` // paths that went
	Due          []dueRecord   `json:"due,omitempty"`
	OldKey       string        `json:"old_key,omitempty"` // TUF key IDs
	NewKey       string        `json:"new_key,omitempty"`
	Unusable     []badRecord   `json:"unusable,omitempty"`
}

type rootRecord struct {
	Path    string `json:"path"` // of the first root.json, which hosts pin
	PathB64 []byte `json:"path_b64,omitempty"`
	SHA256  string `json:"sha256"`
}

type roleRecord struct {
	Name      string      `json:"name"`
	Version   int64       `json:"version"`
	Expires   time.Time   `json:"expires"`
	Expired   bool        `json:"expired"`
	Threshold int         `json:"threshold,omitempty"`
	Lifetime  int64       `json:"lifetime_seconds,omitempty"`
	Keys      []keyRecord `json:"keys,omitempty"`
}

type keyRecord struct {
	ID     string `json:"id"`     // of TUF
	Public string `json:"public"` // ed25519, in hexadecimal digits
}

type dueRecord struct {
	Role    string    `json:"role"`
	Expires time.Time `json:"expires"`
	Urgent  bool      `json:"urgent"`
	Reason  string    `json:"reason"`
}

type badRecord struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

// offerRecord is a package of a repository in JSON.
type offerRecord struct {
	Name       string        `json:"name"`
	Version    string        `json:"version"`
	Sequence   uint64        `json:"sequence"`
	Channel    string        `json:"channel"`
	Expires    time.Time     `json:"expires"`
	Path       string        `json:"path"` // below targets/
	Length     int64         `json:"length"`
	SHA256     string        `json:"sha256,omitempty"`
	Severity   string        `json:"severity,omitempty"`
	Published  time.Time     `json:"published,omitzero"`
	Advisories []string      `json:"advisories,omitempty"`
	Rollout    rolloutRecord `json:"rollout"`
	Signed     bool          `json:"signed"`
	State      string        `json:"state,omitempty"`
}

type rolloutRecord struct {
	Percent float64 `json:"percent"`
	Salt    string  `json:"salt"`
}

func newOfferRecord(t repo.Target, state string) offerRecord {
	return offerRecord{
		Name: t.Release.Name, Version: t.Release.Version, Sequence: t.Release.Sequence, Channel: t.Release.Channel, Expires: t.Release.Expires,
		Path: t.Path, Length: t.Length, SHA256: t.SHA256(), Severity: t.Severity, Published: t.Published, Advisories: t.Advisories,
		Rollout: rolloutRecord{t.Rollout.Percent, t.Rollout.Salt}, Signed: t.Signed, State: state,
	}
}

func newRoleRecords(roles []repo.Role) []roleRecord {
	var list []roleRecord
	for _, r := range roles {
		list = append(list, roleRecord{Name: r.Name, Version: r.Version, Expires: r.Expires, Expired: time.Now().After(r.Expires)})
	}
	return list
}

func newRepoDocument(verb, dir string) *repoDocument {
	return &repoDocument{Schema: "mobileops.update.repo." + verb + "/v1", Directory: dir, DirectoryB64: lossless(dir)}
}

func newRootRecord(path, sum string) *rootRecord {
	return &rootRecord{Path: path, PathB64: lossless(path), SHA256: sum}
}

func newBadRecords(list []repo.Unusable) []badRecord {
	var out []badRecord
	for _, u := range list {
		out = append(out, badRecord{u.Path, u.Reason})
	}
	return out
}

// repoDir completes the directory of a repository.
func repoDir(_ context.Context, args []string, _ string) []string {
	if len(args) > 0 {
		return nil
	}
	return app.Dirs()
}

// repoPackages completes the directory of a repository, then a name and a
// version in it.
func repoPackages(_ context.Context, args []string, _ string) []string {
	if len(args) == 0 {
		return app.Dirs()
	}
	if len(args) > 2 {
		return nil
	}
	r, err := repo.OpenPublisher(args[0], nil).Report()
	if err != nil {
		return nil
	}
	var words []string
	for _, o := range r.Offers {
		switch {
		case len(args) == 1:
			words = append(words, o.Release.Name)
		case o.Release.Name == args[1]:
			words = append(words, o.Release.Version+"\t"+percent(o.Rollout.Percent)+" of the hosts")
		}
	}
	return words
}

// share is a flag for a part of the hosts in percent, as 10, 2.5 or 10%.
type share float64

func (p *share) String() string { return strconv.FormatFloat(float64(*p), 'f', -1, 64) }

func (p *share) Type() string { return "percent" }

func (p *share) Set(text string) error {
	n, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "%")), 64)
	if err != nil || !(n >= 0 && n <= 100) {
		return errors.New("write 0 to 100, such as 10 or 2.5")
	}
	*p = share(n)
	return nil
}

func percent(p float64) string { return strconv.FormatFloat(p, 'f', -1, 64) + " %" }

// repoError gives a kind to errors of files; those of a repository have one.
func repoError(err error) error {
	if repo.CodeOf(err) != "" {
		return err
	}
	return signing.Named(err)
}
