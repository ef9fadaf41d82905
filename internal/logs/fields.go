package logs

import (
	"strings"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/format"
	"github.com/mobileops/mobileops/internal/logs/journal"
)

// Fields returns what finds the fields of events of a format. The formats are
// asked for with the first event.
func Fields(formats func() (*format.Set, error), name string) func(*event.Event) {
	return func(e *event.Event) {
		set, err := formats()
		var f *format.Format
		if err == nil {
			of := name
			if name == JournalFormat {
				of = "syslog" // its messages are the same
			}
			f, _ = set.Lookup(of)
		}
		switch {
		case name == JournalFormat:
			journal.Fill(e)
			if f != nil {
				f.FillMessage(e) // who logs in is worth more than who runs sshd
			}
		case f != nil:
			f.Fill(e)
		default:
			e.Message, e.Severity = e.Raw, event.NoSeverity
		}
		if e.Host == "" {
			e.Host = e.Origin.Host
		}
		if e.Unit == "" {
			e.Unit = container(e.Origin.Source)
		}
	}
}

// container returns the container that a source is of: NAME of docker:NAME, or
// POD/CONTAINER of pod:NAMESPACE/POD/CONTAINER.
func container(source string) string {
	if name, ok := strings.CutPrefix(source, "docker:"); ok {
		return name
	}
	if name, ok := strings.CutPrefix(source, "pod:"); ok {
		_, name, _ = strings.Cut(name, "/")
		return name
	}
	return ""
}
