package format

import "github.com/mobileops/mobileops/pkg/pluginsdk"

// hec writes events for Splunk's HTTP Event Collector, /services/collector/event.
// A body holds one after the other. The id is an indexed field, by which a
// search finds what was delivered twice.
type hec struct {
	common
	constant []byte // host, source and index, which are the same in all events
}

func newHEC(c common, opts Options) *hec {
	if opts.Source == "" {
		opts.Source = product
	}
	h := &hec{common: c}
	h.constant = text(h.constant, "host", opts.Host)
	h.constant = text(h.constant, "source", opts.Source)
	h.constant = text(h.constant, "index", opts.Index)
	return h
}

func (h *hec) ContentType() string { return "application/json" }

func (h *hec) Append(dst []byte, e *pluginsdk.Event) ([]byte, error) {
	if err := check(e); err != nil {
		return dst, err
	}
	b := append(dst, '{')
	if known(e.Time) {
		b = append(appendSeconds(name(b, "time"), e.Time), ',')
	}
	b = append(b, h.constant...)
	if h.opts.Sourcetype != "" {
		b = text(b, "sourcetype", h.opts.Sourcetype)
	} else {
		b = append(name(b, "sourcetype"), `"`+product+":"...)
		b = append(appendJSONText(b, e.Type), '"', ',')
	}
	b = append(h.object(name(b, "event"), e, false), ',')
	b = append(name(b, "fields"), '{')
	b = text(b, "id", e.ID)
	b = text(b, "type", e.Type)
	b = text(b, "severity", severity(e).String())
	b = text(b, "change", e.Change)
	if f := finding(e); f != nil {
		b = text(b, "fingerprint", f.Fingerprint)
		b = text(b, "rule", f.Rule)
	}
	return closed(append(closed(b, '}'), ','), '}'), nil
}
