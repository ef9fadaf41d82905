// Package vulndb keeps the vulnerability databases that scans look into: it
// takes them in, proves them, switches between generations of them, and says
// how old they are.
//
// A database is Trivy's: one bbolt file of schema 2, trivy.db, and metadata.json
// beside it. A second one, which is optional, knows JAR files by their digests:
// trivy-java.db, a file of SQLite. Each database that was taken in is a
// generation, a directory that never changes:
//
//	generations/7/trivy.db, metadata.json   a generation
//	current -> generations/7                 which one is current, for people
//	java/generations/2/, java/current        the same of the other database
//	intel/kev.table, intel/epss.table        what is exploited: package intel
//	.partial-*                               what is being taken in, or was when its process died
//
// Which generations there are, what their content hashes to (BLAKE3) and which
// one is current stands in state.db, in the bucket "scan.vulndb". A generation
// is visible from that transaction on: before it the files were written, flushed
// and renamed. So a process can be killed anywhere and there is either the
// database from before or the new one, never half of one or none.
//
// Invariants: nothing becomes current that was not proved whole (inspect), that
// is older than what it replaces, or that has far fewer advisories, unless
// somebody says so; a generation that a scan has open (Lease) is not removed;
// no database, and one that is too old, is an error and never an empty result.
//
// docs/formats/vulndb.md describes the files. Sources: bbolt 1.5's file format
// (internal/common), Trivy's pkg/db, the OCI image layout specification,
// flock(2), rename(2).
package vulndb

import (
	"path/filepath"
	"strconv"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/trust"
)

// Kind says which of the two databases is meant.
type Kind string

// The kinds.
const (
	Vulnerabilities Kind = "vulnerabilities"
	Java            Kind = "java" // what JAR files are, by their digests
)

// file is the name of the database's file.
func (k Kind) file() string {
	if k == Java {
		return "trivy-java.db"
	}
	return "trivy.db"
}

const metadataFile = "metadata.json"

// schema is the version of the database that Trivy 0.72 reads.
func (k Kind) schema() int {
	if k == Java {
		return 1
	}
	return 2
}

// DefaultMaxBytes bounds the file of a database. Trivy's had 0.9 GB in 2026,
// and the one for JAR files 1.5 GB.
const DefaultMaxBytes = 16 << 30

// Errors that callers tell apart.
var (
	ErrMissing = failure.New(failure.NotReady, "there is no vulnerability database")
	ErrStale   = failure.New(failure.NotReady, "the vulnerability database is too old")
	ErrDamaged = failure.New(failure.Untrustworthy, "the vulnerability database is damaged")
	ErrNoOther = failure.New(failure.No, "there is no such generation")
)

// Options say where a Store is and how it behaves.
type Options struct {
	Dir   string           // "scan/vulndb" below the state directory; need not exist yet
	State *state.Store     // its catalogue
	Now   func() time.Time // nil: time.Now
	// MaxAge is how old the current database may be for Open, by what it says of
	// itself; 0: any age.
	MaxAge     time.Duration
	AllowStale bool // Open does not mind the age
	Keep       int  // generations beside the current one; less than 1: one, to go back to
	// Keys are who may vouch for databases; nil: they are taken unsigned. See
	// Terms.Signature.
	Keys func() (*trust.Keys, error)
	By   string // who acts, for the catalogue
	// MaxBytes bounds the file of a database; 0: DefaultMaxBytes.
	MaxBytes int64
	// Progress is told how far an import is; nil: nobody is. total is 0 while it
	// is unknown.
	Progress func(stage string, done, total int64)
}

// Store is the databases of a host. Making one opens nothing.
type Store struct {
	opts Options
	step func(string) // of tests: called between the steps of a switch
}

// New returns the store that options describe.
func New(o Options) *Store {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.Progress == nil {
		o.Progress = func(string, int64, int64) {}
	}
	o.Keep = max(1, o.Keep)
	return &Store{opts: o, step: func(string) {}}
}

// Dir returns where the databases are.
func (s *Store) Dir() string { return s.opts.Dir }

// base is the directory of a kind.
func (s *Store) base(k Kind) string {
	if k == Java {
		return filepath.Join(s.opts.Dir, "java")
	}
	return s.opts.Dir
}

func (s *Store) generations(k Kind) string { return filepath.Join(s.base(k), "generations") }

func (s *Store) path(k Kind, number int) string {
	return filepath.Join(s.generations(k), strconv.Itoa(number))
}

// Words of errors about what to do.
const (
	hintImport = "get one: mobileops vulndb import FILE, or mobileops vulndb pull"
	hintRenew  = "renew it: mobileops vulndb import FILE, or mobileops vulndb pull"
)
