package integrity

import (
	"context"
	"fmt"
	"os"

	"github.com/mobileops/mobileops/internal/cli/app"
	engine "github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/history"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

func newKey(a *app.App) *cobra.Command {
	return a.Group("key", "Say which key signs the history of the baselines", newKeyShow(a), newKeyUse(a), newKeyRotate(a))
}

// keyReport is the document of integrity key show, use and rotate.
type keyReport struct {
	Schema     string `json:"schema"`
	Key        string `json:"key,omitempty"` // public key in force, as minisign writes it
	ID         string `json:"id,omitempty"`
	Here       bool   `json:"here"`      // its private half is on this host
	Elsewhere  bool   `json:"elsewhere"` // records are to be signed elsewhere
	Configured bool   `json:"configured"`
	Public     string `json:"public"` // path of the file with the public half
	Records    uint64 `json:"records"`
	Trusted    bool   `json:"trusted"` // the history is proved by it
}

// newKeyReport says which key is in force.
func newKeyReport(ctx context.Context, e *engine.Engine, verb string) (*keyReport, *history.Verification, error) {
	_, v, err := e.Past(ctx)
	if err != nil {
		return nil, nil, err
	}
	private, public := e.History().KeyFiles()
	r := &keyReport{
		Schema: "mobileops.integrity.key." + verb + "/v1", Key: v.Key, Public: public, Records: v.Records,
		Configured: e.Keys.PublicKey != "", Trusted: v.Records > 0 && len(v.Problems) == 0,
	}
	if r.Configured {
		r.Public = e.Keys.PublicKey
	}
	if v.Key != "" {
		r.ID, r.Elsewhere = history.KeyID(v.Key), v.Elsewhere
	}
	_, err = os.Stat(private)
	r.Here = err == nil
	return r, v, nil
}

func printKey(a *app.App, r *keyReport) error {
	if a.Streams.Format != ui.Text {
		return a.Streams.Document(r)
	}
	if a.Streams.Quiet {
		return nil
	}
	if r.Key == "" {
		a.Streams.Notice("no key is in force: the first baseline makes one (or use one of yours: mobileops integrity key use FILE)")
		return nil
	}
	signs := "on this host"
	switch {
	case r.Elsewhere || r.Configured:
		signs = "elsewhere (mobileops integrity baseline sign)"
	case !r.Here:
		signs = "nowhere: the private key is gone"
	}
	theme := a.Streams.Theme()
	for _, row := range [][2]string{
		{"Key", r.Key}, {"ID", r.ID}, {"Signs", signs}, {"File", r.Public},
	} {
		if _, err := fmt.Fprintf(a.Streams.Out, "%s %s\n", theme.Heading(fmt.Sprintf("%-6s", row[0])), ui.Escape(row[1])); err != nil {
			return err
		}
	}
	return nil
}
