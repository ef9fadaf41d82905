package deliver

import (
	"slices"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// filter says which events a destination wants. A gap in the events goes to
// all: who counts on them has to know.
type filter struct {
	types   []string
	least   pluginsdk.Severity
	sources []string
}

func newFilter(c Config) (filter, error) {
	f := filter{types: c.Types, sources: c.Sources}
	var err error
	if c.MinSeverity != "" {
		f.least, err = pluginsdk.ParseSeverity(c.MinSeverity)
	}
	return f, err
}

func (f *filter) wants(e *pluginsdk.Event) bool {
	switch e.Type {
	case pluginsdk.TypeGap:
		return true
	case pluginsdk.TypeFinding, pluginsdk.TypeAudit:
	default:
		return false // of a newer host; there is no format for it
	}
	if len(f.types) > 0 && !slices.Contains(f.types, e.Type) {
		return false
	}
	if e.Finding == nil {
		return true
	}
	return e.Finding.Severity >= f.least && (len(f.sources) == 0 || slices.Contains(f.sources, e.Finding.Source))
}
