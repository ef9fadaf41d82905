package plugin

import (
	"context"
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/plugin/sandbox"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

// consentOptions are the flags that answer what installing asks.
type consentOptions struct {
	permissions bool
	unenforced  bool
	downgrade   bool
}

func (o *consentOptions) addFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.BoolVar(&o.permissions, "accept-permissions", false, "let it do what it asks for")
	fs.BoolVar(&o.unenforced, "accept-unenforced", false, "do without what this host cannot enforce")
}

// planText says what an installation would do, to somebody who is to agree.
func planText(theme ui.Theme, p *plugin.Plan) string {
	var b strings.Builder
	m := p.Manifest
	what := "signed by key " + p.KeyID
	if p.Source.Pinned != nil {
		what = "which comes with mobileops"
	}
	fmt.Fprintf(&b, "%s %s, %s\n", theme.Heading(m.Name), m.Version, what)
	fmt.Fprintf(&b, "  %s\n", ui.Escape(m.Summary))
	if r := p.Installed; r != nil {
		fmt.Fprintf(&b, "  installed is %s\n", r.Release.Version)
		if r.KeyID != p.KeyID {
			fmt.Fprintf(&b, "  %s: %s was signed by key %s\n", theme.Warn("another key"), r.Release.Version, r.KeyID)
		}
	}
	if p.Downgrade {
		fmt.Fprintf(&b, "  %s: a newer one was installed here\n", theme.Warn("older"))
	}
	switch {
	case p.Installed == nil:
		fmt.Fprintf(&b, "What it may do:\n")
		for _, line := range p.May {
			fmt.Fprintf(&b, "  %s\n", ui.Escape(line.Meaning))
		}
	case len(p.Grew) == 0:
		fmt.Fprintf(&b, "It may do nothing more than before.\n")
	default:
		fmt.Fprintf(&b, "It asks for more than was accepted:\n")
		for _, g := range p.Grew {
			fmt.Fprintf(&b, "  %s %s\n", theme.Warn("+"), ui.Escape(changeText(g)))
		}
	}
	writeGaps(&b, theme, p.Gaps)
	return b.String()
}

// changeText says what a permission has become.
func changeText(c manifest.Change) string {
	if c.Before != "" {
		return c.Meaning + " (before: " + c.Before + ")"
	}
	return c.Meaning
}

// writeGaps says what this host does not hold a plugin to.
func writeGaps(b *strings.Builder, theme ui.Theme, gaps []sandbox.Gap) {
	for _, g := range gaps {
		word := theme.Bad("not enforced here")
		if g.Weaker {
			word = theme.Warn("weaker here")
		}
		fmt.Fprintf(b, "%s: %s: %s\n", word, g.Permission, g.Why)
	}
}

// agree shows a plan and asks somebody at the terminal what the flags leave
// open. Where nobody is there, what is missing stays for the engine to say.
func (o *consentOptions) agree(ctx context.Context, a *app.App, p *plugin.Plan) (plugin.Consent, error) {
	c := plugin.Consent{Permissions: o.permissions, Unenforced: o.unenforced, Downgrade: o.downgrade, By: a.Actor().Name()}
	permissions, gaps := len(p.Grew) > 0 && !c.Permissions, len(p.Unenforced()) > 0 && !c.Unenforced
	asks := (permissions || gaps) && a.Streams.InTTY && a.Streams.ErrTTY && (!p.Downgrade || c.Downgrade)
	switch {
	case asks:
		for line := range strings.Lines(planText(ui.Theme{}, p)) {
			a.Streams.Notice("%s", strings.TrimSuffix(line, "\n"))
		}
	case a.Streams.Format == ui.Text && !a.Streams.Quiet:
		if _, err := fmt.Fprint(a.Streams.Out, planText(a.Streams.Theme(), p)); err != nil {
			return c, err
		}
	}
	if !asks {
		return c, nil
	}
	for _, ask := range []struct {
		open     bool
		question string
		flag     string
		answer   *bool
	}{
		{permissions, "Let " + p.Manifest.Name + " do that?", "--accept-permissions", &c.Permissions},
		{gaps, "Do without what this host cannot enforce?", "--accept-unenforced", &c.Unenforced},
	} {
		if !ask.open {
			continue
		}
		ok, err := a.Streams.Confirm(ctx, ask.question, ask.flag)
		if err != nil {
			return c, err
		}
		if !ok {
			return c, failure.New(failure.NotAllowed, "it was not accepted; nothing was installed")
		}
		*ask.answer = true
	}
	return c, nil
}

// planRecord is a plan in JSON.
type planRecord struct {
	Permissions []manifest.Line   `json:"permissions"`
	Grew        []manifest.Change `json:"grew"` // beyond what was accepted before
	Gaps        []sandbox.Gap     `json:"gaps"` // what this host cannot enforce
}

func newPlanRecord(p *plugin.Plan) planRecord {
	return planRecord{append([]manifest.Line{}, p.May...), append([]manifest.Change{}, p.Grew...), append([]sandbox.Gap{}, p.Gaps...)}
}
