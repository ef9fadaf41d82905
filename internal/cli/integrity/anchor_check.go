package integrity

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/history/anchor"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
)

type anchorCheckOptions struct {
	httpOptions
	files []string
	urls  []string
}

func newAnchorCheck(a *app.App) *cobra.Command {
	var opts anchorCheckOptions
	cmd := a.Command(app.Spec{
		Use:   "check [LINE | -] [flags]",
		Short: "Compare the history with an anchor that was kept elsewhere",
		Long: `Compare the history with an anchor that was kept elsewhere: with a LINE, given
as one argument or read from standard input, with the last one of this host in
a file or on a server, or, with nothing given, with all of integrity.anchors.
A LINE may have something around it, such as that of a log, or be broken into
several; of several anchors the last one of this host counts.

An anchor whose record the history does not have shows that the state directory
was put back to an earlier state; one whose record is another one there, that
the history was rewritten. An older anchor that fits proves everything up to its
record.`,
		Example: `
mobileops integrity anchor check                     # with the configured places
mobileops integrity anchor check --file /media/usb/anchors
mobileops integrity anchor check "$(pbpaste)"        # runbook: with the line from the ticket
ssh safe tail -1 anchors/web1 | mobileops integrity anchor check -
`,
		Args: cobra.MaximumNArgs(1),
		Statuses: []app.Status{
			{Code: 0, Text: "the history has what every anchor says"},
			{Code: 5, Text: "the history was put back or rewritten, an anchor is forged, or the history cannot be trusted by itself"},
			{Code: 6, Text: "an anchor cannot be reached, is of another host, or there is none of this host"},
		},
		Files: []string{stateFile, historyFile},
		Run:   func(ctx context.Context, args []string) error { return runAnchorCheck(ctx, a, &opts, args) },
		Complete: func(context.Context, []string, string) []string {
			return nil
		},
	})
	cmd.Flags().StringArrayVar(&opts.files, "file", nil, "compare with the last anchor of this host in the file `PATH`")
	cmd.Flags().StringArrayVar(&opts.urls, "url", nil, "compare with the last anchor of this host at `URL`")
	app.CompleteFiles(cmd, "file")
	opts.addFlags(cmd)
	return cmd
}

// anchorCheckReport is the document of integrity anchor check.
type anchorCheckReport struct {
	Schema string `json:"schema"`
	*trustReport
}

func runAnchorCheck(ctx context.Context, a *app.App, o *anchorCheckOptions, args []string) error {
	e, c, err := newEngine(a)
	if err != nil {
		return err
	}
	opts, err := o.apply(anchorOptions(c))
	if err != nil {
		return err
	}
	places, err := o.places(a, e.History().Host(), opts, args)
	if err != nil {
		return err
	}
	if len(places) == 0 {
		if places = e.Anchors; len(places) == 0 {
			return failure.Hint(failure.New(failure.Usage, "there is no anchor to compare with"), "give a LINE, --file or --url, or set integrity.anchors")
		}
	}
	t, err := e.CompareAnchors(ctx, places...)
	if err != nil {
		return err
	}
	if a.Streams.Format != ui.Text {
		err = a.Streams.Document(anchorCheckReport{"mobileops.integrity.anchor.check/v1", newTrustReport(t)})
	} else {
		var w strings.Builder
		writeProblems(&w, a.Streams.Theme(), t.Problems)
		writeUnsigned(&w, a.Streams.Theme(), t.Unsigned)
		for _, s := range t.Anchors {
			writeAnchor(&w, a.Streams.Theme(), s, t, !a.Streams.Quiet)
		}
		_, err = io.WriteString(a.Streams.Out, w.String())
	}
	if err != nil {
		return err
	}
	return failure.Silent(t.Kind())
}

// places are those that the command line names.
func (o *anchorCheckOptions) places(a *app.App, host string, opts anchor.Options, args []string) ([]anchor.Place, error) {
	var places []anchor.Place
	for _, arg := range args {
		if arg == "-" {
			text, err := pastedAnchor(a)
			if err != nil {
				return nil, err
			}
			arg = text
		}
		p, err := parseAnchor(arg, host, opts)
		if err != nil {
			return nil, err
		}
		places = append(places, p)
	}
	for _, path := range o.files {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, failure.Wrap(failure.Failed, err)
		}
		places = append(places, &anchor.File{Path: abs})
	}
	for _, url := range o.urls {
		if !strings.Contains(url, "://") {
			return nil, failure.Errorf(failure.Usage, "--url %q is not a URL", url)
		}
		p, err := anchor.ParsePlace(url, false, opts)
		if err != nil {
			return nil, err
		}
		places = append(places, p)
	}
	return places, nil
}

// maxPasted bounds what is read from standard input, in bytes.
const maxPasted = 1 << 20

// pastedAnchor reads standard input to its end: the last anchor in it counts,
// and the first one may be years old.
func pastedAnchor(a *app.App) (string, error) {
	if a.Streams.InTTY {
		a.Streams.Notice("paste the anchor, then press Enter and Ctrl-D")
	}
	b, err := io.ReadAll(io.LimitReader(a.Streams.In, maxPasted+1))
	switch {
	case err != nil:
		return "", failure.Wrap(failure.Failed, err)
	case len(b) > maxPasted:
		return "", failure.Errorf(failure.Usage, "standard input has more than %d bytes: give the end of it, with tail", maxPasted)
	case len(bytes.TrimSpace(b)) == 0:
		return "", failure.New(failure.Usage, "nothing came from standard input")
	case !bytes.Contains(b, []byte(anchor.Version+" ")):
		return "", failure.New(failure.Usage, "there is no anchor in standard input: it is a line that begins with "+anchor.Version)
	}
	return string(b), nil
}

// anchorFlag adds --anchor to verify.
func anchorFlag(cmd *cobra.Command, to *[]string) {
	cmd.Flags().StringArrayVar(to, "anchor", nil, "compare the history with the anchor `WHERE`: a file, an https URL, or the line itself")
	app.CompleteFiles(cmd, "anchor")
}

// parseAnchors reads --anchor.
func parseAnchors(list []string, host string, opts anchor.Options) ([]anchor.Place, error) {
	var places []anchor.Place
	for _, s := range list {
		if !strings.Contains(s, ":") && !strings.Contains(s, anchor.Version+" ") {
			abs, err := filepath.Abs(s)
			if err != nil {
				return nil, failure.Wrap(failure.Failed, err)
			}
			s = abs
		}
		p, err := parseAnchor(s, host, opts)
		if err != nil {
			return nil, fmt.Errorf("--anchor: %w", err)
		}
		places = append(places, p)
	}
	return places, nil
}
