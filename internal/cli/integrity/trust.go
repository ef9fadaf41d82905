package integrity

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/integrity/history/anchor"
	"github.com/mobileops/mobileops/internal/ui"
)

// historyFile is a line about files in the help of several verbs.
const historyFile = "keys/integrity.key and integrity.pub in the state directory: who signs the history"

// anchorOptions say how the places of the configuration are reached.
func anchorOptions(c *config.Config) anchor.Options {
	return anchor.Options{CA: c.Integrity.AnchorCA, TokenFile: c.Integrity.AnchorToken, Proxy: http.ProxyFromEnvironment}
}

// configuredAnchors returns the places of the configuration.
func configuredAnchors(c *config.Config) ([]anchor.Place, error) {
	var places []anchor.Place
	for _, s := range c.Integrity.Anchors {
		p, err := anchor.ParsePlace(s, false, anchorOptions(c))
		if err != nil {
			return nil, fmt.Errorf("integrity.anchors: %w", err)
		}
		places = append(places, p)
	}
	return places, nil
}

// parseAnchor reads what stands for an anchor on a command line: the line
// itself, or a place where there is one.
func parseAnchor(s, host string, o anchor.Options) (anchor.Place, error) {
	if strings.Contains(s, anchor.Version+" ") {
		a, err := anchor.Pasted(s, host)
		if err != nil {
			return nil, failure.Wrap(failure.Usage, err)
		}
		return anchor.Given{Anchor: a}, nil
	}
	p, err := anchor.ParsePlace(s, true, o)
	if err == nil && !p.Readable() {
		err = failure.Errorf(failure.Usage, "%s cannot be read back: look the line up in the log, and give the line", p)
	}
	return p, err
}

// keepAnchors keeps the end of the history at the configured places after an
// act. The act is done, so what cannot be reached is said and tried again by
// the next check; what speaks against the history is an error.
func keepAnchors(ctx context.Context, a *app.App, e *engine.Engine) error {
	states, err := e.PushAnchors(ctx)
	if errors.Is(err, context.Canceled) {
		return failure.New(failure.Interrupted, "interrupted: what was done is done, and the next check keeps the anchors")
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range states {
		switch {
		case s.Kind() == failure.Untrustworthy:
			errs = append(errs, fmt.Errorf("anchor %s: %s", s.Place, s.Problem))
		case s.Problem != "":
			a.Streams.Notice("mobileops: anchor %s: %s; the next check tries again", s.Place, s.Problem)
		case s.Warning != "":
			a.Streams.Notice("mobileops: anchor %s: %s", s.Place, s.Warning)
		}
	}
	return failure.Wrap(failure.Untrustworthy, errors.Join(errs...))
}

// ended is how a command ends that did something and then kept anchors.
func ended(kind failure.Kind, anchors error) error {
	if anchors == nil {
		return failure.Silent(kind)
	}
	return failure.Wrap(failure.Worse(kind, failure.KindOf(anchors)), anchors)
}

// trustReport is the part of a check's document that tells whether the baseline
// itself can be trusted.
type trustReport struct {
	Trusted  bool                 `json:"trusted"`
	Records  uint64               `json:"records"`
	Last     *time.Time           `json:"last,omitempty"` // when the last record was written
	Key      string               `json:"key,omitempty"`  // public key in force, as minisign writes it
	Adopted  int                  `json:"adopted,omitempty"`
	Unsigned []uint64             `json:"unsigned"`
	Problems []history.Problem    `json:"problems"`
	Warnings []string             `json:"warnings"`
	Anchors  []engine.AnchorState `json:"anchors"`
}

func newTrustReport(t *engine.Trust) *trustReport {
	if t == nil {
		return nil
	}
	r := &trustReport{
		Trusted: t.Kind() == failure.None, Records: t.Records, Key: t.Key, Adopted: t.Adopted,
		Unsigned: some(t.Unsigned), Problems: some(t.Problems), Warnings: some(t.Warnings), Anchors: some(t.Anchors),
	}
	if !t.Last.IsZero() {
		r.Last = &t.Last
	}
	return r
}

// some makes of no list an empty one, which JSON writes as [].
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// writeTrust tells about the baseline itself: what is wrong with it, and, when
// all is said, what was proved.
func writeTrust(w io.Writer, theme ui.Theme, t *engine.Trust, all bool) {
	if t == nil {
		return
	}
	writeProblems(w, theme, t.Problems)
	writeUnsigned(w, theme, t.Unsigned)
	for _, a := range t.Anchors {
		writeAnchor(w, theme, a, t, all)
	}
	if all {
		writeWarnings(w, theme, t.Warnings)
	}
	if t.Adopted > 0 {
		fmt.Fprintf(w, "The history begins now, with %s that somebody took before.\n", ui.Plural(int64(t.Adopted), "baseline", "baselines"))
	}
	if !all || len(t.Problems) > 0 {
		return
	}
	fmt.Fprintf(w, "History: %s, signed by %s.\n", ui.Plural(int64(t.Records), "record", "records"), history.KeyID(t.Key))
	if !t.Anchored() {
		fmt.Fprintf(w, "No anchor: that the state directory was put back to an earlier state would not be noticed (mobileops integrity anchor --help).\n")
	}
}

func writeProblems(w io.Writer, theme ui.Theme, list []history.Problem) {
	for _, p := range list {
		fmt.Fprintf(w, "%s: %s", theme.Bad("Not trustworthy"), ui.Escape(p.What))
		if p.Next != "" {
			fmt.Fprintf(w, " (%s)", ui.Escape(p.Next))
		}
		io.WriteString(w, ".\n")
	}
}

func writeWarnings(w io.Writer, theme ui.Theme, list []string) {
	for _, text := range list {
		fmt.Fprintf(w, "%s: %s.\n", theme.Warn("History"), ui.Escape(text))
	}
}

func writeUnsigned(w io.Writer, theme ui.Theme, list []uint64) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(w, "%s: %s of the history %s not signed, so nobody vouches for the baseline; sign where the key is: mobileops integrity baseline sign --export-unsigned FILE.\n",
		theme.Bad("Not trustworthy"), numbers(list), map[bool]string{true: "is", false: "are"}[len(list) == 1])
}

// numbers names records: "record 3", "records 3 to 7", "records 3, 5 and 9".
func numbers(list []uint64) string {
	switch n := len(list); {
	case n == 1:
		return fmt.Sprintf("record %d", list[0])
	case list[n-1]-list[0] == uint64(n-1):
		return fmt.Sprintf("records %d to %d", list[0], list[n-1])
	default:
		words := make([]string, n)
		for i, c := range list {
			words[i] = fmt.Sprint(c)
		}
		return "records " + strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
}

func writeAnchor(w io.Writer, theme ui.Theme, a engine.AnchorState, t *engine.Trust, all bool) {
	place := ui.Escape(a.Place)
	switch {
	case a.Kind() == failure.Untrustworthy:
		fmt.Fprintf(w, "%s: anchor %s: %s.\n", theme.Bad("Not trustworthy"), place, ui.Escape(a.Problem))
	case a.Problem != "":
		fmt.Fprintf(w, "%s: anchor %s: %s.\n", theme.Warn("Incomplete"), place, ui.Escape(a.Problem))
	case a.Warning != "":
		fmt.Fprintf(w, "%s %s: %s.\n", theme.Warn("Anchor"), place, ui.Escape(a.Warning))
	case all && a.Verdict == history.Matches:
		fmt.Fprintf(w, "Anchor %s: record %d of %d, made %s, is as it was.\n", place, a.Counter, t.Records, ui.Ago(a.Time, time.Now()))
	}
}

// loud tells whether there is something that --quiet does not keep silent.
func loud(t *engine.Trust) bool {
	return t != nil && (t.Kind() != failure.None || len(t.Problems) > 0 || t.Adopted > 0 ||
		slices.ContainsFunc(t.Anchors, func(a engine.AnchorState) bool { return strings.HasPrefix(a.Warning, "the last record") }))
}
