package update

import (
	"context"
	"fmt"
	"os"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update"
)

// fetch downloads a package of the configured repository, and says in the request
// what the repository has about it. A repository that is out of reach does not
// matter for what was downloaded, while what is known of it has not expired.
func fetch(ctx context.Context, a *app.App, e *update.Engine, c *config.Config, o *applyOptions, arg string, r *update.Request) error {
	look, err := lookAt(ctx, a, c, e.Accepted)
	if err != nil {
		return err
	}
	picked, err := (&downloadOptions{now: o.now}).pick(look, []string{arg}, c.Update.Channel)
	if err != nil {
		return err
	}
	j := picked[0]
	if j.verdict == verdictAccepted && arg == j.Release.Name {
		if a.Streams.Quiet { // every night on most hosts, and no news
			return failure.Silent(failure.Busy)
		}
		if back := goneBack(e, j); back != nil {
			return failure.Hint(failure.Errorf(failure.Busy, "%s", back.what), "make it current again: "+back.how)
		}
		if newer := look.heldBack(arg); newer != nil {
			return failure.Hint(failure.Errorf(failure.Busy, "%s %s is %s", arg, newer.Release.Version, newer.why(c.Update.Channel)), "wait for it, or apply it --now")
		}
		return failure.Hint(failure.Errorf(failure.Busy, "%s %s is the latest, and was applied on %s", j.Release.Name, j.Release.Version, j.accepted.At.Local().Format("2006-01-02 15:04")),
			"to apply it again name its version: "+j.Release.Name+"@"+j.Release.Version)
	}
	if look.problem != nil {
		r.Path = downloaded(c, &j.Target)
		if _, err := os.Stat(r.Path); err != nil || look.freshness.Expired != nil {
			return look.problem
		}
		a.Streams.Notice("mobileops: update apply: %s; going by what was downloaded", ui.Escape(look.problem.Error()))
	} else if r.Path, err = download(ctx, a, look.client, c, &j.Target); err != nil {
		return explainDownload(err, 0)
	}
	r.Listed = &update.Listed{Release: j.Release, SHA256: j.Hashes["sha256"], Length: j.Length, Source: fmt.Sprintf("%s of %s", j.Path, look.client.Source())}
	return nil
}

// retreat is a release that was current here, and that somebody went back from.
type retreat struct{ what, how string }

// goneBack says whether the latest release that was accepted is not what is current,
// and how it would be again; nil where it is, or where that cannot be told.
func goneBack(e *update.Engine, j *judged) *retreat {
	list, err := e.Store().List()
	if err != nil || j.accepted == nil {
		return nil
	}
	here, number := "", 0
	for _, g := range list { // ascending
		o, ok := g.Packages[j.Release.Name]
		switch {
		case g.Current && ok && o.Sequence >= j.accepted.Sequence:
			return nil
		case g.Current && ok:
			here = o.Name + " " + o.Version
		case g.Current:
			here = content(g)
		case ok && o.Sequence == j.accepted.Sequence && !g.Staged && g.Damaged == "":
			number = g.Number
		}
	}
	if here == "" || number == 0 {
		return nil
	}
	return &retreat{fmt.Sprintf("%s %s was gone back from, and %s is current", j.Release.Name, j.accepted.Version, here), fmt.Sprintf("mobileops update activate %d", number)}
}

// heldBack returns the newest release of a package that is not rolled out to this
// host yet, nil for none.
func (r *checked) heldBack(name string) (newest *judged) {
	for i := range r.packages {
		if j := &r.packages[i]; j.Release.Name == name && j.verdict == verdictHeld && (newest == nil || j.Release.Sequence > newest.Release.Sequence) {
			newest = j
		}
	}
	return newest
}
