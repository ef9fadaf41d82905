package query

import (
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/spelling"
)

// stageNames are the stages, in the order of docs/query.md.
func stageNames() []string {
	return []string{"stats", "count", "top", "histogram", "where", "dedup", "sort", "head", "tail", "fields"}
}

// programHint says what stands for a program that people pipe grep into.
func programHint(name string) string {
	switch name {
	case "wc":
		return "to count: | count"
	case "grep", "egrep", "rg":
		return "to narrow the search put the words one after the other; to leave something out: -text"
	case "uniq":
		return "to count by a field: | top 10 FIELD, or | dedup FIELD"
	case "awk", "cut":
		return "to choose fields: | fields time, host, message"
	case "less", "more", "cat":
		return "put the pipe behind the quotes of the expression"
	case "limit":
		return "to see the first ten: | head 10"
	}
	return ""
}

// pipeline reads the stages behind the filter. columns are those of the table
// that the first of them gets; nil for events.
func (p *parser) pipeline(columns []Column) ([]stage, error) {
	var stages []stage
	for p.skip(); !p.end(); p.skip() {
		if p.src[p.pos] != '|' {
			return nil, p.fail(p.pos, `"|" or the end is expected here`, "")
		}
		bar := p.pos
		p.pos++
		p.skip()
		at := p.pos
		name := p.src[at : at+nameLength(p.rest())]
		if strings.HasPrefix(p.rest(), "=") || strings.HasPrefix(p.rest(), "~") {
			return nil, p.fail(bar, `"|" begins a stage such as count or head`, "texts to find stand next to each other: sshd failed; regular expressions between slashes: /fail(ed|ure)/")
		}
		p.pos += len(name)
		if len(stages) == maxStages {
			return nil, p.failf(bar, "", "more than %d stages", maxStages)
		}
		s, err := p.stage(at, name, columns)
		if err != nil {
			return nil, err
		}
		if t, ok := s.(interface{ table() []Column }); ok {
			columns = t.table()
		}
		if h, ok := s.(headStage); ok && len(stages) > 0 {
			if sort, ok := stages[len(stages)-1].(*sortStage); ok {
				sort.limit = h.n
			}
		}
		stages = append(stages, s)
	}
	return stages, nil
}

// stage reads one stage behind its name. columns are those of the table that
// it gets; nil for events.
func (p *parser) stage(at int, name string, columns []Column) (stage, error) {
	switch name {
	case "stats":
		return p.stats(columns)
	case "count":
		if p.skip(); strings.HasPrefix(p.rest(), "()") {
			p.pos += 2
		}
		return p.counted(at, 0, columns, p.groups(columns))
	case "top":
		n, err := p.count(10)
		if err != nil {
			return nil, err
		}
		p.keyword("by", "")
		of, err := p.columnsList(columns)
		if err != nil {
			return nil, err
		}
		s := &topStage{n: n, stats: &statsStage{}}
		for _, c := range of {
			s.stats.by = append(s.stats.by, group{of: c, column: Column{c.name, c.kind(columns)}})
		}
		s.stats.funcs = []statFunc{{name: "count", column: Column{"count", Number}}}
		s.rest = []stage{
			&sortStage{keys: []sortKey{{of: column{"count", len(of)}, descending: true}}, limit: n},
			headStage{n},
		}
		return s, p.distinctNames(at, s.stats.table())
	case "histogram":
		p.skip()
		p.keyword("by", "")
		length, err := p.length()
		if err != nil {
			return nil, err
		}
		return p.counted(at, length, columns, p.groups(columns))
	case "where":
		return p.where(at, columns)
	case "dedup":
		p.skip()
		p.keyword("by", "")
		of, err := p.columnsList(columns)
		return &dedupStage{of}, err
	case "sort":
		return p.sort(columns)
	case "head", "tail", "limit":
		n, err := p.count(10)
		if err == nil {
			err = p.stageEnd(name + " 10")
		}
		if name == "tail" {
			return tailStage{n}, err
		}
		return headStage{n}, err
	case "fields":
		of, err := p.columnsList(columns)
		if err != nil {
			return nil, err
		}
		s := &fieldsStage{of: of}
		for _, c := range of {
			s.columns = append(s.columns, Column{c.name, c.kind(columns)})
		}
		return s, p.distinctNames(at, s.columns)
	}
	word := p.src[at : at+p.wordLength(at)]
	hint := programHint(name)
	if s := spelling.Nearest(name, stageNames()); hint == "" && s != "" {
		hint = "did you mean " + s + "?"
	} else if hint == "" {
		hint = `stages: ` + strings.Join(stageNames(), ", ") + `; for either of two texts: a or b, or /a|b/; to find the character: "|"`
	}
	if word == "" {
		return nil, p.fail(at, `a stage is expected behind "|"`, hint)
	}
	return nil, p.failf(at, hint, "%s is no stage", quote(word))
}

// groups reads what stands behind by, or nothing.
func (p *parser) groups(columns []Column) func() ([]group, error) {
	return func() ([]group, error) {
		p.skip()
		if !p.keyword("by", "") {
			return nil, nil
		}
		p.skip()
		closed := p.peek(0) == '('
		if closed {
			p.pos++
		}
		var by []group
		for {
			g, err := p.group(columns)
			if err != nil {
				return nil, err
			}
			if by = append(by, g); len(by) > 16 {
				return nil, p.fail(p.pos, "more than 16 fields to group by", "")
			}
			if p.skip(); p.peek(0) != ',' {
				break
			}
			p.pos++
		}
		if closed {
			if p.peek(0) != ')' {
				return nil, p.fail(p.pos, `"," or ")" expected`, "")
			}
			p.pos++
		}
		return by, nil
	}
}

// group reads a field, or time(1h).
func (p *parser) group(columns []Column) (group, error) {
	p.skip()
	at := p.pos
	if strings.HasPrefix(p.rest(), "time(") && !strings.HasPrefix(p.rest(), "time()") {
		p.pos += len("time(")
		length, err := p.length()
		if err != nil {
			return group{}, err
		}
		if p.skip(); p.peek(0) != ')' {
			return group{}, p.fail(p.pos, `")" expected`, "write time(1h)")
		}
		p.pos++
		c, err := p.resolve(at, fieldTime, columns)
		if err == nil && c.kind(columns) != Time {
			err = p.fail(at, "the column time has no times here", "")
		}
		return group{of: c, length: length, column: Column{fieldTime, Time}}, err
	}
	c, err := p.columnName(columns)
	if err != nil {
		return group{}, err
	}
	return group{of: c, column: Column{c.name, c.kind(columns)}}, nil
}

// counted makes the stage of count and histogram.
func (p *parser) counted(at int, length time.Duration, columns []Column, groups func() ([]group, error)) (stage, error) {
	by, err := groups()
	if err == nil {
		err = p.stageEnd("count by host; histogram 1h")
	}
	if err != nil {
		return nil, err
	}
	s := &statsStage{by: by, funcs: []statFunc{{name: "count", column: Column{"count", Number}}}}
	if length == 0 {
		return s, p.distinctNames(at, s.table())
	}
	c, err := p.resolve(at, fieldTime, columns)
	if err == nil && c.kind(columns) != Time {
		err = p.fail(at, "the column time has no times here", "")
	}
	if err != nil {
		return nil, err
	}
	s.by = append([]group{{of: c, length: length, column: Column{fieldTime, Time}}}, by...)
	return &histogramStage{s}, p.distinctNames(at, s.table())
}

// length reads the length of time of a bucket.
func (p *parser) length() (time.Duration, error) {
	p.skip()
	at := p.pos
	n := 0
	for n < len(p.rest()) && (nameLength("a"+p.rest()[n:]) > 1 || p.rest()[n] == '.') {
		n++
	}
	p.pos += n
	d, ok := span(p.src[at:p.pos])
	if !ok || d < time.Millisecond || d > 3660*24*time.Hour {
		return 0, p.fail(at, "the length of a bucket is expected here", "such as 30s, 5m, 1h, 1d")
	}
	return d, nil
}

// count reads a number of rows, or nothing.
func (p *parser) count(standard int) (int, error) {
	p.skip()
	at := p.pos
	p.pos += len(p.rest()) - len(strings.TrimLeft(p.rest(), "0123456789"))
	if p.pos == at {
		if p.peek(0) == '-' {
			return 0, p.fail(at, "a number is expected here", "write head 10, tail 10")
		}
		return standard, nil
	}
	n, err := strconv.Atoi(p.src[at:p.pos])
	if err != nil || n > 10_000_000 || !p.ends(p.pos) {
		return 0, p.fail(at, "a number of rows up to 10,000,000 is expected here", "")
	}
	return n, nil
}

// columnsList reads names of columns with commas between them.
func (p *parser) columnsList(columns []Column) ([]column, error) {
	var list []column
	for {
		c, err := p.columnName(columns)
		if err != nil {
			return nil, err
		}
		if list = append(list, c); len(list) > 64 {
			return nil, p.fail(p.pos, "more than 64 fields", "")
		}
		if p.skip(); p.peek(0) != ',' {
			break
		}
		p.pos++
	}
	return list, p.stageEnd("names of fields have commas between them")
}

// stageEnd asks for the end of a stage.
func (p *parser) stageEnd(hint string) error {
	if p.skip(); !p.end() && p.src[p.pos] != '|' {
		return p.fail(p.pos, `"|" or the end is expected here`, hint)
	}
	return nil
}

// columnName reads the name of a field or a column.
func (p *parser) columnName(columns []Column) (column, error) {
	p.skip()
	at := p.pos
	if columns == nil {
		name, err := p.argument()
		if err != nil {
			return column{}, err
		}
		return p.resolve(at, name, nil)
	}
	before := p.columns
	p.columns = columns
	name := p.name(at)
	p.columns = before
	if name == "" {
		var err error
		if name, err = p.argument(); err != nil {
			return column{}, err
		}
	} else {
		p.pos += len(name)
	}
	return p.resolve(at, name, columns)
}

// resolve finds a column by its name.
func (p *parser) resolve(at int, name string, columns []Column) (column, error) {
	if columns == nil {
		if s := spelling.Nearest(name, FieldNames()); s != "" && s[0] == name[0] && !known(name) && len(p.notes) < 8 {
			p.notes = append(p.notes, name+" is a field only where a format has one of that name; every event has "+s)
		}
		return column{name, -1}, nil
	}
	before := p.columns
	p.columns = columns
	defer func() { p.columns = before }()
	name, err := p.column(at, name)
	if err != nil {
		return column{}, err
	}
	for i, c := range columns {
		if c.Name == name {
			return column{name, i}, nil
		}
	}
	return column{}, err
}

// distinctNames asks for columns with names of their own.
func (p *parser) distinctNames(at int, columns []Column) error {
	seen := map[string]bool{}
	for _, c := range columns {
		if seen[c.Name] {
			return p.failf(at, "name one of them: count() as n", "two columns are named %s", quote(c.Name))
		}
		seen[c.Name] = true
	}
	return nil
}

// where reads the expression of a where: the language of the filter for
// events, comparisons of columns for a table.
func (p *parser) where(at int, columns []Column) (stage, error) {
	s := &whereStage{opts: p.opts, columns: columns}
	p.columns = columns
	defer func() { p.columns = nil }()
	p.skip()
	if p.end() || p.src[p.pos] == '|' {
		return nil, p.fail(p.pos, "a condition is expected behind where", "where count > 10")
	}
	var err error
	if s.filter, err = p.or(); err != nil {
		return nil, err
	}
	return s, p.stageEnd("")
}

// sort reads what is sorted by: -count, host; or count desc.
func (p *parser) sort(columns []Column) (stage, error) {
	s := &sortStage{}
	p.skip()
	p.keyword("by", "")
	for {
		p.skip()
		var k sortKey
		if c := p.peek(0); c == '-' || c == '+' {
			k.descending = c == '-'
			p.pos++
		}
		var err error
		if k.of, err = p.columnName(columns); err != nil {
			return nil, err
		}
		p.skip()
		switch n := nameLength(p.rest()); lower(p.rest()[:n]) {
		case "desc":
			k.descending = true
			p.pos += n
		case "asc":
			p.pos += n
		}
		if s.keys = append(s.keys, k); len(s.keys) > 16 {
			return nil, p.fail(p.pos, "more than 16 fields to sort by", "")
		}
		if p.skip(); p.peek(0) != ',' {
			break
		}
		p.pos++
	}
	return s, p.stageEnd("sort -count, host sorts by count, largest first, and then by host")
}
