package update

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/mobileops/mobileops/internal/update/sla"
)

// slaView is how the security updates of this host stand.
type slaView struct {
	now     time.Time
	ledger  sla.Ledger
	within  time.Duration // 0: everything is listed
	source  string        // "": all
	since   time.Time     // of a report: fixed ones from here on
	history bool          // fixed ones too
	changes sla.Changes

	sources []sla.SourceStatus
	all     []sla.Entry // those not fixed and, with history, the others
	list    []sla.Entry // those of them that are listed
}

func (v *slaView) read(tx *state.Tx) (err error) {
	if v.sources, err = v.ledger.Sources(tx); err != nil {
		return err
	}
	if v.source != "" {
		v.sources = slices.DeleteFunc(v.sources, func(s sla.SourceStatus) bool { return s.Name != v.source })
	}
	f := sla.Filter{States: []sla.State{sla.Overdue, sla.Pending, sla.Waived}, Since: v.since}
	if v.history {
		f.States = nil
	}
	if v.source != "" {
		f.Sources = []string{v.source}
	}
	if v.all, err = v.ledger.List(tx, f, v.now); err != nil {
		return err
	}
	v.list = v.all
	if v.within > 0 {
		v.list = slices.DeleteFunc(slices.Clone(v.all), func(e sla.Entry) bool { return !v.attention(&e) })
	}
	return nil
}

// tooOld makes sources incomplete at which nobody has looked for long.
func (v *slaView) tooOld(most time.Duration) {
	for i := range v.sources {
		if s := &v.sources[i]; most > 0 && s.State == "complete" && v.now.Sub(s.Looked) > most {
			s.State = "incomplete"
			s.Problems = append(s.Problems, "nobody has looked since "+s.Looked.Format(time.DateOnly)+": run mobileops update sla")
		}
	}
}

// attention reports whether an update is overdue, or due within the span that was
// asked for. What is waived is not.
func (v *slaView) attention(e *sla.Entry) bool {
	left, ever := e.Left(v.now)
	return e.State == sla.Overdue || e.State == sla.Pending && ever && v.within > 0 && left <= v.within
}

// verdict is the exit status.
func (v *slaView) verdict() failure.Kind {
	kind := failure.None
	if slices.ContainsFunc(v.all, func(e sla.Entry) bool { return v.attention(&e) }) {
		kind = failure.No
	}
	return failure.Worse(kind, v.completeness())
}

// completeness is what the sources add to it.
func (v *slaView) completeness() failure.Kind {
	if !slices.ContainsFunc(v.sources, func(s sla.SourceStatus) bool { return s.State != "skipped" }) {
		return failure.NotReady
	}
	if slices.ContainsFunc(v.sources, func(s sla.SourceStatus) bool { return s.State == "incomplete" }) {
		return failure.Incomplete
	}
	return failure.None
}

// summary is one line about all of it.
func (v *slaView) summary() string {
	total := sla.Count(v.all)
	t := total[len(total)-1]
	if t.Overdue+t.Pending+t.Waived == 0 {
		if v.completeness() != failure.None {
			return "no security update is known to be missing"
		}
		return "no security update is missing"
	}
	line := ui.Plural(int64(t.Overdue+t.Pending+t.Waived), "security update", "security updates") + " missing: "
	var parts []string
	for _, p := range []struct {
		n    int
		word string
	}{{t.Overdue, "overdue"}, {t.Pending, "pending"}, {t.Waived, "waived"}} {
		if p.n > 0 {
			parts = append(parts, ui.Count(int64(p.n))+" "+p.word)
		}
	}
	line += strings.Join(parts, ", ")
	for _, e := range v.all {
		if e.State == sla.Pending && !e.Due.IsZero() {
			return line + "; the next is due on " + e.Due.In(v.now.Location()).Format(time.DateOnly)
		}
	}
	return line
}

// slaRecord is an update in JSON.
type slaRecord struct {
	ID    string    `json:"id"`
	State sla.State `json:"state"`
	Due   time.Time `json:"due,omitzero"`
	// DaysLeft is negative when it is overdue; nil when it is fixed or never due.
	DaysLeft *float64 `json:"days_left,omitempty"`
	*sla.Record
}

func slaRecords(list []sla.Entry, now time.Time) []slaRecord {
	out := []slaRecord{}
	for i := range list {
		e := &list[i]
		r := slaRecord{ID: e.ID(), State: e.State, Due: e.Due, Record: e.Record}
		if left, ever := e.Left(now); ever && e.State != sla.Fixed {
			r.DaysLeft = new(left.Hours() / 24)
		}
		out = append(out, r)
	}
	return out
}

// slaDocument is what update sla and update sla report print as JSON.
type slaDocument struct {
	Schema     string             `json:"schema"`
	Generated  time.Time          `json:"generated"`
	Complete   bool               `json:"complete"` // every source was read
	Policy     slaPolicyRecord    `json:"policy"`
	Sources    []sla.SourceStatus `json:"sources"`
	Changes    *sla.Changes       `json:"changes,omitempty"`
	Since      time.Time          `json:"since,omitzero"`
	Statistics []sla.Statistics   `json:"statistics"`
	Advisories []slaRecord        `json:"advisories"`
}

// slaPolicyRecord has the deadlines in days; nil: never due.
type slaPolicyRecord struct {
	Critical *float64 `json:"critical_days"`
	High     *float64 `json:"high_days"`
	Medium   *float64 `json:"medium_days"`
	Low      *float64 `json:"low_days"`
}

func newSLAPolicyRecord(p sla.Policy) slaPolicyRecord {
	within := func(s sla.Severity) *float64 {
		d := p.Within(s)
		if d == 0 {
			return nil
		}
		return new(d.Hours() / 24)
	}
	return slaPolicyRecord{within(sla.Critical), within(sla.High), within(sla.Medium), within(sla.Low)}
}

func (v *slaView) document(schema string) slaDocument {
	d := slaDocument{
		Schema: schema, Generated: v.now.UTC(), Complete: v.completeness() == failure.None, Policy: newSLAPolicyRecord(v.ledger.Policy),
		Sources: v.sources, Since: v.since.UTC(), Statistics: sla.Count(v.all), Advisories: slaRecords(v.list, v.now),
	}
	if d.Sources == nil {
		d.Sources = []sla.SourceStatus{}
	}
	return d
}

// print prints what update sla shows.
func (v *slaView) print(a *app.App) error {
	switch a.Streams.Format {
	case ui.JSON:
		d := v.document("mobileops.update.sla/v1")
		d.Changes = &v.changes
		return a.Streams.Document(d)
	case ui.JSONL:
		return printSLALines(a, slaRecords(v.list, v.now))
	}
	v.printProblems(a)
	list := v.list
	if a.Streams.Quiet {
		list = slices.DeleteFunc(slices.Clone(list), func(e sla.Entry) bool { return !v.attention(&e) })
	}
	if err := v.table(a, list).Print(); err != nil || a.Streams.Quiet {
		return err
	}
	a.Streams.Notice("%s", v.summary())
	return nil
}

// printProblems says what could not be read. A source that is not on this host
// is no news for cron, unless there is no other.
func (v *slaView) printProblems(a *app.App) {
	if len(v.sources) == 0 {
		a.Streams.Notice("nobody has looked yet (look: mobileops update sla)")
	}
	for _, s := range v.sources {
		if s.State == "complete" || s.State == "skipped" && a.Streams.Quiet && v.completeness() != failure.NotReady {
			continue
		}
		for _, p := range s.Problems {
			a.Streams.Notice("%s, %s: %s", s.Name, s.State, p)
		}
	}
}

func printSLALines(a *app.App, list []slaRecord) error {
	out := a.Streams.Lines()
	for _, r := range list {
		if err := out.Print(r); err != nil {
			return err
		}
	}
	return out.Flush()
}

func (v *slaView) table(a *app.App, list []sla.Entry) *ui.Table {
	theme := a.Streams.Theme()
	table := a.Streams.NewTable(
		ui.Column{Title: "UPDATE", Min: 20, KeepEnd: true}, ui.Column{Title: "SEVERITY"}, ui.Column{Title: "STATE"}, ui.Column{Title: "PUBLISHED", Drop: 4},
		ui.Column{Title: "FIRST KNOWN", Drop: 3}, ui.Column{Title: "DUE"}, ui.Column{Title: "LEFT"}, ui.Column{Title: "INSTALLED", Drop: 5, Min: 8}, ui.Column{Title: "WAIVER", Min: 10, Drop: 1}, ui.Column{Title: "NOTE", Min: 6, Drop: 2})
	for i := range list {
		e := &list[i]
		style := theme.Faint
		switch e.State {
		case sla.Overdue:
			style = theme.Bad
		case sla.Pending:
			style = theme.Warn
		}
		table.Row(e.ID(),
			ui.Cell{Text: string(e.Severity), Style: func(s string) string { return theme.Severity(int(e.Severity.Finding()), s) }},
			ui.Cell{Text: string(e.State), Style: style}, v.date(e.Published), v.date(e.FirstKnown), v.date(e.Due), v.left(e), e.Installed, v.waiver(e), e.Note)
	}
	return table
}

// date writes the day of a moment, as it is where the host stands.
func (v *slaView) date(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.In(v.now.Location()).Format(time.DateOnly)
}

// days writes a span in whole days, unless it is less than two.
func days(d time.Duration) string {
	if d >= 48*time.Hour {
		return ui.Plural(int64(d/(24*time.Hour)), "day", "days")
	}
	return ui.Duration(d)
}

// left says how long there is.
func (v *slaView) left(e *sla.Entry) string {
	if e.State == sla.Fixed {
		return strings.ReplaceAll(string(e.Outcome), "-", " ")
	}
	left, ever := e.Left(v.now)
	switch {
	case !ever:
		return "never due"
	case left < 0:
		return "overdue by " + days(-left)
	}
	return days(left)
}

func (v *slaView) waiver(e *sla.Entry) string {
	switch {
	case e.State == sla.Fixed && e.Outcome != sla.UnderWaiver:
		return ""
	case e.Request != nil:
		return "asked for by " + e.Request.Requested.By.Describe()
	case e.Waiver != nil && (e.State == sla.Waived || e.State == sla.Fixed):
		return fmt.Sprintf("until %s, %s", v.date(e.Waiver.Until), e.Waiver.Owner)
	case e.Waiver != nil:
		return "ended " + v.date(e.Waiver.Until)
	}
	return ""
}

// newSLAView is a view of what is stored, by the policy of the configuration: of
// its file, which whoever runs this cannot override.
func newSLAView(a *app.App) (*slaView, *config.Config, error) {
	if err := a.Govern("update.sla_critical", "update.sla_high", "update.sla_medium", "update.sla_low", "update.sla_debian", "update.sla_lists_age"); err != nil {
		return nil, nil, err
	}
	c, err := a.Config()
	if err != nil {
		return nil, nil, err
	}
	return &slaView{now: time.Now().Round(0), ledger: slaLedger(c)}, c, nil
}
