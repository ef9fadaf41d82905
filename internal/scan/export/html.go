package export

import (
	"bufio"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"io"

	"github.com/mobileops/mobileops/internal/finding/export"
)

// Limits of a page. What is beyond them is counted on it.
const (
	htmlItems    = 10_000 // of all classes
	htmlNames    = 50     // of a list of what changed
	htmlProblems = 500
	htmlVerdicts = 300
	htmlLinks    = 4 // of an item
)

//go:embed page.tmpl style.css page.js
var files embed.FS

// HTML writes the report as one page that somebody without the tool can open,
// read, print and file away.
//
// The page stands alone: style and script are in it, it asks for nothing over the
// network, and its content security policy lets nothing run but that script, which
// sorts and filters. Where scripts are forbidden everything is there all the same,
// in order of urgency. It follows the reader's choice of light or dark, fits a
// phone, and says nothing by colour alone (WCAG 2.2, AA).
//
// What each item is about is folded and laid out only when it is looked at, so
// that a page of ten thousand opens at once. Further ones are counted on it.
func HTML(w io.Writer, d *Document) error {
	hash := func(b []byte) string {
		sum := sha256.Sum256(b)
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	page, err := template.ParseFS(files, "page.tmpl")
	if err != nil {
		return err
	}
	v := newView(d)
	style, err := files.ReadFile("style.css")
	if err != nil {
		return err
	}
	script, err := files.ReadFile("page.js")
	if err != nil {
		return err
	}
	style = export.PageStyle(style)
	v.Style, v.StyleHash, v.Script, v.ScriptHash = template.CSS(style), hash(style), template.JS(script), hash(script)
	out := bufio.NewWriterSize(w, 64<<10)
	if err := page.Execute(out, v); err != nil {
		return err
	}
	return out.Flush()
}
