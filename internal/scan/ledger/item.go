package ledger

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

// Class is what sort of thing an item is.
type Class string

// The classes. Each is what one scanner finds.
const (
	Vulnerability    Class = "vulnerability"
	Secret           Class = "secret"
	Misconfiguration Class = "misconfiguration"
	License          Class = "license"
)

// Classes returns all classes in the order in which they are shown.
func Classes() []Class { return []Class{Vulnerability, Secret, Misconfiguration, License} }

// index is the place in Classes, of which this is the fast form.
func (c Class) index() int {
	switch c {
	case Secret:
		return 1
	case Misconfiguration:
		return 2
	case License:
		return 3
	}
	return 0
}

// Scanner returns the scanner that finds items of the class.
func (c Class) Scanner() protocol.Scanner {
	switch c {
	case Secret:
		return protocol.Secrets
	case Misconfiguration:
		return protocol.Misconfigurations
	case License:
		return protocol.Licenses
	}
	return protocol.Vulnerabilities
}

// Key says whether two sightings are of the same item: 128 bits of BLAKE3 over
// what makes it up. docs/formats/scan-ledger.md has the exact bytes.
type Key [16]byte

// String returns the key as 32 hexadecimal digits.
func (k Key) String() string { return hex.EncodeToString(k[:]) }

// Short returns what people type: the first ten digits.
func (k Key) Short() string { return hex.EncodeToString(k[:5]) }

// MarshalText writes the key as String does.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads 32 hexadecimal digits.
func (k *Key) UnmarshalText(b []byte) error {
	var q Key
	if len(b) != 2*len(q) {
		return fmt.Errorf("a key has %d hexadecimal digits, this has %d", 2*len(q), len(b))
	}
	if _, err := hex.Decode(q[:], b); err != nil {
		return fmt.Errorf("key: %w", err)
	}
	*k = q
	return nil
}

// CVSS is the score of a vulnerability, 0 to 10, and who gave it.
type CVSS struct {
	Score  float64 `json:"score"`
	Source string  `json:"source,omitempty"` // "nvd"
	Vector string  `json:"vector,omitempty"`
}

// EPSS is the probability (0 to 1) that a vulnerability is exploited within
// thirty days, and the share of all vulnerabilities whose probability is at most
// that (0 to 1), by FIRST's Exploit Prediction Scoring System.
type EPSS struct {
	Score      float64   `json:"score"`
	Percentile float64   `json:"percentile,omitempty"`
	Date       time.Time `json:"date,omitzero"` // of the model's answer
}

// KEV says that a vulnerability is known to be exploited, by the catalogue of
// CISA.
type KEV struct {
	Added      time.Time `json:"added"`
	Due        time.Time `json:"due,omitzero"` // until when agencies have to have it fixed
	Ransomware bool      `json:"ransomware,omitempty"`
}

// Sighting is what one scan says about one thing in one place. Members that mean
// nothing in its class are left empty.
type Sighting struct {
	Class Class `json:"class"`
	// ID is that of the vulnerability, the rule of a secret, the check of a
	// misconfiguration, the name of a licence.
	ID      string   `json:"id"`
	Aliases []string `json:"aliases,omitempty"`

	// Type is Trivy's word for where packages come from or what a file is:
	// "debian", "npm", "dockerfile".
	Type    string `json:"type,omitempty"`
	Package string `json:"package,omitempty"`
	// PURL is what a scan hands over, PURLs are those of all versions, joined.
	PURL      string   `json:"purl,omitempty"`
	PURLs     []string `json:"purls,omitempty"`
	Installed []string `json:"installed,omitempty"` // versions
	Fixed     []string `json:"fixed,omitempty"`     // versions; empty: there is no fix
	Status    string   `json:"status,omitempty"`    // "affected", "will_not_fix", …

	// Paths are relative to the target. OS packages have none.
	Paths     []string `json:"paths,omitempty"`
	MorePaths int      `json:"more_paths,omitempty"` // that are not listed
	StartLine int      `json:"start_line,omitempty"`
	EndLine   int      `json:"end_line,omitempty"`
	Resource  string   `json:"resource,omitempty"`
	Match     string   `json:"match,omitempty"`   // of a secret, which is not in it
	Ordinal   int      `json:"ordinal,omitempty"` // among secrets of one rule, path and match: Observe sets it
	Layer     string   `json:"layer,omitempty"`
	Category  string   `json:"category,omitempty"` // of a licence, or a secret
	// Expected says why a secret is where it belongs; empty: nothing says so.
	Expected string `json:"expected,omitempty"`

	Severity       Severity `json:"severity"`
	SeveritySource string   `json:"severity_source,omitempty"`
	CVSS           *CVSS    `json:"cvss,omitempty"`
	EPSS           *EPSS    `json:"epss,omitempty"`
	KEV            *KEV     `json:"kev,omitempty"`

	Title      string    `json:"title,omitempty"`
	Message    string    `json:"message,omitempty"`
	Resolution string    `json:"resolution,omitempty"`
	URL        string    `json:"url,omitempty"`
	References []string  `json:"references,omitempty"`
	DataSource string    `json:"data_source,omitempty"`
	Published  time.Time `json:"published,omitzero"`
}

// State says how an item stands at a moment.
type State string

// The states.
const (
	Open        State = "open"
	Waived      State = "waived"       // a waiver accepts it
	NotAffected State = "not-affected" // a VEX statement says that it does no harm here
	Fixed       State = "fixed"        // a VEX statement says that it is fixed, though a scan still sees it
	Expected    State = "expected"     // a secret that is where it belongs, as a host key of sshd is
	Resolved    State = "resolved"     // the last scan that could see it did not
)

// States returns all states in the order in which they are shown.
func States() []State { return []State{Open, Waived, NotAffected, Fixed, Expected, Resolved} }

// index is the place in States, of which this is the fast form.
func (s State) index() int {
	switch s {
	case Waived:
		return 1
	case NotAffected:
		return 2
	case Fixed:
		return 3
	case Expected:
		return 4
	case Resolved:
		return 5
	}
	return 0
}

// Happening is what an Event tells.
type Happening string

// What happens to items.
const (
	Appeared        Happening = "appeared"
	WentAway        Happening = "resolved"
	CameBack        Happening = "reopened"
	FixAvailable    Happening = "fix-available"
	FixWithdrawn    Happening = "fix-withdrawn"
	SeverityChanged Happening = "severity"
	KEVListed       Happening = "kev-listed"
	KEVRemoved      Happening = "kev-removed"
	VersionChanged  Happening = "installed" // another version, and still there
	StandingChanged Happening = "state"     // waived, not affected, open again
)

// Event is something that happened to an item.
type Event struct {
	At   time.Time `json:"at"`
	What Happening `json:"what"`
	From string    `json:"from,omitempty"`
	To   string    `json:"to,omitempty"`
}

// WaiverNote is what an item tells about the waiver that accepts it.
type WaiverNote struct {
	ID     string    `json:"id"`
	Owner  string    `json:"owner"`
	Reason string    `json:"reason"`
	Until  time.Time `json:"until"`
}

// VEXNote is what an item tells about the statement that speaks of it.
type VEXNote struct {
	Document      string    `json:"document"` // its @id
	Digest        string    `json:"digest"`   // BLAKE3 of the document, hexadecimal
	Author        string    `json:"author"`
	Status        string    `json:"status"`
	Justification string    `json:"justification,omitempty"`
	Impact        string    `json:"impact_statement,omitempty"`
	Action        string    `json:"action_statement,omitempty"`
	At            time.Time `json:"timestamp,omitzero"`
}

// Item is one thing that scans found on one asset, as it stands at a moment.
type Item struct {
	Asset     string `json:"asset"` // its id
	Key       Key    `json:"key"`
	Ecosystem string `json:"ecosystem,omitempty"` // that the key has: "debian", "npm", "golang"
	// Subject is the package without version, or the path, that the key has.
	Subject string `json:"subject"`
	Sighting

	State     State     `json:"state"`
	FirstSeen time.Time `json:"first_seen"`
	LastSeen  time.Time `json:"last_seen"`
	// Unseen: the last scan could not look there, or failed to.
	Unseen bool `json:"unseen,omitempty"`
	// FixSince is when a scan here first knew of a fixed version; zero: never.
	FixSince   time.Time `json:"fix_since,omitzero"`
	ResolvedAt time.Time `json:"resolved_at,omitzero"`
	// ResolvedDue is when a resolved item was due by the policy of that day, and
	// Outcome whether that was in time; empty: nothing was due.
	ResolvedDue time.Time `json:"resolved_due,omitzero"`
	Outcome     Outcome   `json:"outcome,omitempty"`
	Reopened    int       `json:"reopened,omitempty"` // how often it came back
	ReopenedAt  time.Time `json:"reopened_at,omitzero"`
	// Events are what happened to it, oldest first; of too many those in the
	// middle are left out.
	Events []Event     `json:"events,omitempty"`
	Waiver *WaiverNote `json:"waiver,omitempty"`
	VEX    *VEXNote    `json:"vex,omitempty"`
	// Why says in words why it stands where it does in the order of urgency.
	Why string `json:"why,omitempty"`
}
