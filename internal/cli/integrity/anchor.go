package integrity

import (
	"context"
	"fmt"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/history/anchor"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newAnchor(a *app.App) *cobra.Command {
	return a.Group("anchor", "Keep the end of the history where nobody on this host can put it back",
		newAnchorPrint(a), newAnchorFile(a), newAnchorPush(a), newAnchorSyslog(a), newAnchorCheck(a))
}

// anchorReport is the document of integrity anchor file, push and syslog.
type anchorReport struct {
	Schema  string               `json:"schema"`
	Anchor  string               `json:"anchor,omitempty"` // the line
	Anchors []engine.AnchorState `json:"anchors"`
}

// keepAnchor keeps the end of the history at places, and says so.
func keepAnchor(ctx context.Context, a *app.App, e *engine.Engine, verb string, force bool, places ...anchor.Place) error {
	doc := anchorReport{Schema: "mobileops.integrity.anchor." + verb + "/v1", Anchors: []engine.AnchorState{}}
	kind := failure.None
	for _, p := range places {
		s, err := e.KeepAnchor(ctx, p, force)
		if err != nil {
			return err
		}
		doc.Anchors = append(doc.Anchors, s)
		kind = failure.Worse(kind, keptKind(&s))
	}
	a.SetResult("%d of %d anchors kept", kept(doc.Anchors), len(places))
	if a.Streams.Format != ui.Text {
		if err := a.Streams.Document(doc); err != nil {
			return err
		}
		return failure.Silent(kind)
	}
	theme := a.Streams.Theme()
	for _, s := range doc.Anchors {
		place := ui.Escape(s.Place)
		switch {
		case s.Kind() == failure.Untrustworthy:
			fmt.Fprintf(a.Streams.Out, "%s: anchor %s: %s; nothing was written there.\n", theme.Bad("Not trustworthy"), place, ui.Escape(s.Problem))
			a.Streams.Notice("if an older state was restored on purpose, --force keeps an anchor of it")
		case !s.Kept:
			fmt.Fprintf(a.Streams.Out, "%s: anchor %s: %s%s.\n", theme.Bad("Not kept"), place, ui.Escape(s.Problem), ui.Escape(s.Warning))
		case s.Warning != "":
			fmt.Fprintf(a.Streams.Out, "Record %d is kept at %s. %s: %s.\n", s.Counter, place, theme.Warn("But"), ui.Escape(s.Warning))
		case !a.Streams.Quiet:
			fmt.Fprintf(a.Streams.Out, "Record %d is kept at %s.\n", s.Counter, place)
		}
	}
	return failure.Silent(kind)
}

// keptKind is what keeping an anchor means for the exit status.
func keptKind(s *engine.AnchorState) failure.Kind {
	if k := s.Kind(); k != failure.None || s.Kept {
		return k
	}
	return failure.Incomplete
}

func kept(states []engine.AnchorState) (n int) {
	for _, s := range states {
		if s.Kept {
			n++
		}
	}
	return n
}

// anchorStatuses are those of the verbs that keep anchors.
func anchorStatuses() []app.Status {
	return []app.Status{
		{Code: 0, Text: "the last record is kept there, or was before"},
		{Code: 5, Text: "the history cannot be trusted, or what is kept there speaks against it; nothing was written"},
		{Code: 6, Text: "the place cannot be reached, or did not take it"},
		{Code: 7, Text: "the history has no record yet"},
	}
}
