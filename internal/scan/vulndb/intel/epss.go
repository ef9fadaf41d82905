package intel

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// epssRow is the size of a row of EPSS: key, score and percentile in
// thousand-millionths (uint64, 2 × uint32).
const epssRow = 16

const epssUnit = 1e9

// ParseEPSS reads epss_scores-YYYY-MM-DD.csv, packed with gzip or not, and
// returns the table that says the same. Its error is a *MalformedError, or one
// of r.
func ParseEPSS(r io.Reader) (*Table, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		zr, err := gzip.NewReader(in)
		if err != nil {
			return nil, packing(0, err)
		}
		in = bufio.NewReaderSize(zr, 64<<10)
	}
	p := &epssParser{in: in, table: &Table{kind: kindEPSS}}
	if err := p.head(); err != nil {
		return nil, err
	}
	var rows []epssLine
	for {
		line, err := p.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		row, err := p.row(line)
		if err != nil {
			return nil, err
		}
		if rows = append(rows, row); len(rows) > maxRows {
			return nil, p.bad("", "it has more than %d lines", maxRows)
		}
	}
	if len(rows) == 0 {
		return nil, p.bad("", "it has no scores")
	}
	less := func(a, b epssLine) int { return cmp.Compare(a.key, b.key) }
	if !slices.IsSortedFunc(rows, less) {
		slices.SortFunc(rows, less)
	}
	t := p.table
	t.rows = make([]byte, 0, len(rows)*epssRow)
	for i, row := range rows {
		if i > 0 && row.key == rows[i-1].key {
			return nil, &MalformedError{What: "EPSS", Entry: name(row.key), Reason: "it is there twice"}
		}
		t.rows = binary.LittleEndian.AppendUint64(t.rows, row.key)
		t.rows = binary.LittleEndian.AppendUint32(t.rows, row.score)
		t.rows = binary.LittleEndian.AppendUint32(t.rows, row.percentile)
	}
	return t, nil
}

type epssLine struct {
	key               uint64
	score, percentile uint32
}

type epssParser struct {
	in    *bufio.Reader
	line  int
	total int64
	table *Table
}

func (p *epssParser) bad(entry, format string, args ...any) error {
	return &MalformedError{What: "EPSS", Line: p.line, Entry: entry, Reason: fmt.Sprintf(format, args...)}
}

// packing tells damage of gzip from errors of the disk.
func packing(line int, err error) error {
	if errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) || errors.Is(err, io.ErrUnexpectedEOF) || strings.HasPrefix(err.Error(), "flate:") {
		return &MalformedError{What: "EPSS", Line: line, Reason: "it is cut off or damaged: " + err.Error()}
	}
	return err
}

// next returns the next line without its end. A last line without one counts,
// and an empty one at the end does not.
func (p *epssParser) next() (string, error) {
	p.line++
	line, err := p.in.ReadSlice('\n')
	if p.total += int64(len(line)); p.total > maxEPSSBytes {
		return "", p.bad("", "it has more than %d bytes", maxEPSSBytes)
	}
	switch {
	case errors.Is(err, bufio.ErrBufferFull) || len(line) > maxLine:
		return "", p.bad("", "it has more than %d characters", maxLine)
	case err == io.EOF && len(line) == 0:
		return "", io.EOF
	case err != nil && err != io.EOF:
		return "", packing(p.line, err)
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// head reads the two lines that say what follows.
func (p *epssParser) head() error {
	line, err := p.next()
	if err != nil && err != io.EOF {
		return err
	}
	about, ok := strings.CutPrefix(strings.Trim(line, `"`), "#")
	if !ok {
		return p.bad("", "it does not begin with the line #model_version:…,score_date:…")
	}
	for field := range strings.SplitSeq(about, ",") {
		name, value, _ := strings.Cut(field, ":")
		switch strings.TrimSpace(name) {
		case "model_version":
			p.table.Edition = clip(strings.TrimSpace(value), 64)
		case "score_date":
			for _, layout := range []string{"2006-01-02T15:04:05-0700", time.RFC3339, time.DateOnly} {
				if d, err := time.Parse(layout, strings.TrimSpace(value)); err == nil && d.Year() > 2010 && d.Year() <= 9999 {
					p.table.Date = d.UTC()
				}
			}
		}
	}
	if p.table.Date.IsZero() {
		return p.bad("", "it does not say of which day its scores are (score_date)")
	}
	if line, err = p.next(); err != nil && err != io.EOF {
		return err
	}
	if strings.TrimSpace(line) != "cve,epss,percentile" {
		return p.bad("", "cve,epss,percentile should stand there")
	}
	return nil
}

func (p *epssParser) row(line string) (row epssLine, err error) {
	cve, rest, _ := strings.Cut(line, ",")
	score, percentile, ok := strings.Cut(rest, ",")
	if !ok || strings.Contains(percentile, ",") {
		return row, p.bad(cve, "it is not CVE,SCORE,PERCENTILE")
	}
	if row.key, ok = key(cve); !ok {
		return row, p.bad(cve, "is not the name of a CVE")
	}
	if row.score, ok = share(score); !ok {
		return row, p.bad(cve, "its score is not a number from 0 to 1")
	}
	if row.percentile, ok = share(percentile); !ok {
		return row, p.bad(cve, "its percentile is not a number from 0 to 1")
	}
	return row, nil
}

// share reads a number from 0 to 1.
func share(s string) (uint32, bool) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f > 1 {
		return 0, false
	}
	return uint32(math.Round(f * epssUnit)), true
}

// EPSS returns how likely a CVE is to be exploited, and whether that is known.
func (t *Table) EPSS(cve string) (EPSS, bool) {
	defer runtime.KeepAlive(t) // its rows may be a mapped file
	row, ok := t.find(kindEPSS, cve)
	if !ok {
		return EPSS{}, false
	}
	return EPSS{
		Score:      float64(binary.LittleEndian.Uint32(row[8:])) / epssUnit,
		Percentile: float64(binary.LittleEndian.Uint32(row[12:])) / epssUnit,
	}, true
}
