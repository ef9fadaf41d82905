// Package htmlreport writes what a check found as one HTML file that somebody
// without the tool can open, read, print and file away.
//
// The page stands alone: style and chart are in it, it asks for nothing over
// the network, has no script, and its content security policy forbids both. It
// follows the reader's choice of light or dark, fits a phone, prints without
// losing what is folded, and says nothing by colour alone (WCAG 2.2, AA).
//
// Names and values in it were chosen by whoever could write to the host. They
// are written as text by html/template, with control characters, bidi marks and
// bytes that are not UTF-8 spelled out (finding/export.Visible), and long ones
// are cut with a note of how much is left out. So is a report of very many
// changes: the page has the worst of them and says how many it leaves out.
package htmlreport

import (
	"bufio"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"html/template"
	"io"
	"time"

	"github.com/mobileops/mobileops/internal/finding/export"
	"github.com/mobileops/mobileops/internal/integrity"
)

// Page is what a page is made of.
type Page struct {
	Report *integrity.Report
	Entry  integrity.ReportEntry   // of the report in the catalogue
	Past   []integrity.ReportEntry // the reports of the same name, the newest first
	Host   string                  // of the report
	Tool   string                  // "mobileops 1.0.0"
	Now    time.Time               // when the page is written
	// Trust is what proves that the baseline is what it was, where the report
	// does not say so itself: then as of when the page is written. Nil: nobody
	// looked.
	Trust  *integrity.Trust
	Limits Limits
}

// Limits bound what a page has. Zero is the usual.
type Limits struct {
	Changes  int // rows about changes; 2,000
	Packages int // packages that were updated; 300
	Problems int // rows about what was not read; 300
	Past     int // reports in the chart; 100
}

func (l Limits) filled() Limits {
	set := func(n *int, usual int) {
		if *n <= 0 {
			*n = usual
		}
	}
	set(&l.Changes, 2000)
	set(&l.Packages, 300)
	set(&l.Problems, 300)
	set(&l.Past, 100)
	return l
}

//go:embed page.tmpl style.css
var files embed.FS

// Write writes the page.
func Write(w io.Writer, p *Page) error {
	style, err := files.ReadFile("style.css")
	if err != nil {
		return err
	}
	page, err := template.ParseFS(files, "page.tmpl")
	if err != nil {
		return err
	}
	style = export.PageStyle(style)
	hash := sha256.Sum256(style)
	v := newView(p)
	v.Style = template.CSS(style)
	v.StyleHash = "'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'"
	out := bufio.NewWriterSize(w, 64<<10)
	if err := page.Execute(out, v); err != nil {
		return err
	}
	return out.Flush()
}
