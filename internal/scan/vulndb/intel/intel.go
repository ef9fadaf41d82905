// Package intel knows which vulnerabilities are exploited: those that CISA has
// seen exploited (KEV), and how likely the others are to be within 30 days
// (EPSS, of FIRST). A scan orders what it found by that.
//
// Both are published as documents that are slow to read: 300,000 lines of EPSS.
// So they are imported once into a table, a file of sorted rows of one size that
// is read as it is (Table, docs/formats/vulndb.md).
//
// Sources: the schema of CISA's known_exploited_vulnerabilities.json, and the
// description of EPSS's data at first.org (epss_scores-YYYY-MM-DD.csv).
package intel

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// Limits of what is imported. What is published has 1,500 entries of KEV in 1.5
// MB, and 300,000 of EPSS in 10 MB.
const (
	maxKEVBytes  = 64 << 20
	maxEPSSBytes = 256 << 20 // unpacked
	maxLine      = 1024
	maxRows      = 5_000_000
	maxText      = 8 << 10 // of one string of KEV
)

// KEV is a vulnerability that is known to be exploited.
type KEV struct {
	Added      time.Time `json:"added"`             // day on which CISA listed it
	Due        time.Time `json:"due,omitzero"`      // day by which agencies of the USA must have fixed it
	Ransomware bool      `json:"ransomware"`        // campaigns of ransomware are known to use it
	Vendor     string    `json:"vendor,omitempty"`  // "Apache"
	Product    string    `json:"product,omitempty"` // "Log4j2"
	Name       string    `json:"name,omitempty"`    // "Apache Log4j2 Remote Code Execution Vulnerability"
	Action     string    `json:"action,omitempty"`  // what CISA says is to be done
}

// EPSS is how likely a vulnerability is to be exploited.
type EPSS struct {
	Score      float64 `json:"score"`      // probability within the next 30 days, 0 to 1
	Percentile float64 `json:"percentile"` // share of all vulnerabilities with the same score or less, 0 to 1
}

// MalformedError is a document that cannot be imported. Its kind is
// failure.Untrustworthy.
type MalformedError struct {
	What   string // "KEV", "EPSS", "table"
	Line   int    // from 1; 0 when Offset or Entry says where
	Offset int64  // in bytes, of a table or JSON
	Entry  string // such as a CVE
	Reason string
}

func (e *MalformedError) Error() string {
	s := "this is no " + e.What + " document that can be used"
	switch {
	case e.Line > 0:
		s += fmt.Sprintf(": line %d", e.Line)
	case e.Offset > 0:
		s += fmt.Sprintf(": byte %d", e.Offset)
	}
	if e.Entry != "" {
		s += fmt.Sprintf(": %.40q", e.Entry)
	}
	return s + ": " + e.Reason
}

// Unwrap gives the error its kind.
func (e *MalformedError) Unwrap() error { return failure.New(failure.Untrustworthy, e.Reason) }

// key makes a number of a CVE's name that sorts by year, then number: the year
// from bit 40 upwards. Names that are not as they are given out have none.
func key(cve string) (uint64, bool) {
	rest, ok := strings.CutPrefix(cve, "CVE-")
	if !ok || len(rest) < 9 || rest[4] != '-' {
		return 0, false
	}
	year, number := rest[:4], rest[5:]
	if len(number) > 12 || len(number) > 4 && number[0] == '0' || strings.Trim(rest, "0123456789-") != "" || strings.Count(rest, "-") != 1 {
		return 0, false
	}
	y, err := strconv.ParseUint(year, 10, 16)
	n, nerr := strconv.ParseUint(number, 10, 64)
	if err != nil || nerr != nil || y < 1900 || n >= 1<<40 {
		return 0, false
	}
	return y<<40 | n, true
}

// name is the CVE of a key.
func name(k uint64) string { return fmt.Sprintf("CVE-%d-%04d", k>>40, k&(1<<40-1)) }
