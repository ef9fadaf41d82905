package integrity

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/history/anchor"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/cobra"
	"rsc.io/qr"
)

func newAnchorPrint(a *app.App) *cobra.Command {
	var asQR bool
	cmd := a.Command(app.Spec{
		Use:   "print [--qr]",
		Short: "Print the end of the history as one line, to keep elsewhere",
		Long: `Print the end of the history as one line, to keep elsewhere: in a ticket, in a
chat, on paper. It names the last record by its counter and digest. Who has it
can tell later that the history was put back or rewritten, see mobileops
integrity anchor check.`,
		Example: `
mobileops integrity anchor print
mobileops integrity anchor print --qr               # to photograph from the screen
mobileops integrity anchor print | ssh safe 'cat >> anchors/web1'
`,
		Statuses: []app.Status{
			{Code: 5, Text: "the history cannot be trusted, so no anchor is made of it"},
			{Code: 7, Text: "the history has no record yet"},
		},
		Files: []string{stateFile, historyFile},
		Run:   func(ctx context.Context, _ []string) error { return runAnchorPrint(ctx, a, asQR) },
	})
	cmd.Flags().BoolVar(&asQR, "qr", false, "draw it as a QR code")
	return cmd
}

// anchorPrintReport is the document of integrity anchor print.
type anchorPrintReport struct {
	Schema string `json:"schema"`
	Line   string `json:"line"`
	anchor.Anchor
}

func runAnchorPrint(ctx context.Context, a *app.App, asQR bool) error {
	e, _, err := newEngine(a)
	if err != nil {
		return err
	}
	line, err := e.Anchor(ctx)
	if err != nil {
		return err
	}
	switch {
	case a.Streams.Format != ui.Text:
		return a.Streams.Document(anchorPrintReport{"mobileops.integrity.anchor.print/v1", line.String(), line})
	case asQR:
		code, err := drawQR(line.String(), a.Streams.Color)
		if err != nil {
			return err
		}
		if a.Streams.OutTTY && a.Streams.Width > 0 && a.Streams.Width < strings.Index(visible(code), "\n") {
			return failure.Errorf(failure.Failed, "the terminal has %d columns, too few for the code", a.Streams.Width)
		}
		if _, err := io.WriteString(a.Streams.Out, code); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(a.Streams.Out, line.String())
	return err
}

// quietZone is how many light modules surround a QR code (ISO/IEC 18004).
const quietZone = 4

// drawQR draws a QR code with half blocks, two modules of a column in one
// character. On a terminal with colour it is dark on light whatever the
// terminal's own colours are; otherwise the light modules are drawn, as most
// terminals are dark, and readers know inverted codes as well.
func drawQR(text string, color bool) (string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return "", failure.Errorf(failure.Failed, "draw a QR code: %w", err)
	}
	light := func(x, y int) bool {
		return y < code.Size+quietZone && !code.Black(x, y)
	}
	var w strings.Builder
	for y := -quietZone; y < code.Size+quietZone; y += 2 {
		if color {
			w.WriteString("\x1b[38;5;16;48;5;231m") // black on white
		}
		for x := -quietZone; x < code.Size+quietZone; x++ {
			upper, lower := light(x, y), light(x, y+1)
			if color {
				upper, lower = !upper, !lower && y+1 < code.Size+quietZone
			}
			switch {
			case upper && lower:
				w.WriteRune('█')
			case upper:
				w.WriteRune('▀')
			case lower:
				w.WriteRune('▄')
			default:
				w.WriteByte(' ')
			}
		}
		if color {
			w.WriteString("\x1b[0m")
		}
		w.WriteByte('\n')
	}
	return w.String(), nil
}

// visible is a drawing with one byte for each column.
func visible(code string) string {
	line, _, _ := strings.Cut(code, "\n")
	line = strings.TrimSuffix(strings.TrimPrefix(line, "\x1b[38;5;16;48;5;231m"), "\x1b[0m")
	return strings.Repeat("x", len([]rune(line))) + "\n"
}
