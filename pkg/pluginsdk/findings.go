package pluginsdk

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
)

// Filter selects findings. The zero value selects all that the plugin may
// read.
type Filter struct {
	Source      string   // "integrity"; empty: any
	State       State    // empty: any
	MinSeverity Severity // at least this
	PageSize    int      // findings to ask for at once; 0: 500
}

const defaultPage = 500

// Findings iterates over findings, page by page. An error ends it, and is the
// last thing it yields. It needs the permission findings: [read].
func (c *Client) Findings(ctx context.Context, filter Filter) iter.Seq2[Finding, error] {
	return func(yield func(Finding, error) bool) {
		params := struct {
			Source      string `json:"source,omitempty"`
			State       State  `json:"state,omitempty"`
			MinSeverity string `json:"min_severity,omitempty"`
			Limit       int    `json:"limit"`
			After       string `json:"after,omitempty"`
		}{Source: filter.Source, State: filter.State, Limit: filter.PageSize}
		if filter.MinSeverity != Info {
			params.MinSeverity = filter.MinSeverity.String()
		}
		if params.Limit <= 0 {
			params.Limit = defaultPage
		}
		for {
			var page struct {
				Findings []findingWire `json:"findings"`
				Next     string        `json:"next"`
			}
			if err := c.ask(ctx, "findings.list", params, &page); err != nil {
				yield(Finding{}, err)
				return
			}
			for i := range page.Findings {
				if !yield(page.Findings[i].finding(), nil) {
					return
				}
			}
			if page.Next == "" {
				return
			}
			if page.Next == params.After {
				yield(Finding{}, fmt.Errorf("findings.list: %w: the page after %.64q is that page again", ErrProtocol, page.Next))
				return
			}
			params.After = page.Next
		}
	}
}

// Summary says what a report did.
type Summary struct {
	New      int `json:"new"`      // never seen before
	Seen     int `json:"seen"`     // known, found again, state unchanged
	Reopened int `json:"reopened"` // open again
	Resolved int `json:"resolved"` // no longer found by any scope
}

const (
	maxReport     = 1000    // findings in one call
	reportReserve = 4 << 10 // bytes of a line that are not findings: scope, numbers
)

// Report hands in what a scan of a scope found. A complete report resolves
// what earlier reports of the scope found and this one does not have. More
// than fits into one call is sent in parts, which count once the last of them
// has arrived. It needs the permission findings: [report].
//
// Nothing is sent if a finding does not fit into a line, which is an *Error
// with CodeTooLarge.
func (c *Client) Report(ctx context.Context, scope string, complete bool, found []Finding) (Summary, error) {
	var sum Summary
	own := "plugin/" + c.hello.Plugin.Name
	encoded := func(i int) (json.RawMessage, error) {
		w := found[i].reported()
		w.Source = own
		raw, err := json.Marshal(&w)
		if err != nil {
			return nil, fmt.Errorf("findings.report: finding %d (%.64q): %w", i, found[i].Rule, err)
		}
		if len(raw) > MaxLine-reportReserve {
			return nil, fmt.Errorf("findings.report: finding %d (%.64q): %w", i, found[i].Rule,
				&Error{CodeTooLarge, fmt.Sprintf("%d bytes (at most %d)", len(raw), MaxLine-reportReserve)})
		}
		return raw, nil
	}
	if len(scope) > 256 {
		return sum, fmt.Errorf("findings.report: %w", &Error{CodeInvalid, "the scope exceeds 256 bytes"})
	}
	for i := range found {
		if s := found[i].Source; s != "" && s != own {
			return sum, fmt.Errorf("findings.report: finding %d: %w", i, &Error{CodeInvalid, fmt.Sprintf("source %.64q is not %q", s, own)})
		}
		if _, err := encoded(i); err != nil {
			return sum, err
		}
	}
	select {
	case c.reporting <- struct{}{}:
		defer func() { <-c.reporting }()
	case <-ctx.Done():
		return sum, fmt.Errorf("findings.report: %w", ctx.Err())
	case <-c.done:
		return sum, fmt.Errorf("findings.report: %w", c.Err())
	}
	for next := 0; ; {
		params := struct {
			Scope    string            `json:"scope"`
			Part     bool              `json:"part,omitempty"`
			Complete bool              `json:"complete"`
			Findings []json.RawMessage `json:"findings"`
		}{Scope: scope, Findings: []json.RawMessage{}}
		for size := 0; next < len(found) && len(params.Findings) < maxReport; next++ {
			raw, err := encoded(next)
			if err != nil {
				return sum, err
			}
			if size += len(raw) + 1; size > MaxLine-reportReserve && len(params.Findings) > 0 {
				break
			}
			params.Findings = append(params.Findings, raw)
		}
		last := next == len(found)
		params.Part = complete && !last
		params.Complete = complete && last
		var did Summary
		if err := c.ask(ctx, "findings.report", params, &did); err != nil {
			return sum, err
		}
		sum.New += did.New
		sum.Seen += did.Seen
		sum.Reopened += did.Reopened
		sum.Resolved += did.Resolved
		if last {
			return sum, nil
		}
	}
}
