package update

import (
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/cli/moment"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/spf13/cobra"
)

// releaseOptions are the flags of whoever signs a package.
type releaseOptions struct {
	name, version string
	sequence      uint64
	channel       string
	expires       string
	passwordFile  string
	comment       string
}

func (o *releaseOptions) addFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&o.name, "name", "", "`NAME` of the package; that of its manifest when it has one")
	fs.StringVar(&o.version, "version", "", "its `VERSION`; that of its manifest when it has one")
	fs.Uint64Var(&o.sequence, "sequence", 0, "`NUMBER` of the release, greater than that of every earlier one; a date such as 2026112201 will do")
	fs.StringVar(&o.channel, "channel", "stable", "`CHANNEL` that it is for")
	fs.StringVar(&o.expires, "expires", "365d", "it cannot be installed any more after `WHEN`: a span such as 90d, or a date")
	fs.StringVar(&o.passwordFile, "password-file", "", "the password of the key, or the PIN of its token, is the first line of `FILE`")
	fs.StringVar(&o.comment, "comment", "", "put `TEXT` into the signature's untrusted comment, for people")
	app.CompleteValues(cmd, "name")
	app.CompleteValues(cmd, "version")
	app.CompleteValues(cmd, "sequence")
	app.CompleteValues(cmd, "channel", "stable")
	app.CompleteValues(cmd, "expires", "30d", "90d", "365d")
	app.CompleteFiles(cmd, "password-file")
	app.CompleteValues(cmd, "comment")
}

// identify settles name and version of a package: what its manifest says, and
// the flags where that is silent. They must not say two things.
func (o *releaseOptions) identify(name, version string) error {
	for _, f := range []struct {
		flag     string
		given    *string
		manifest string
		check    func(string) error
	}{{"name", &o.name, name, trust.CheckName}, {"version", &o.version, version, trust.CheckVersion}} {
		switch {
		case *f.given == "" && f.manifest == "":
			return app.UsageError("--%s is needed: the package has no manifest that says it", f.flag)
		case *f.given == "":
			*f.given = f.manifest
		case f.manifest != "" && *f.given != f.manifest:
			return app.UsageError("--%s is %q, and the manifest of the package says %q", f.flag, *f.given, f.manifest)
		}
		if err := f.check(*f.given); err != nil {
			return failure.Wrap(failure.Usage, err)
		}
	}
	return nil
}

// terms checks the flags that no package answers: sequence, channel and end.
func (o *releaseOptions) terms(now time.Time) (trust.Release, error) {
	r := trust.Release{Sequence: o.sequence, Channel: o.channel}
	if r.Sequence == 0 {
		return r, app.UsageError("--sequence is needed: a number greater than that of every earlier release, such as a date: --sequence %s01", now.Format("20060102"))
	}
	if r.Sequence > trust.MaxSequence {
		return r, app.UsageError("--sequence is greater than %d", uint64(trust.MaxSequence))
	}
	if err := trust.CheckChannel(r.Channel); err != nil {
		return r, failure.Wrap(failure.Usage, err)
	}
	t, ok := moment.Future(o.expires, now)
	if !ok || !t.After(now) || t.UTC().Year() > 9999 {
		return r, app.UsageError("bad value %q for --expires: a span such as 90d, or a date to come such as 2027-06-30", o.expires)
	}
	r.Expires = t.UTC().Truncate(time.Second)
	return r, nil
}

// signedPackage is the document of update pack and update sign: a package, and
// what its signature says.
type signedPackage struct {
	Schema     string         `json:"schema"`
	Package    string         `json:"package"`
	PackageB64 []byte         `json:"package_b64,omitempty"` // present when the path is not valid UTF-8
	Digest     string         `json:"digest"`                // BLAKE2b-512, by which changes name the package
	Name       string         `json:"name"`
	Version    string         `json:"version"`
	Content    *packedContent `json:"content,omitempty"`   // of a package that was built
	Signature  string         `json:"signature,omitempty"` // path
	Key        string         `json:"key,omitempty"`       // id of the one that signed
	Release    *releaseRecord `json:"release,omitempty"`
}

// releaseRecord is a release in JSON.
type releaseRecord struct {
	Name     string    `json:"name"`
	Version  string    `json:"version"`
	Sequence uint64    `json:"sequence"`
	Channel  string    `json:"channel"`
	Expires  time.Time `json:"expires"`
}

func newReleaseRecord(r trust.Release) *releaseRecord {
	return &releaseRecord{r.Name, r.Version, r.Sequence, r.Channel, r.Expires}
}
