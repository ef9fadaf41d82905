//go:build goexperiment.jsonv2

package build

import (
	"slices"

	"github.com/aquasecurity/trivy-db/pkg/vulnsrc/osv"
	"github.com/mobileops/mobileops/internal/scan/vulndb/source"
)

// osvName is OSV's word for one of Trivy's ecosystems, by which versions are compared.
func osvName(ecosystem string) string {
	switch ecosystem {
	case "pip":
		return "PyPI"
	case "cargo":
		return "crates.io"
	case "composer":
		return "Packagist"
	case "erlang":
		return "Hex"
	}
	return ecosystem
}

// constraints writes the ranges and versions of a package as Trivy reads them:
// "<1.2.3", ">=2.0.0, <2.1.4", "=3.0.0", and the versions that fix it.
func constraints(p *source.Affected) (vulnerable, patched []string) {
	name := osvName(p.Ecosystem)
	var ranges []osv.VersionRange
	for _, r := range p.Ranges {
		events := sorted(name, r.Events)
		var open osv.VersionRange
		var text string
		end := func() {
			if open != nil {
				ranges = append(ranges, open)
				vulnerable = append(vulnerable, text)
			}
			open = nil
		}
		for _, e := range events {
			switch {
			case e.Introduced != "":
				if open == nil { // of two in a row the first one counts
					open = osv.NewVersionRange(name, e.Introduced)
					text = open.String()
					if r.Until != "" {
						text += ", " + r.Until
					}
				}
			case open == nil: // an end without a beginning ends nothing
			case e.Fixed != "":
				open.SetFixed(e.Fixed)
				text = open.String()
				end()
				patched = append(patched, e.Fixed)
			case e.LastAffected != "":
				open.SetLastAffected(e.LastAffected)
				text = open.String()
				end()
			}
		}
		end()
	}
	for _, v := range p.Versions {
		if !slices.ContainsFunc(ranges, func(r osv.VersionRange) bool { ok, err := r.Contains(v); return err == nil && ok }) {
			vulnerable = append(vulnerable, "="+v)
		}
	}
	return together(nil, vulnerable), together(nil, patched)
}

// sorted puts the events of a range in the order of their versions, in which
// documents need not have them. At the same version a fix comes before what is
// introduced. Versions that cannot be compared stay where they are.
func sorted(name string, events []source.Event) []source.Event {
	if len(events) <= 2 && (len(events) == 0 || events[0].Introduced != "") {
		return events
	}
	out := slices.Clone(events)
	slices.SortStableFunc(out, func(a, b source.Event) int {
		va, vb := version(a), version(b)
		switch {
		case va == vb:
			return 0
		case va == "0":
			return -1
		case vb == "0":
			return 1
		case before(name, va, vb):
			return -1
		case before(name, vb, va):
			return 1
		}
		return 0
	})
	return out
}

func version(e source.Event) string {
	switch {
	case e.Introduced != "":
		return e.Introduced
	case e.Fixed != "":
		return e.Fixed
	}
	return e.LastAffected
}

// before reports whether version a comes before b.
func before(name, a, b string) bool {
	r := osv.NewVersionRange(name, "0")
	r.SetFixed(b)
	ok, err := r.Contains(a)
	return err == nil && ok
}
