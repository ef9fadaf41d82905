package query

import (
	"strconv"
	"strings"

	"github.com/mobileops/mobileops/internal/spelling"
)

// statNames are the functions of stats.
func statNames() []string {
	return []string{"count", "sum", "min", "max", "avg", "p50", "p90", "p95", "p99", "dc"}
}

// maxFuncs is how many functions one stats may have.
const maxFuncs = 32

// stats reads the functions of stats, and what is grouped by.
func (p *parser) stats(columns []Column) (stage, error) {
	at := p.pos
	s := &statsStage{}
	for {
		p.skip()
		if len(s.funcs) == 0 && p.at("by") {
			s.funcs = append(s.funcs, statFunc{name: "count", column: Column{"count", Number}})
			break
		}
		f, err := p.statFunc(columns)
		if err != nil {
			return nil, err
		}
		if s.funcs = append(s.funcs, f); len(s.funcs) > maxFuncs {
			return nil, p.failf(p.pos, "", "more than %d functions", maxFuncs)
		}
		if p.skip(); p.peek(0) != ',' {
			break
		}
		p.pos++
	}
	var err error
	if s.by, err = p.groups(columns)(); err != nil {
		return nil, err
	}
	if err := p.stageEnd("stats count(), avg(field) by host, time(1h)"); err != nil {
		return nil, err
	}
	return s, p.distinctNames(at, s.table())
}

// statFunc reads one function: avg(bytes) as size.
func (p *parser) statFunc(columns []Column) (statFunc, error) {
	at := p.pos
	n := nameLength(p.rest())
	f := statFunc{name: p.src[at : at+n], column: Column{Kind: Number}}
	switch f.name {
	case "count", "sum", "min", "max", "avg", "dc":
	case "mean":
		f.name = "avg"
	case "median":
		f.name, f.quantile = "p50", 0.5
	default:
		digits, ok := strings.CutPrefix(f.name, "p")
		q, err := strconv.ParseUint(digits, 10, 8)
		if !ok || err != nil || q < 1 || q > 99 || len(digits) > 2 || digits[0] == '0' {
			hint := "functions: " + strings.Join(statNames(), ", ")
			if s := spelling.Nearest(f.name, append(statNames(), "median")); s != "" {
				hint = "did you mean " + s + "?"
			}
			if f.name == "" {
				return f, p.fail(at, "a function is expected here", hint)
			}
			return f, p.failf(at, hint, "%s is no function", quote(f.name))
		}
		f.quantile = float64(q) / 100
	}
	p.pos += n
	if p.peek(0) == '(' {
		p.pos++
		if p.skip(); p.peek(0) != ')' {
			argument := p.pos
			c, err := p.columnName(columns)
			if err != nil {
				return f, err
			}
			f.of = c
			if kind := c.kind(columns); kind == Time {
				switch f.name {
				case "min", "max":
					f.column.Kind = Time
				case "count", "dc":
				default:
					return f, p.failf(argument, "min, max, count and dc do", "%s makes no sense of times", f.name)
				}
			}
		}
		if p.skip(); p.peek(0) != ')' {
			return f, p.fail(p.pos, `")" expected`, "a function has one field: "+f.name+"(field)")
		}
		p.pos++
	}
	if f.of.name == "" && f.name != "count" {
		return f, p.failf(at, f.name+"(field)", "%s needs a field", f.name)
	}
	f.column.Name = f.standardName()
	if p.keyword("as", "") {
		p.skip()
		n := nameLength(p.rest())
		if n == 0 {
			return f, p.fail(p.pos, "a name is expected behind as", "count() as n")
		}
		f.column.Name = p.rest()[:n]
		p.pos += n
	}
	return f, nil
}

// leadingStats is the stats that a pipeline begins with.
func leadingStats(stages []stage) (*statsStage, bool) {
	if len(stages) == 0 {
		return nil, false
	}
	switch s := stages[0].(type) {
	case *statsStage:
		return s, true
	case *topStage:
		return s.stats, true
	case *histogramStage:
		return s.stats, true
	}
	return nil, false
}
