// Package protocol is what mobileops and mobileops-scan say to each other.
//
// Trivy is linked into an executable of its own, because it would make every
// start of mobileops slower. mobileops starts it once for each job: one Request
// as JSON on its stdin, Progress as JSON lines on descriptor 3, and one Report or
// BuildReport as JSON on its stdout. What it prints on stderr are its last words,
// should it crash. docs/formats/scan-protocol.md describes all of it.
//
// The exit status of mobileops-scan is one of the product's table (internal/failure).
// When it isn't 0, a Failure stands on stdout instead of a report; when neither
// does, it crashed.
//
// Both are of the same version, or they don't talk: a Request of another version
// is refused, and so is a Report.
package protocol

import "time"

// Schema names this version of the protocol, in requests and in reports.
const Schema = "mobileops.scan.worker/v1"

// ProgressDescriptor is the descriptor on which progress is written.
const ProgressDescriptor = 3

// Request is one job.
type Request struct {
	Schema  string `json:"schema"`
	Version string `json:"version"` // buildinfo of the program that asks
	Scan    *Scan  `json:"scan,omitempty"`
	Build   *Build `json:"build,omitempty"`
}

// Kind is what a target is.
type Kind string

// The kinds of targets. A host is a Rootfs at /.
const (
	Filesystem Kind = "fs"     // a directory of a project: lock files
	Rootfs     Kind = "rootfs" // a tree of an installed system
	Image      Kind = "image"  // a container image
	SBOM       Kind = "sbom"   // a CycloneDX or SPDX document
	Repository Kind = "repo"   // a git work tree
)

// Scanner is one of the things that are looked for.
type Scanner string

// The scanners.
const (
	Vulnerabilities   Scanner = "vuln"
	Secrets           Scanner = "secret"
	Licenses          Scanner = "license"
	Misconfigurations Scanner = "misconfig"
)

// Scanners are all scanners.
func Scanners() []Scanner {
	return []Scanner{Vulnerabilities, Secrets, Licenses, Misconfigurations}
}

// Document is a document that the worker writes about a target, beside the report.
type Document string

// The documents. Those of SPDX are version 2.3, those of CycloneDX 1.6.
const (
	NoDocument Document = ""
	CycloneDX  Document = "cyclonedx"
	SPDXJSON   Document = "spdx-json"
	SPDX       Document = "spdx" // tag-value
)

// Scan asks for one target.
type Scan struct {
	Kind Kind `json:"kind"`
	// Target is the path of a directory or file; for an Image it may be an archive
	// of docker save, an OCI layout, or, with Remote, a reference.
	Target   string `json:"target"`
	Remote   bool   `json:"remote,omitempty"`
	Insecure bool   `json:"insecure,omitempty"` // a registry without TLS, or with a certificate of nobody
	Platform string `json:"platform,omitempty"` // of an image with several: "linux/arm64"
	// Scanners may be none when a Document is asked for.
	Scanners []Scanner `json:"scanners"`
	// SkipDirs and SkipFiles are glob patterns of paths relative to the target.
	SkipDirs  []string `json:"skip_dirs,omitempty"`
	SkipFiles []string `json:"skip_files,omitempty"`
	// Database is the directory of trivy.db and metadata.json, JavaDatabase that of
	// trivy-java.db; both are only read. Without JavaDatabase, JAR files are known
	// by what they say of themselves alone.
	Database     string `json:"database,omitempty"`
	JavaDatabase string `json:"java_database,omitempty"`
	// SecretRules is a file in the format of Trivy's secret configuration; "": the
	// rules that are built in.
	SecretRules string `json:"secret_rules,omitempty"`
	// Memo is the file that remembers results by content, "": nothing is
	// remembered. MemoLimit is how long it may become, in bytes.
	Memo      string   `json:"memo,omitempty"`
	MemoLimit int64    `json:"memo_limit,omitempty"`
	Packages  bool     `json:"packages,omitempty"` // report packages without vulnerabilities too
	Document  Document `json:"document,omitempty"`
	// Temp is a directory for what must be unpacked. Whoever asks removes it.
	Temp     string `json:"temp"`
	Parallel int    `json:"parallel,omitempty"` // files at a time; 0: as many as cores
	Limits   Limits `json:"limits,omitzero"`
}

// Limits are how much of a target is looked at. What is beyond them is a Problem
// that is TooLarge. Each is its default when it is 0.
type Limits struct {
	Unpacked int64 `json:"unpacked,omitempty"` // bytes of all layers of an image; 64 GiB
	Entries  int64 `json:"entries,omitempty"`  // of all layers of an image; 10 million
	Nested   int64 `json:"nested,omitempty"`   // bytes of the archives within one archive; 4 GiB
	Document int64 `json:"document,omitempty"` // bytes of an SBOM; 1 GiB
}

// Build asks for a vulnerability database made from advisories.
type Build struct {
	Sources []Source `json:"sources"`
	Output  string   `json:"output"` // a directory that is there and empty: trivy.db and metadata.json are written into it
	Temp    string   `json:"temp"`
}

// Source is a directory, or an archive, of advisories.
type Source struct {
	Format SourceFormat `json:"format"`
	Path   string       `json:"path"`
}

// SourceFormat is how advisories are written.
type SourceFormat string

// The formats of sources.
const (
	OSV           SourceFormat = "osv"            // OSV JSON documents, one a file, as osv.dev exports them (directory or ZIP)
	GoVulndb      SourceFormat = "go-vulndb"      // what vuln.go.dev serves: ID/*.json, also OSV
	DebianTracker SourceFormat = "debian-tracker" // the one JSON document of the security tracker
	NodeAdvisory  SourceFormat = "node"           // the security working group's advisories: vuln/npm/*.json, vuln/core/*.json
	VulnList      SourceFormat = "vuln-list"      // a tree in the layout of Trivy's own vuln-list
)

// Progress is one line on ProgressDescriptor, several a second at most.
type Progress struct {
	Stage string `json:"stage"`           // "unpack", "walk", "match", "build"
	Files int64  `json:"files,omitempty"` // looked at so far
	Bytes int64  `json:"bytes,omitempty"` // read so far
	Item  string `json:"item,omitempty"`  // what it is at
}

// Failure is written on stdout instead of a report.
type Failure struct {
	Schema  string `json:"schema"`
	Version string `json:"version"` // of the worker
	Status  int    `json:"status"`  // of internal/failure
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// BuildReport is what was built.
type BuildReport struct {
	Schema          string         `json:"schema"`
	Version         string         `json:"version"`
	Vulnerabilities int            `json:"vulnerabilities"`
	Advisories      int            `json:"advisories"`
	Sources         []SourceReport `json:"sources"`
	Skipped         map[string]int `json:"skipped,omitempty"` // documents left out, by reason: "withdrawn", "malformed", …
	Ecosystems      map[string]int `json:"ecosystems"`        // advisories by bucket: "debian 12", "go", "npm"
	Took            time.Duration  `json:"took"`              // nanoseconds
	Problems        []Problem      `json:"problems,omitempty"`
}

// SourceReport is what one source gave.
type SourceReport struct {
	Source
	Documents int       `json:"documents"`
	Newest    time.Time `json:"newest"` // the latest change that any of them tells
}
