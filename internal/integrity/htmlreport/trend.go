package htmlreport

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/finding"
	"github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/facts"
)

// trend is the chart of the last reports, a bar for each, and the same as a
// table. Coordinates are those of the SVG, from its upper left corner.
type trend struct {
	Width, Height int
	Base, Left    int // of the axes
	Bars          []bar
	Lines         []line // horizontal, with what they stand for
	Series        []series
	First, Last   string // dates below the axis
	Summary       string // the chart in a sentence
	Table         []pastRow
	Columns       []string // of the table: names of the series
	Left100       string   // how many older reports are left out
}

type series struct {
	Name string
	Tone int // which of the colours and patterns
}

type bar struct {
	X, Width int
	Parts    []part
	Clean    bool // no changes: a mark on the axis
	Lost     bool // incomplete
	Current  bool
	Title    string
}

type part struct{ Y, Height, Tone int }

type line struct {
	Y    int
	Text string
}

type pastRow struct {
	When    moment
	Mode    string
	Numbers []string
	Total   string
	Lost    string
	Runs    string
	Current bool
}

// Geometry of the chart. It is scaled to the width of the page.
const (
	chartWidth  = 720
	chartHeight = 232
	plotLeft    = 72
	plotTop     = 14
	plotBase    = 182
	widestBar   = 48
	thinnest    = 3 // a part that is not nothing is seen
)

// newTrend draws the reports of one name, the newest first as they come.
func newTrend(past []integrity.ReportEntry, current string, limit int) *trend {
	if len(past) == 0 {
		return nil
	}
	list := slices.Clone(past) // by the order of their numbers: the clock may have been set
	slices.Reverse(list)
	t := &trend{Width: chartWidth, Height: chartHeight, Base: plotBase, Left: plotLeft}
	if n := len(list) - limit; n > 0 {
		t.Left100 = count(int64(n))
		list = list[n:]
	}
	names, number := seriesOf(list)
	most, occurs := 0, make([]int, len(names))
	for i := range list {
		most = max(most, int(differences(&list[i])))
		for n, k := range number(&list[i]) {
			occurs[n] += k
		}
	}
	for n, name := range names {
		if occurs[n] > 0 {
			t.Series = append(t.Series, series{name, n})
			t.Columns = append(t.Columns, name)
		}
	}
	top := ceiling(most)
	for n := range 3 {
		if value := top * n / 2; n == 0 || value > 0 && value*2 == top*n {
			t.Lines = append(t.Lines, line{plotBase - (plotBase-plotTop)*n/2, short(value)})
		}
	}
	step := (chartWidth - plotLeft - 8) * 1000 / len(list)
	width := min(max(step*8/10000, 2), widestBar)
	for i := range list {
		e := &list[i]
		counts := number(e)
		b := bar{
			X: plotLeft + 4 + (step*i+step/2)/1000 - width/2, Width: width, Current: e.ID == current,
			Clean: differences(e) == 0, Lost: e.Summary.Unreadable+e.Summary.Unstable > 0,
			Title: at(e.Last).Text + ": " + plural(int(differences(e)), "change", "changes"),
		}
		y := plotBase
		for n := len(names) - 1; n >= 0; n-- { // the worst on top
			if counts[n] == 0 {
				continue
			}
			h := max((plotBase-plotTop)*counts[n]/top, thinnest)
			y -= h
			b.Parts = append(b.Parts, part{y, h, n})
		}
		t.Bars = append(t.Bars, b)
		row := pastRow{When: at(e.Last), Mode: e.Mode(), Total: count(differences(e)), Current: b.Current, Lost: count(e.Summary.Unreadable + e.Summary.Unstable), Runs: count(int64(max(e.Runs, 1)))}
		for n, k := range counts {
			if occurs[n] > 0 {
				row.Numbers = append(row.Numbers, count(int64(k)))
			}
		}
		t.Table = append(t.Table, row)
	}
	slices.Reverse(t.Table) // people look for the latest
	t.First, t.Last = list[0].Last.UTC().Format("2 Jan 2006"), list[len(list)-1].Last.UTC().Format("2 Jan 2006")
	if len(list) == 1 || t.First == t.Last {
		t.First = ""
	}
	latest := count(differences(&list[len(list)-1]))
	t.Summary = fmt.Sprintf("Changes in the last %s: %s in the latest, %s at most.", plural(len(list), "report", "reports"), latest, count(int64(most)))
	if len(list) == 1 {
		t.Summary = "There is one report so far, with " + plural(most, "change", "changes") + "."
	}
	return t
}

// differences are all that a report found, of files and beside them.
func differences(e *integrity.ReportEntry) int64 { return e.Summary.Differences() + int64(e.Drift) }

// alike returns the reports that looked at what e looked at, so that a look at
// the network alone is no bar without changes between those of files.
func alike(past []integrity.ReportEntry, e *integrity.ReportEntry) []integrity.ReportEntry {
	return slices.DeleteFunc(slices.Clone(past), func(p integrity.ReportEntry) bool {
		if ofFiles(p.Aspects) && ofFiles(e.Aspects) {
			return false
		}
		return !slices.Equal(p.Aspects, e.Aspects)
	})
}

// ofFiles tells whether a report of these aspects is about files. Of one that
// names none, that is all.
func ofFiles(aspects []string) bool { return aspects == nil || slices.Contains(aspects, facts.Files) }

// seriesOf returns what the bars are made of: the classes where changes were
// classified, else severities; and how many of each a report has. What is not
// among them is counted as not sorted.
func seriesOf(list []integrity.ReportEntry) (names []string, number func(*integrity.ReportEntry) []int) {
	classed := slices.ContainsFunc(list, func(e integrity.ReportEntry) bool {
		return slices.ContainsFunc(integrity.Classes(), func(c integrity.Class) bool { return e.Classes[c] > 0 })
	})
	var of []func(*integrity.ReportEntry) int
	if classed {
		for _, c := range integrity.Classes() {
			names, of = append(names, string(c)), append(of, func(e *integrity.ReportEntry) int { return e.Classes[c] })
		}
	} else {
		all := finding.Severities()
		slices.Reverse(all)
		for _, s := range all {
			names, of = append(names, s.String()), append(of, func(e *integrity.ReportEntry) int { return e.Severities[s.String()] })
		}
	}
	names = append(names, "not sorted")
	if classed { // severities have them already
		names = append(names, "beside files")
	}
	return names, func(e *integrity.ReportEntry) []int {
		counts, rest := make([]int, 0, len(names)), int(differences(e))
		for _, f := range of {
			counts = append(counts, f(e))
			rest -= f(e)
		}
		if classed {
			return append(counts, max(rest-e.Drift, 0), e.Drift)
		}
		return append(counts, max(rest, 0))
	}
}

// short writes a number of an axis: "800", "1.5k", "20k", "3M".
func short(n int) string {
	for _, u := range []struct {
		of   int
		unit string
	}{{1_000_000, "M"}, {1000, "k"}} {
		if n >= u.of {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/float64(u.of)), ".0") + u.unit
		}
	}
	return strconv.Itoa(n)
}

// ceiling returns a round number that is not below n: 1, 2, 4, 6, 8, 10, 20, …
func ceiling(n int) int {
	for step := 1; ; step *= 10 {
		for _, m := range []int{1, 2, 4, 6, 8} {
			if step*m >= n {
				return step * m
			}
		}
	}
}
