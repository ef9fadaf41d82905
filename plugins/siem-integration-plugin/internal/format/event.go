package format

import (
	"fmt"
	"strings"

	"github.com/mobileops/mobileops/pkg/pluginsdk"
)

// check returns an error for an event of a known type without its content.
// Events of types that are not known are written with what is known of them.
func check(e *pluginsdk.Event) error {
	switch {
	case e.Type == pluginsdk.TypeFinding && e.Finding == nil:
		return fmt.Errorf("event %.80q is of type finding and has none", e.ID)
	case e.Type == pluginsdk.TypeAudit && e.Audit == nil:
		return fmt.Errorf("event %.80q is of type audit and has no audit record", e.ID)
	}
	return nil
}

// finding returns the finding of an event about one, else nil.
func finding(e *pluginsdk.Event) *pluginsdk.Finding {
	if e.Type == pluginsdk.TypeFinding {
		return e.Finding
	}
	return nil
}

// act returns the audit record of an event about one, else nil.
func act(e *pluginsdk.Event) *pluginsdk.AuditRecord {
	if e.Type == pluginsdk.TypeAudit {
		return e.Audit
	}
	return nil
}

// Exit statuses of mobileops that an audit record is rated by: see its table of
// exit statuses.
const (
	statusNotAllowed    = 4
	statusUntrustworthy = 5
)

// severity rates an event. A finding has its own. An act is news for nobody,
// unless it was refused for want of rights or of trust. That events are missing
// is something to look into.
func severity(e *pluginsdk.Event) pluginsdk.Severity {
	if f := finding(e); f != nil {
		return min(max(f.Severity, pluginsdk.Info), pluginsdk.Critical)
	}
	if a := act(e); a != nil {
		switch a.Status {
		case 0:
			return pluginsdk.Info
		case statusNotAllowed, statusUntrustworthy:
			return pluginsdk.Medium
		}
		return pluginsdk.Low
	}
	if e.Type == pluginsdk.TypeGap {
		return pluginsdk.High
	}
	return pluginsdk.Info
}

// rating is a severity in the numbers of CEF, whose bands are 0-3 low, 4-6
// medium, 7-8 high and 9-10 very high. LEEF and ECS get the same ones.
func rating(s pluginsdk.Severity) string {
	switch s {
	case pluginsdk.Critical:
		return "10"
	case pluginsdk.High:
		return "8"
	case pluginsdk.Medium:
		return "5"
	case pluginsdk.Low:
		return "3"
	}
	return "1"
}

// title is the text of one line that people read.
func title(f *pluginsdk.Finding) string {
	if f.Title == "" {
		return f.Rule
	}
	return f.Title
}

// outcome is success or failure of an act, in the word of CEF and ECS.
func outcome(a *pluginsdk.AuditRecord) string {
	if a.Status == 0 {
		return "success"
	}
	return "failure"
}

// filePath reports whether a subject is the path of a file.
func filePath(subject string) bool { return strings.HasPrefix(subject, "/") }
