package integrity

import (
	"context"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/history/anchor"
	"github.com/spf13/cobra"
)

// httpOptions are the flags that say how an HTTP server is reached.
type httpOptions struct{ ca, token string }

func (o *httpOptions) addFlags(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&o.ca, "ca", "", "trust servers whose certificate the ones in `FILE` (PEM) vouch for (default: integrity.anchor_ca)")
	fs.StringVar(&o.token, "token-file", "", "send the bearer token in the first line of `FILE` (default: integrity.anchor_token_file)")
	app.CompleteFiles(cmd, "ca", "pem", "crt")
	app.CompleteFiles(cmd, "token-file")
}

// apply puts what was given in the place of the configuration.
func (o *httpOptions) apply(to anchor.Options) (anchor.Options, error) {
	for _, f := range []struct {
		given string
		set   *string
	}{{o.ca, &to.CA}, {o.token, &to.TokenFile}} {
		if f.given == "" {
			continue
		}
		abs, err := filepath.Abs(f.given)
		if err != nil {
			return to, failure.Wrap(failure.Failed, err)
		}
		*f.set = abs
	}
	return to, nil
}

type pushOptions struct {
	httpOptions
	method string
	force  bool
}

func newAnchorPush(a *app.App) *cobra.Command {
	var opts pushOptions
	cmd := a.Command(app.Spec{
		Use:   "push [PLACE...] [flags]",
		Short: "Keep the end of the history on an HTTP server, or wherever the configuration says",
		Long: `Keep the end of the history on an HTTP server, or wherever the configuration
says. A PLACE is an https URL, file:/PATH or syslog:ADDRESS; with none, all
those of integrity.anchors are meant, which is done after every change anyway.

The line is PUT to the URL, and then read back by GET: the server has to answer
the PUT with any 2xx status, and the GET with 200 and the line, which may be the
last one of several, or with 404 while there is none. Any web server with
WebDAV does, and one that keeps former versions is better. When what is there
speaks against the history, nothing is sent.`,
		Example: `
mobileops integrity anchor push https://anchors.example.org/web1
mobileops integrity anchor push https://10.0.0.5/web1 --ca ca.pem --token-file token
mobileops integrity anchor push                      # to all configured places
`,
		Args:     cobra.ArbitraryArgs,
		Statuses: anchorStatuses(),
		Files:    []string{stateFile, historyFile},
		Audited:  true,
		Run:      func(ctx context.Context, args []string) error { return runAnchorPush(ctx, a, &opts, args) },
		Complete: func(context.Context, []string, string) []string { return completePlaces(a) },
	})
	opts.addFlags(cmd)
	app.Choice(cmd, cmd.Flags(), &opts.method, "method", "PUT", []string{"PUT", "POST"}, "send it by `METHOD`")
	cmd.Flags().BoolVar(&opts.force, "force", false, "send it whatever is there: an older state was restored on purpose")
	return cmd
}

// completePlaces returns the configured places for anchors.
func completePlaces(a *app.App) []string {
	c, err := a.Config()
	if err != nil {
		return nil
	}
	return c.Integrity.Anchors
}

func runAnchorPush(ctx context.Context, a *app.App, o *pushOptions, args []string) error {
	e, c, err := newEngine(a)
	if err != nil {
		return err
	}
	opts, err := o.apply(anchorOptions(c))
	if err != nil {
		return err
	}
	opts.Method = o.method
	if len(args) == 0 {
		if args = c.Integrity.Anchors; len(args) == 0 {
			return failure.Hint(failure.New(failure.Usage, "no PLACE was given and none is configured"), "give a URL, or set integrity.anchors")
		}
	}
	var places []anchor.Place
	for _, s := range args {
		p, err := anchor.ParsePlace(s, true, opts)
		if err != nil {
			return err
		}
		places = append(places, p)
	}
	return keepAnchor(ctx, a, e, "push", o.force, places...)
}
