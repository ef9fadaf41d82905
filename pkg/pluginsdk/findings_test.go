package pluginsdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestFindingsPageByPage(t *testing.T) {
	c, h := start(t)
	asked := make(chan string, 10)
	h.serve(func(m heard) (string, *Error) {
		asked <- string(m.Params)
		if strings.Contains(string(m.Params), `"after":"p2"`) {
			return `{"findings":[{"rule":"r3","severity":"critical"}],"next":""}`, nil
		}
		if strings.Contains(string(m.Params), `"after":"p1"`) {
			return `{"findings":[],"next":"p2"}`, nil
		}
		return `{"findings":[{"rule":"r1","severity":"high","new_field":1},{"rule":"r2","severity":"low"}],"next":"p1"}`, nil
	})
	var got []string
	for f, err := range c.Findings(within(t), Filter{Source: "integrity", State: Open, MinSeverity: Low, PageSize: 2}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, f.Rule+" "+f.Severity.String())
	}
	if fmt.Sprint(got) != "[r1 high r2 low r3 critical]" {
		t.Errorf("%v", got)
	}
	if want := `{"source":"integrity","state":"open","min_severity":"low","limit":2}`; <-asked != want {
		t.Errorf("the first question is not %s", want)
	}
	for range c.Findings(within(t), Filter{}) {
		break // asks for no further page
	}
}

func TestFindingsEnds(t *testing.T) {
	c, h := start(t)
	h.serve(func(m heard) (string, *Error) {
		return `{"findings":[{"rule":"r","severity":"info"}],"next":"same"}`, nil
	})
	n := 0
	var last error
	for _, err := range c.Findings(within(t), Filter{}) {
		n, last = n+1, err
	}
	if n != 3 || !errors.Is(last, ErrProtocol) {
		t.Errorf("a page that comes after itself: %d findings, %v", n, last)
	}
}

// report is what the host is told of a report.
type report struct {
	Scope          string
	Part, Complete bool
	Findings       []Finding
}

func TestReportSplits(t *testing.T) {
	big := strings.Repeat("x", 300<<10)
	for name, tc := range map[string]struct {
		found    []Finding
		complete bool
		want     string // findings in each call, and p or c
	}{
		"nothing":             {nil, true, "0c"},
		"partial":             {make([]Finding, 3), false, "3"},
		"a full call":         {make([]Finding, 1000), true, "1000c"},
		"more":                {make([]Finding, 2500), true, "1000p 1000p 500c"},
		"more of a partial":   {make([]Finding, 1001), false, "1000 1"},
		"more than a line":    {[]Finding{{Subject: big}, {Subject: big}, {Subject: big}, {Subject: big}}, true, "3p 1c"},
		"just below one line": {[]Finding{{Subject: strings.Repeat("x", MaxLine-reportReserve-150)}, {}}, true, "1p 1c"},
	} {
		t.Run(name, func(t *testing.T) {
			c, h := start(t)
			var calls []string
			next := 0
			h.serve(func(m heard) (string, *Error) {
				var r report
				if err := json.Unmarshal(m.Params, &r); err != nil || r.Scope != "s" {
					t.Errorf("scope %q, %v", r.Scope, err)
				}
				call := fmt.Sprint(len(r.Findings))
				if r.Part {
					call += "p"
				}
				if r.Complete {
					call += "c"
				}
				calls = append(calls, call)
				for _, f := range r.Findings {
					if f.Source != "plugin/sample" || f.Rule != fmt.Sprint(next) || f.ID != "" {
						t.Errorf("finding %d is %.100q of %q", next, f.Rule, f.Source)
					}
					next++
				}
				return fmt.Sprintf(`{"new":%d,"seen":1}`, len(r.Findings)), nil
			})
			for i := range tc.found {
				tc.found[i].Rule, tc.found[i].ID = fmt.Sprint(i), "abc"
			}
			sum, err := c.Report(within(t), "s", tc.complete, tc.found)
			h.mu.Lock()
			defer h.mu.Unlock()
			if err != nil || sum.New != len(tc.found) || sum.Seen != len(calls) {
				t.Errorf("%+v, %v", sum, err)
			}
			if got := strings.Join(calls, " "); got != tc.want {
				t.Errorf("calls %s, want %s", got, tc.want)
			}
		})
	}
}

func TestReportRefusesBeforeItSends(t *testing.T) {
	c, h := start(t)
	h.serve(func(m heard) (string, *Error) { t.Error("the host was asked"); return "{}", nil })
	for name, tc := range map[string]struct {
		scope string
		bad   Finding
		want  Code
	}{
		"too large":      {"s", Finding{Subject: strings.Repeat("x", MaxLine)}, CodeTooLarge},
		"foreign source": {"s", Finding{Source: "integrity"}, CodeInvalid},
		"long scope":     {strings.Repeat("s", 257), Finding{}, CodeInvalid},
	} {
		_, err := c.Report(within(t), tc.scope, true, []Finding{{Rule: "fine"}, tc.bad})
		if !errors.Is(err, &Error{Code: tc.want}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.Report(within(t), "s", true, []Finding{{Severity: 9}}); err == nil {
		t.Error("a severity that does not exist was reported")
	}
}

// A host that is busy is asked again; a refusal of another kind is final.
func TestBusyIsAskedAgain(t *testing.T) {
	c, h := start(t)
	asked := 0
	h.serve(func(m heard) (string, *Error) {
		if asked++; asked < 3 {
			return "", &Error{CodeBusy, "the state is in use"}
		}
		return `{"new":1}`, nil
	})
	sum, err := c.Report(within(t), "s", false, []Finding{{Rule: "r"}})
	h.mu.Lock()
	if err != nil || sum.New != 1 || asked != 3 {
		t.Errorf("%+v, %v after %d calls", sum, err, asked)
	}
	asked = -1 << 30
	h.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		// The second time may be under way, or have been refused.
		eventually(t, "asked twice", func() bool { return c.lastIDNow() >= 5 })
		cancel()
	}()
	if _, err := c.Secret(ctx, "x"); !errors.Is(err, context.Canceled) || !errors.Is(err, &Error{Code: CodeBusy}) {
		t.Errorf("%v", err)
	}
}

func (c *Client) lastIDNow() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lastID
}
