//go:build goexperiment.jsonv2

// Package secret is the analyzer that takes the place of Trivy's secret analyzer.
// It has Trivy's rules, its configuration file and its path filters, and finds what
// Trivy finds; docs/formats/scan-parity.md lists where it finds more. It takes a
// twentieth of the time.
//
// A file is read once. One automaton looks for the anchors of all rules in it
// (package keyword/window), and most files end there. For the others an expression
// runs only where an anchor was found. Whether a keyword of the rule is in the file
// is asked when the expression has matched, which is rare, and asked of Trivy.
//
// Trivy reads files in parts of 64 KiB that overlap by 4 KiB, and so misses and
// doubles what lies across their borders. Here a file is one part, up to 32 MiB; see
// windowBytes for larger ones.
//
// With a memo a file that was looked at before is not even opened, when device,
// inode, size, times of change and path say that it is the same one (remember.go).
//
// It is wired like this:
//
//	analyzer.DeregisterAnalyzer(analyzer.TypeSecret)
//	a, err := secret.Analyzer(secret.Options{Config: request.SecretRules, Memo: m})
//	…
//	analyzer.RegisterAnalyzer(a) // or called in the place of Trivy's
//	…
//	s := a.Stats() // after the scan: Skipped.Binary += s.Binary, and so on
package secret

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/aquasecurity/trivy/pkg/fanal/analyzer"
	"github.com/aquasecurity/trivy/pkg/fanal/secret"
	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"
	"github.com/zeebo/blake3"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/memo"
)

// Options say how to look.
type Options struct {
	// Config is a file in the format of Trivy's secret configuration. "", or a file
	// that isn't there: the rules that are built in.
	Config string
	Memo   *memo.Memo // nil: nothing is remembered after the run
}

// Stats count files.
type Stats struct {
	Binary     int64 // not text, so not searched
	Small      int64 // shorter than ten bytes
	Pattern    int64 // left out by a pattern of paths
	Remembered int64 // known from the memo, and not searched; also counted as binary if they are
	Searched   int64
	Bytes      int64 // read
}

// SecretAnalyzer looks for secrets in files. It is safe for concurrent use.
type SecretAnalyzer struct {
	engine *engine
	paths  *paths
	memory *memory
	// ruleset is a digest of the rules, of the patterns of paths that are left out, and
	// of the name of the configuration, which is left out too.
	ruleset [32]byte
	config  string // clean

	binary, small, pattern, remembered, searched, bytes atomic.Int64
	large                                               chan struct{} // a place for each large file
}

// Sizes of files. Trivy has the first two.
const (
	minSize  = 10
	headSize = 300
	// largeSize is that from which files wait for each other, because each takes
	// as much memory: two at a time.
	largeSize  = 4 << 20
	firstBytes = 64 << 10 // what is read before it is clear whether a file is text
	// A text that is longer than sparseSize, and of which less than one part in
	// sparseTimes is stored, is not searched: anybody can make a file that takes
	// longer to read than a scan may, of which nothing is stored at all.
	sparseSize  = 1 << 30
	sparseTimes = 64
)

// storedBytes is what a file takes on its disk. What is in archives takes none.
func storedBytes(info os.FileInfo) (int64, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return st.Blocks * 512, true // stat(2): of 512 bytes, whatever the file system has
}

// textInBinaries are extensions of binary files whose text is searched.
var textInBinaries = []string{".pyc"}

// Analyzer returns an analyzer of the type analyzer.TypeSecret. An error is one of the
// configuration (failure.Usage).
func Analyzer(o Options) (*SecretAnalyzer, error) {
	config := clean(o.Config)
	c, err := secret.ParseConfig(config)
	if err != nil {
		return nil, failure.Errorf(failure.Usage, "the rules for secrets in %s cannot be used: %w", o.Config, err)
	}
	a := &SecretAnalyzer{config: config, large: make(chan struct{}, 2)}
	global := secret.NewScanner(c).Global
	if a.paths, err = newPaths(global); err != nil {
		return nil, err
	}
	if a.engine, err = newEngine(global); err != nil {
		return nil, err
	}
	if o.Memo != nil {
		a.memory = newMemory(o.Memo, global)
		a.ruleset = blake3.Sum256(fmt.Appendf(nil, "%x %q %q", a.memory.ruleset, global.SkipPatterns, config))
	}
	return a, nil
}

func clean(path string) string {
	if path == "" {
		return ""
	}
	return filepath.ToSlash(filepath.Clean(path))
}

// Type is that of Trivy's analyzer, which must be taken out first.
func (a *SecretAnalyzer) Type() analyzer.Type { return analyzer.TypeSecret }

// Version takes part in the keys of Trivy's cache. Trivy's own is 1.
func (a *SecretAnalyzer) Version() int { return 1001 }

// Stats returns what was counted so far.
func (a *SecretAnalyzer) Stats() Stats {
	return Stats{
		Binary: a.binary.Load(), Small: a.small.Load(), Pattern: a.pattern.Load(),
		Remembered: a.remembered.Load(), Searched: a.searched.Load(), Bytes: a.bytes.Load(),
	}
}

// Part returns an analyzer that does the same and counts for itself. What it counted
// is added to a by Add, or forgotten.
func (a *SecretAnalyzer) Part() *SecretAnalyzer {
	return &SecretAnalyzer{engine: a.engine, paths: a.paths, memory: a.memory, ruleset: a.ruleset, config: a.config, large: a.large}
}

// Add counts what a Part counted, or what one counted of the same files before.
func (a *SecretAnalyzer) Add(s Stats) {
	a.binary.Add(s.Binary)
	a.small.Add(s.Small)
	a.pattern.Add(s.Pattern)
	a.remembered.Add(s.Remembered)
	a.searched.Add(s.Searched)
	a.bytes.Add(s.Bytes)
}

// Ruleset is a digest of all that results depend on beside paths and content.
func (a *SecretAnalyzer) Ruleset() [32]byte { return a.ruleset }

// Required tells whether a file is to be opened and given to Analyze. It counts those
// that are not, so it must be called once for each file. A file in which nothing was
// found before, and that is the same since, is not required.
func (a *SecretAnalyzer) Required(path string, info os.FileInfo) bool {
	if info.Size() < minSize {
		a.small.Add(1)
		return false
	}
	// As Trivy has it, a file of the same name as the configuration elsewhere in
	// the tree is left out too.
	if a.config != "" {
		if p := clean(path); a.config == p || strings.HasSuffix(a.config, "/"+p) {
			a.pattern.Add(1)
			return false
		}
	}
	if a.paths.skipped(path) {
		a.pattern.Add(1)
		return false
	}
	at := a.paths.look(path)
	if at.allowed {
		a.pattern.Add(1)
		return false
	}
	if a.memory == nil {
		return true
	}
	known, ok := a.memory.file(info, at.profile(path))
	switch {
	case !ok || known.kind == findings || known.kind == binaryFindings:
		return true
	case known.kind == binaryFile:
		a.binary.Add(1)
	}
	a.remembered.Add(1)
	return false
}

// Analyze looks at one file.
func (a *SecretAnalyzer) Analyze(ctx context.Context, input analyzer.AnalysisInput) (*analyzer.AnalysisResult, error) {
	// Paths in images have no directory that they are relative to. Expressions for
	// paths expect them to be absolute.
	path, layered := input.FilePath, input.Dir == ""
	if layered {
		path = "/" + path
	}
	at := a.paths.look(path)
	if at.allowed {
		a.pattern.Add(1)
		return nil, nil
	}
	memory := a.memory
	if layered {
		memory = nil // what looks like an inode isn't that of the file
	}
	profile := at.profile(path)
	if known, ok := memory.file(input.Info, profile); ok {
		a.remembered.Add(1)
		if known.kind == binaryFile {
			a.binary.Add(1)
		}
		return known.result(path), nil
	}
	started := time.Now()
	found, err := a.search(ctx, input, path, at)
	if err != nil {
		return nil, err
	}
	memory.put(input, started, profile, found)
	return found.result(path), nil
}

// search reads a file and looks for secrets in it.
func (a *SecretAnalyzer) search(ctx context.Context, input analyzer.AnalysisInput, path string, at location) (outcome, error) {
	size := input.Info.Size()
	if size > largeSize {
		select {
		case a.large <- struct{}{}:
			defer func() { <-a.large }()
		case <-ctx.Done():
			return outcome{}, ctx.Err()
		}
	}
	b := buffers.Get().(*buffer)
	defer b.release()
	b.grow(int(min(size+1, firstBytes)))
	n, err := io.ReadFull(input.Content, b.bytes[:min(size+1, firstBytes)])
	whole := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	if err != nil && !whole {
		return outcome{}, fmt.Errorf("read: %w", err)
	}
	a.bytes.Add(int64(n))
	isBinary := binaryHead(b.bytes[:min(n, headSize)])
	if isBinary && !textInBinary(path) {
		a.binary.Add(1)
		return outcome{kind: binaryFile}, nil
	}
	if stored, ok := storedBytes(input.Info); ok && size > sparseSize && stored < size/sparseTimes {
		return outcome{}, fmt.Errorf("it has %d bytes, of which %d are stored, and was not searched for secrets: zeros without end take hours", size, stored)
	}
	s := search{engine: a.engine, path: path, at: at, buffer: b, memory: a.memory, binary: isBinary}
	_, identified := memo.Identify(input.Info)
	s.byContent = a.memory != nil && (!identified || a.engine.expensive())
	switch {
	case isBinary:
		// What is left of a binary file is short: its text is made from the start.
		rest := &counted{input.Content, &a.bytes}
		all := io.MultiReader(bytes.NewReader(slices.Clone(b.bytes[:n])), rest)
		err = s.read(ctx, printable(all), size)
	case whole:
		s.window(n, true)
		err = nil
	default:
		s.have = n
		err = s.read(ctx, &counted{input.Content, &a.bytes}, size)
	}
	if err != nil {
		return outcome{}, err
	}
	if s.known {
		a.remembered.Add(1)
	} else {
		a.searched.Add(1)
	}
	return s.outcome(), nil
}

// counted counts what is read.
type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// binaryHead tells from the first bytes of a file whether it is text, as file(1)
// does in encoding.c.
func binaryHead(head []byte) bool {
	for _, b := range head {
		if b < 7 || b == 11 || 13 < b && b < 27 || 27 < b && b < 0x20 || b == 0x7f {
			return true
		}
	}
	return false
}

func textInBinary(path string) bool { return slices.Contains(textInBinaries, filepath.Ext(path)) }

// outcomeKind is what came of a file. The numbers are written into memos.
type outcomeKind byte

const (
	nothing        outcomeKind = 0
	binaryFile     outcomeKind = 'b' // not searched
	findings       outcomeKind = 'f'
	binaryFindings outcomeKind = 'F' // in the text of a binary file
)

// outcome is what came of a file.
type outcome struct {
	kind     outcomeKind
	findings []ftypes.SecretFinding
}

// result is an outcome as Trivy wants it.
func (o outcome) result(path string) *analyzer.AnalysisResult {
	if len(o.findings) == 0 {
		return nil
	}
	if o.kind == binaryFindings {
		for i := range o.findings {
			f := &o.findings[i]
			f.Match, f.Code = fmt.Sprintf("Binary file %q matches a rule %q", path, f.Title), ftypes.Code{}
		}
		order(o.findings)
	}
	return &analyzer.AnalysisResult{Secrets: []ftypes.Secret{{FilePath: path, Findings: o.findings}}}
}
