package license

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/zeebo/blake3"
)

// AttributionSchema names the JSON form of a Notice.
const AttributionSchema = "mobileops.scan.attribution/v1"

// Notice is the attribution of a target: which packages it has, whose they are, under
// which licence, and the texts that say so, each once.
type Notice struct {
	Schema   string       `json:"schema"`
	Target   string       `json:"target"`
	Image    string       `json:"image,omitempty"` // the digest of an image's configuration
	Packages []Credit     `json:"packages"`        // by name and version
	Texts    []NoticeText `json:"texts"`           // by the first package that they belong to
}

// Credit is what is due to one package.
type Credit struct {
	Package   string   `json:"package"`
	Version   string   `json:"version,omitempty"`
	Type      string   `json:"type,omitempty"`
	PURL      string   `json:"purl,omitempty"`
	License   string   `json:"license,omitempty"`
	Copyright []string `json:"copyright,omitempty"`
	Texts     []string `json:"texts,omitempty"` // digests
	// Missing says that the target has no text for the package.
	Missing bool `json:"missing,omitempty"`
}

// NoticeText is one text, and what it belongs to.
type NoticeText struct {
	Digest   string   `json:"digest"` // BLAKE3 of the file, hex
	Licenses []string `json:"licenses,omitempty"`
	Paths    []string `json:"paths"`    // where the target has it
	Packages []string `json:"packages"` // "NAME VERSION"; a file that belongs to none is not here
	Text     string   `json:"text,omitempty"`
	// Omitted says that the text is in the target and too large to be repeated.
	Omitted bool `json:"omitted,omitempty"`
}

// Attribution makes the notice of a target.
func Attribution(report *protocol.Report) *Notice {
	n := &Notice{Schema: AttributionSchema, Target: report.Target, Packages: []Credit{}, Texts: []NoticeText{}}
	if report.Image != nil {
		n.Image = report.Image.ID
	}
	x := indexNotices(report)
	texts := map[string]*NoticeText{}
	add := func(file *protocol.Notice, owner string) {
		t := texts[file.Text]
		if t == nil {
			t = &NoticeText{Digest: file.Text, Licenses: file.Licenses, Packages: []string{}}
			t.Text, t.Omitted = report.Texts[file.Text], false
			_, kept := report.Texts[file.Text]
			t.Omitted = !kept
			texts[file.Text] = t
		}
		if !slices.Contains(t.Paths, file.Path) {
			t.Paths = append(t.Paths, file.Path)
		}
		if owner != "" && !slices.Contains(t.Packages, owner) {
			t.Packages = append(t.Packages, owner)
		}
	}
	for _, s := range subjects(report) {
		if s.Package == "" {
			for _, file := range s.notices {
				if file.Text != "" {
					add(file, "")
				}
			}
			continue
		}
		c := Credit{Package: s.Package, Version: s.Version, Type: s.Type, PURL: s.PURL, License: s.License, Copyright: s.Copyright, Missing: true}
		owner := c.name()
		for _, file := range s.notices {
			for _, file := range append([]*protocol.Notice{file}, x.referred(report, file)...) {
				if file.Text != "" && !slices.Contains(c.Texts, file.Text) {
					c.Missing = c.Missing && !attributes(file)
					c.Texts = append(c.Texts, file.Text)
					add(file, owner)
				}
			}
		}
		n.Packages = append(n.Packages, c)
	}
	for _, t := range texts {
		slices.Sort(t.Paths)
		slices.Sort(t.Packages)
		n.Texts = append(n.Texts, *t)
	}
	// Texts without packages go last.
	slices.SortFunc(n.Texts, func(a, b NoticeText) int {
		if len(a.Packages) == 0 || len(b.Packages) == 0 {
			return cmp.Or(cmp.Compare(min(1, len(b.Packages)), min(1, len(a.Packages))), cmp.Compare(a.Paths[0], b.Paths[0]), cmp.Compare(a.Digest, b.Digest))
		}
		return cmp.Or(cmp.Compare(a.Packages[0], b.Packages[0]), cmp.Compare(a.Digest, b.Digest))
	})
	return n
}

// referred returns the texts of /usr/share/common-licenses that a copyright file of
// Debian refers to, as far as the target has them.
func (x *noticeIndex) referred(report *protocol.Report, file *protocol.Notice) []*protocol.Notice {
	if file.Kind != protocol.NoticeCopyright {
		return nil
	}
	var out []*protocol.Notice
	for _, name := range commonLicenses([]byte(report.Texts[file.Text])) {
		if n := x.common[name]; n != nil {
			out = append(out, n)
		}
	}
	return out
}

func (c *Credit) name() string { return strings.TrimSpace(c.Package + " " + c.Version) }

// Attributions are what an attribution file gives: the JSON form of a Notice, as
// WriteJSON writes it, to which somebody added the texts that a target does not have.
type Attributions struct {
	credits []Credit
}

// maxAttribution is the size of an attribution file in bytes.
const maxAttribution = 256 << 20

// ParseAttribution reads an attribution file. The name is what errors call it. Unknown
// keys, packages that refer to texts which aren't there, and texts whose digest is not
// theirs are errors of kind failure.Usage.
func ParseAttribution(name string, data []byte) (*Attributions, error) {
	if len(data) > maxAttribution {
		return nil, failure.Errorf(failure.Usage, "%s: larger than %d bytes", name, maxAttribution)
	}
	var n Notice
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	if err := d.Decode(&n); err != nil {
		return nil, failure.Errorf(failure.Usage, "%s: offset %d: %w", name, d.InputOffset(), err)
	}
	if n.Schema != AttributionSchema {
		return nil, failure.Errorf(failure.Usage, "%s: the schema is %q, and this version reads %q", name, n.Schema, AttributionSchema)
	}
	there := map[string]bool{}
	for i, t := range n.Texts {
		if t.Omitted || strings.TrimSpace(t.Text) == "" {
			continue
		}
		// A text that was not in UTF-8 has another digest in the target than here.
		if sum := blake3.Sum256([]byte(t.Text)); t.Digest != hex.EncodeToString(sum[:]) && len(t.Paths) == 0 {
			return nil, failure.Errorf(failure.Usage, "%s: texts[%d]: the digest of the text is %x, not %q", name, i, sum, t.Digest)
		}
		there[t.Digest] = true
	}
	a := &Attributions{}
	for _, c := range n.Packages {
		if c.Package == "" {
			return nil, failure.Errorf(failure.Usage, "%s: a package without a name", name)
		}
		complete := len(c.Texts) > 0
		for _, digest := range c.Texts {
			complete = complete && there[digest]
		}
		if complete {
			a.credits = append(a.credits, c)
		}
	}
	return a, nil
}

// has reports whether the file has texts for a package: for that version, or for all
// when it names none.
func (a *Attributions) has(s *Subject) bool {
	if a == nil {
		return false
	}
	return slices.ContainsFunc(a.credits, func(c Credit) bool {
		return c.Package == s.Package && (c.Version == "" || c.Version == s.Version) && (c.Type == "" || c.Type == s.Type)
	})
}

// WithAttribution returns the policy with an attribution file: packages that it has
// texts for are attributed.
func (p *Policy) WithAttribution(a *Attributions) *Policy {
	with := *p
	with.given = a
	return &with
}

// Summary says in a line how much there is: "12 packages, 9 texts, 1 without a text".
func (n *Notice) Summary() string {
	missing := 0
	for _, c := range n.Packages {
		if c.Missing {
			missing++
		}
	}
	return fmt.Sprintf("%d packages, %d texts, %d without a text", len(n.Packages), len(n.Texts), missing)
}
