package protocol

import (
	"cmp"
	"time"
)

// Report is what was found in a target.
type Report struct {
	Schema  string `json:"schema"`
	Version string `json:"version"` // of the worker
	Engine  string `json:"engine"`  // "trivy 0.72.0"
	Kind    Kind   `json:"kind"`
	Target  string `json:"target"`
	// Subject is what an SBOM says it is about.
	Subject  string    `json:"subject,omitempty"`
	OS       *OS       `json:"os,omitempty"`
	Image    *ImageID  `json:"image,omitempty"`
	Commit   *Commit   `json:"commit,omitempty"` // of a git work tree
	Results  []Result  `json:"results"`
	Skipped  Skipped   `json:"skipped"`
	Problems []Problem `json:"problems,omitempty"`
	// Notes are what is worth knowing about the result without making it incomplete.
	Notes []string `json:"notes,omitempty"`
	Stats Stats    `json:"stats"`
	// Notices are the files that say under which terms something may be used, and
	// Texts what those of them that are licence texts or notices say, by digest, in
	// UTF-8. A text that is larger than the worker's limits is not in Texts.
	Notices []Notice          `json:"notices,omitempty"`
	Texts   map[string]string `json:"texts,omitempty"`
	// Document is the SBOM that was asked for.
	Document string `json:"document,omitempty"`
}

// OS is the system that was found in a target.
type OS struct {
	Family string `json:"family"` // "debian"
	Name   string `json:"name"`   // "12.11"
	// EndOfLife: nobody publishes security updates any more, so none being missing says nothing.
	EndOfLife bool `json:"end_of_life,omitempty"`
}

// ImageID is what an image is called.
type ImageID struct {
	ID           string   `json:"id"` // digest of its configuration
	Architecture string   `json:"architecture,omitempty"`
	Digests      []string `json:"digests,omitempty"`
	Tags         []string `json:"tags,omitempty"`
	Layers       []string `json:"layers,omitempty"` // DiffIDs, lowest first
}

// Commit is what a git work tree is at.
type Commit struct {
	Remote string `json:"remote,omitempty"` // without credentials
	Branch string `json:"branch,omitempty"`
	Hash   string `json:"hash,omitempty"`
	Dirty  bool   `json:"dirty,omitempty"`
}

// Class says what a Result is about, in Trivy's words.
type Class string

// The classes.
const (
	ClassOS          Class = "os-pkgs"
	ClassLanguage    Class = "lang-pkgs"
	ClassConfig      Class = "config"
	ClassSecret      Class = "secret"
	ClassLicense     Class = "license"
	ClassLicenseFile Class = "license-file"
)

// Result is what was found in one place: the packages of the system, one lock
// file, one program, one configuration file.
type Result struct {
	Target            string             `json:"target"` // a path relative to the scanned target, or what Trivy calls it
	Class             Class              `json:"class"`
	Type              string             `json:"type,omitempty"` // "debian", "npm", "gobinary", "dockerfile"
	Packages          []Package          `json:"packages,omitempty"`
	Vulnerabilities   []Vulnerability    `json:"vulnerabilities,omitempty"`
	Secrets           []Secret           `json:"secrets,omitempty"`
	Licenses          []License          `json:"licenses,omitempty"`
	Misconfigurations []Misconfiguration `json:"misconfigurations,omitempty"`
	Checks            int                `json:"checks,omitempty"` // of configuration, that passed or failed
}

// Package is an installed or required package.
type Package struct {
	ID       string   `json:"id,omitempty"`
	Name     string   `json:"name"`
	Version  string   `json:"version"`          // with epoch and release
	Source   string   `json:"source,omitempty"` // the source package of a distribution
	PURL     string   `json:"purl,omitempty"`
	Path     string   `json:"path,omitempty"` // where it was found, when that isn't the target
	Licenses []string `json:"licenses,omitempty"`
	Layer    string   `json:"layer,omitempty"` // DiffID
	Dev      bool     `json:"dev,omitempty"`
	// Relationship is "direct", "indirect", "root" or "workspace".
	Relationship string `json:"relationship,omitempty"`
}

// Severity words are Trivy's: UNKNOWN, LOW, MEDIUM, HIGH, CRITICAL. An unknown
// one is never taken for a low one.

// Vulnerability is one advisory that concerns one package.
type Vulnerability struct {
	ID             string            `json:"id"`                // CVE-…, GHSA-…, GO-…, DLA-…
	Aliases        []string          `json:"aliases,omitempty"` // VendorIDs: DSA-5532-1
	Package        string            `json:"package"`
	PackageID      string            `json:"package_id,omitempty"`
	PURL           string            `json:"purl,omitempty"`
	Path           string            `json:"path,omitempty"`
	Installed      string            `json:"installed"`
	Fixed          string            `json:"fixed,omitempty"`  // versions, comma-separated; "": there is none
	Status         string            `json:"status,omitempty"` // "affected", "fixed", "will_not_fix", "end_of_life", …
	Severity       string            `json:"severity"`
	SeveritySource string            `json:"severity_source,omitempty"` // "debian", "nvd", "ghsa"
	Severities     map[string]string `json:"severities,omitempty"`      // by source
	Title          string            `json:"title,omitempty"`
	Description    string            `json:"description,omitempty"`
	CVSS           map[string]CVSS   `json:"cvss,omitempty"` // by source
	CWE            []string          `json:"cwe,omitempty"`
	URL            string            `json:"url,omitempty"`
	References     []string          `json:"references,omitempty"`
	Published      *time.Time        `json:"published,omitempty"`
	Modified       *time.Time        `json:"modified,omitempty"`
	Layer          string            `json:"layer,omitempty"`
	DataSource     string            `json:"data_source,omitempty"` // who says so: "Debian Security Tracker"
}

// CVSS are the scores of one source, 0 to 10; a score of 0 is absent.
type CVSS struct {
	V2Vector  string  `json:"v2_vector,omitempty"`
	V3Vector  string  `json:"v3_vector,omitempty"`
	V40Vector string  `json:"v40_vector,omitempty"`
	V2Score   float64 `json:"v2_score,omitempty"`
	V3Score   float64 `json:"v3_score,omitempty"`
	V40Score  float64 `json:"v40_score,omitempty"`
}

// Vector returns the vector of the newest version.
func (c CVSS) Vector() string { return cmp.Or(c.V40Vector, c.V3Vector, c.V2Vector) }

// Score returns the highest score of the newest version that any source gives,
// and who gives it; 0 when there is none.
func (v *Vulnerability) Score() (score float64, source string) {
	for _, pick := range []func(CVSS) float64{
		func(c CVSS) float64 { return c.V40Score }, func(c CVSS) float64 { return c.V3Score }, func(c CVSS) float64 { return c.V2Score },
	} {
		for name, c := range v.CVSS {
			if s := pick(c); s > score || s == score && s > 0 && name < source {
				score, source = s, name
			}
		}
		if score > 0 {
			return score, source
		}
	}
	return 0, ""
}

// Secret is something that nobody else should know. The secret itself is never in
// a report: Match has asterisks in its place.
type Secret struct {
	Rule      string `json:"rule"`     // "aws-access-key-id"
	Category  string `json:"category"` // "AWS"
	Title     string `json:"title"`
	Severity  string `json:"severity"`
	StartLine int    `json:"start_line"` // from 1
	EndLine   int    `json:"end_line"`
	Offset    int    `json:"offset"` // of the secret in the file, in bytes
	Match     string `json:"match"`
	Layer     string `json:"layer,omitempty"`
}

// License is a licence that a package or a file is under.
type License struct {
	Name       string  `json:"name"`               // an SPDX id or expression where it is known
	Category   string  `json:"category,omitempty"` // Google's: "restricted", "notice", …
	Severity   string  `json:"severity,omitempty"`
	Package    string  `json:"package,omitempty"`
	Path       string  `json:"path,omitempty"`
	Confidence float64 `json:"confidence,omitempty"` // 0 to 1
	Link       string  `json:"link,omitempty"`
	// Text is the digest (BLAKE3, hex) of the licence's text where a file has it,
	// and Copyright the lines of it that say whose it is.
	Text      string   `json:"text,omitempty"`
	Copyright []string `json:"copyright,omitempty"`
}

// NoticeKind is what a Notice is.
type NoticeKind string

// The kinds of notices.
const (
	NoticeLicense   NoticeKind = "license"   // a licence's text: LICENSE, COPYING, LICENSES/MIT.txt
	NoticeNotice    NoticeKind = "notice"    // a text that wants to be passed on: NOTICE, AUTHORS
	NoticeCopyright NoticeKind = "copyright" // a copyright file of Debian
	NoticeCommon    NoticeKind = "common"    // a text in /usr/share/common-licenses
	NoticeHeader    NoticeKind = "header"    // the head of a source file
)

// Notice is a file of the target that says under which terms something may be used.
type Notice struct {
	Path      string     `json:"path"`
	Layer     string     `json:"layer,omitempty"` // DiffID
	Kind      NoticeKind `json:"kind"`
	Text      string     `json:"text,omitempty"`      // digest (BLAKE3, hex) of the file's content; "" for a header
	Licenses  []string   `json:"licenses,omitempty"`  // SPDX ids or expressions: all of them apply
	Copyright []string   `json:"copyright,omitempty"` // the lines that say whose it is
}

// Misconfiguration is a check of a configuration file that failed.
type Misconfiguration struct {
	ID          string   `json:"id"` // "DS-0002"
	Aliases     []string `json:"aliases,omitempty"`
	Type        string   `json:"type,omitempty"` // "Dockerfile Security Check"
	Title       string   `json:"title"`
	Description string   `json:"description,omitempty"`
	Message     string   `json:"message"`
	Resolution  string   `json:"resolution,omitempty"`
	Severity    string   `json:"severity"`
	StartLine   int      `json:"start_line,omitempty"`
	EndLine     int      `json:"end_line,omitempty"`
	Resource    string   `json:"resource,omitempty"`
	URL         string   `json:"url,omitempty"`
	References  []string `json:"references,omitempty"`
	Layer       string   `json:"layer,omitempty"`
}

// ProblemKind says why something could not be looked at.
type ProblemKind string

// The kinds of problems. Each makes a report incomplete.
const (
	Unreadable ProblemKind = "unreadable" // a file or directory that could not be opened or read
	Malformed  ProblemKind = "malformed"  // a file that a parser gave up on
	TooLarge   ProblemKind = "too-large"  // more than the limits allow, such as a bomb
	Escaping   ProblemKind = "escaping"   // an entry of a layer that leads out of it
	Unknown    ProblemKind = "unknown"    // a system or package version that nothing is known of
)

// Problem is something that could not be looked at, or not wholly.
type Problem struct {
	Kind   ProblemKind `json:"kind"`
	Path   string      `json:"path,omitempty"`
	Detail string      `json:"detail"`
}

// Skipped counts files that were left out by rule, which is no problem.
type Skipped struct {
	Binary  int64 `json:"binary,omitempty"`  // not text, so not searched for secrets
	Pattern int64 `json:"pattern,omitempty"` // by a pattern of the request or of the secret rules
	Small   int64 `json:"small,omitempty"`   // too short to hold a secret
	Special int64 `json:"special,omitempty"` // no regular file
}

// Stats say how much was done.
type Stats struct {
	Files      int64         `json:"files"`
	Bytes      int64         `json:"bytes"`                 // read
	Remembered int64         `json:"remembered,omitempty"`  // files whose result was known by their content
	Took       time.Duration `json:"took"`                  // nanoseconds
	PeakMemory int64         `json:"peak_memory,omitempty"` // bytes, of the worker
}
