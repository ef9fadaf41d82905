package intel

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// kevRow is the size of a row of KEV: key, day added, day due, flags and where
// its words begin (uint64, 4 × uint32), and how long each of them is (4 × uint16).
const kevRow = 32

const flagRansomware = 1

type kevDocument struct {
	Title           string     `json:"title"`
	CatalogVersion  string     `json:"catalogVersion"`
	DateReleased    string     `json:"dateReleased"`
	Count           *int       `json:"count"`
	Vulnerabilities []kevEntry `json:"vulnerabilities"`
}

type kevEntry struct {
	ID         string `json:"cveID"`
	Vendor     string `json:"vendorProject"`
	Product    string `json:"product"`
	Name       string `json:"vulnerabilityName"`
	Added      string `json:"dateAdded"`
	Action     string `json:"requiredAction"`
	Due        string `json:"dueDate"`
	Ransomware string `json:"knownRansomwareCampaignUse"`

	key        uint64
	added, due uint32
}

// ParseKEV reads CISA's known_exploited_vulnerabilities.json and returns the
// table that says the same. Its error is a *MalformedError, or one of r.
func ParseKEV(r io.Reader) (*Table, error) {
	bad := func(entry, format string, args ...any) error {
		return &MalformedError{What: "KEV", Entry: entry, Reason: fmt.Sprintf(format, args...)}
	}
	data, err := io.ReadAll(io.LimitReader(r, maxKEVBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxKEVBytes {
		return nil, bad("", "it has more than %d bytes", maxKEVBytes)
	}
	var doc kevDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		var syntax *json.SyntaxError
		var kind *json.UnmarshalTypeError
		e := &MalformedError{What: "KEV", Reason: err.Error()}
		if errors.As(err, &syntax) {
			e.Offset = syntax.Offset
		} else if errors.As(err, &kind) {
			e.Offset = kind.Offset
		}
		return nil, e
	}
	released, err := time.Parse(time.RFC3339, doc.DateReleased)
	switch {
	case err != nil || released.Year() < 2020 || released.Year() > 9999:
		return nil, bad("dateReleased", "it does not say when it was released")
	case len(doc.Vulnerabilities) == 0:
		return nil, bad("vulnerabilities", "it lists none")
	case doc.Count == nil || *doc.Count != len(doc.Vulnerabilities):
		return nil, bad("count", "it is said to list another number than %d, so some may be missing", len(doc.Vulnerabilities))
	}
	for i := range doc.Vulnerabilities {
		v := &doc.Vulnerabilities[i]
		var ok bool
		if v.key, ok = key(v.ID); !ok {
			return nil, bad(v.ID, "is not the name of a CVE")
		}
		if v.added, err = days(v.Added); err != nil {
			return nil, bad(v.ID, "dateAdded: %v", err)
		}
		if v.Due != "" {
			if v.due, err = days(v.Due); err != nil {
				return nil, bad(v.ID, "dueDate: %v", err)
			}
		}
		for _, s := range v.words() {
			if len(s) > maxText || !utf8.ValidString(s) {
				return nil, bad(v.ID, "a text of it has more than %d bytes, or is not UTF-8", maxText)
			}
		}
	}
	return doc.table(released)
}

func (v *kevEntry) words() [4]string { return [4]string{v.Vendor, v.Product, v.Name, v.Action} }

func (d *kevDocument) table(released time.Time) (*Table, error) {
	slices.SortFunc(d.Vulnerabilities, func(a, b kevEntry) int { return cmp.Compare(a.key, b.key) })
	t := &Table{kind: kindKEV, Date: released.UTC().Truncate(time.Second), About: About{Edition: clip(d.CatalogVersion, 64)}}
	t.rows = make([]byte, 0, len(d.Vulnerabilities)*kevRow)
	for i, v := range d.Vulnerabilities {
		if i > 0 && v.key == d.Vulnerabilities[i-1].key {
			return nil, &MalformedError{What: "KEV", Entry: v.ID, Reason: "it is there twice"}
		}
		var flags uint32
		if strings.EqualFold(v.Ransomware, "known") {
			flags |= flagRansomware
		}
		if int64(len(t.heap)) > 1<<31 {
			return nil, &MalformedError{What: "KEV", Reason: "its texts are too long together"}
		}
		t.rows = binary.LittleEndian.AppendUint64(t.rows, v.key)
		for _, n := range []uint32{v.added, v.due, flags, uint32(len(t.heap))} {
			t.rows = binary.LittleEndian.AppendUint32(t.rows, n)
		}
		for _, s := range v.words() {
			t.rows = binary.LittleEndian.AppendUint16(t.rows, uint16(len(s)))
			t.heap = append(t.heap, s...)
		}
	}
	return t, nil
}

// KEV returns what is known of a CVE, and whether it is listed.
func (t *Table) KEV(cve string) (KEV, bool) {
	defer runtime.KeepAlive(t) // its rows may be a mapped file
	row, ok := t.find(kindKEV, cve)
	if !ok {
		return KEV{}, false
	}
	u32 := binary.LittleEndian.Uint32
	at := uint64(u32(row[20:]))
	var words [4]string
	for i := range words {
		n := uint64(binary.LittleEndian.Uint16(row[24+2*i:]))
		if at+n > uint64(len(t.heap)) {
			return KEV{}, false // Check says so
		}
		words[i] = string(t.heap[at : at+n])
		at += n
	}
	return KEV{
		Added: day(u32(row[8:])), Due: day(u32(row[12:])), Ransomware: u32(row[16:])&flagRansomware != 0,
		Vendor: words[0], Product: words[1], Name: words[2], Action: words[3],
	}, true
}

// days is the number of days from 1970 to a date.
func days(s string) (uint32, error) {
	d, err := time.Parse(time.DateOnly, s)
	if err != nil || d.Year() < 1971 {
		return 0, fmt.Errorf("%.20q is not a day such as 2024-05-01", s)
	}
	return uint32(d.Unix() / 86400), nil
}

// day is the date of a number of days; 0 is none.
func day(n uint32) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(int64(n)*86400, 0).UTC()
}

func clip(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "")
}
