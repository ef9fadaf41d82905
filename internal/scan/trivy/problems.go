//go:build goexperiment.jsonv2

package trivy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/mobileops/mobileops/internal/scan/protocol"
)

const (
	maxProblems = 10_000
	maxNotes    = 100
	maxDetail   = 1000 // bytes
)

// problems collects what could not be looked at. It is safe for concurrent use.
type problems struct {
	whole *problems    // what this is a part of, or nil: it is told all of it too
	heard atomic.Int64 // messages of Trivy, which doesn't say what they are about
	mu    sync.Mutex
	list  []protocol.Problem
	seen  map[protocol.Problem]bool
	more  int
	notes []string
}

func newProblems() *problems { return &problems{seen: map[protocol.Problem]bool{}} }

// part returns problems that are those of p as well.
func (p *problems) part() *problems {
	part := newProblems()
	part.whole = p
	return part
}

func (p *problems) add(kind protocol.ProblemKind, path, detail string) {
	if len(detail) > maxDetail {
		detail = strings.ToValidUTF8(detail[:maxDetail], "") + "…"
	}
	if p.whole != nil {
		p.whole.add(kind, path, detail)
	}
	problem := protocol.Problem{Kind: kind, Path: path, Detail: detail}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.seen[problem]:
	case len(p.list) == maxProblems:
		p.more++
	default:
		p.seen[problem] = true
		p.list = append(p.list, problem)
	}
}

// failed adds an error of reading or parsing a file.
func (p *problems) failed(path string, err error) {
	kind := protocol.Malformed
	if unreadable(err) {
		kind = protocol.Unreadable
	}
	p.add(kind, path, plain(err).Error())
}

func unreadable(err error) bool {
	var path *fs.PathError
	return errors.Is(err, fs.ErrPermission) || errors.As(err, &path)
}

// incomplete tells whether there is any problem.
func (p *problems) incomplete() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.list) > 0
}

func (p *problems) note(text string) {
	if p.whole != nil {
		p.whole.note(text)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.notes) < maxNotes && !slices.Contains(p.notes, text) {
		p.notes = append(p.notes, text)
	}
}

// all returns what was collected, in order.
func (p *problems) all() ([]protocol.Problem, []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := slices.Clone(p.list)
	slices.SortFunc(list, func(a, b protocol.Problem) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Detail, b.Detail))
	})
	// Of a file that two of Trivy's parsers gave up on, one line is enough when they say the same.
	list = slices.Compact(list)
	if p.more > 0 {
		list = append(list, protocol.Problem{Kind: protocol.TooLarge, Detail: fmt.Sprintf("%d more problems are not listed", p.more)})
	}
	return list, slices.Clone(p.notes)
}

// plain takes the repetitions out of a chain of Trivy's errors: "failed to parse
// x: failed to parse x: EOF".
func plain(err error) error {
	parts := strings.Split(err.Error(), ": ")
	out := slices.Compact(parts)
	if len(out) == len(parts) && strings.Join(out, ": ") == err.Error() {
		return err
	}
	return errors.New(strings.Join(out, ": "))
}

// listener is told what Trivy logs, which is the only place where it says that a
// post-analyzer, a detector or a parser gave up on something.
type listener struct {
	found *problems
	attrs []slog.Attr
}

func (l *listener) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelDebug }

func (l *listener) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &listener{found: l.found, attrs: slices.Concat(l.attrs, attrs)}
}

func (l *listener) WithGroup(string) slog.Handler { return l }

func (l *listener) Handle(_ context.Context, r slog.Record) error {
	var path string
	var err error
	var rest []string
	each := func(a slog.Attr) bool {
		switch v := a.Value.Any().(type) {
		case error:
			err = v
		default:
			switch a.Key {
			case "file_path", "path", "dir":
				path = a.Value.String()
			default:
				if r.Level >= slog.LevelWarn && harmless[a.Key] {
					rest = append(rest, a.Key+" "+a.Value.String())
				}
			}
		}
		return true
	}
	if r.Level < slog.LevelWarn && !tells[r.Message] {
		return nil
	}
	for _, a := range l.attrs {
		each(a)
	}
	r.Attrs(each)
	message := strings.TrimSuffix(strings.TrimSpace(r.Message), ".")
	if len(rest) > 0 {
		message += " (" + strings.Join(rest, ", ") + ")"
	}
	kind := weigh(r, err)
	if kind == "" || errors.Is(err, fs.ErrNotExist) {
		return nil // such as a file that Trivy looks for beside another one, and that needn't be there
	}
	l.found.heard.Add(1)
	switch {
	case kind == noted:
		if path != "" {
			message = path + ": " + message
		}
		if err != nil {
			message += ": " + plain(err).Error()
		}
		l.found.note(message)
	case err != nil && unreadable(err):
		l.found.add(protocol.Unreadable, path, plain(err).Error())
	case err != nil:
		l.found.add(kind, path, message+": "+plain(err).Error())
	default:
		l.found.add(kind, path, message)
	}
	return nil
}

// harmless are attributes of Trivy's messages that say what something is called, or
// how large it is. Others are left out: they can be lines of the files that are
// examined, with the secrets in them, as "cause" is where Terraform is malformed.
var harmless = map[string]bool{
	"name": true, "package": true, "pkg": true, "member_path": true, "pkg_path": true, "package_path": true,
	"license": true, "algorithm": true, "severity": true, "repo": true, "family": true, "OS": true, "version": true, "type": true,
	"target": true, "root": true, "library": true, "module": true, "count": true, "size": true, "timeout": true, "variables": true,
}

// tells are Trivy's messages of levels below a warning by which something is left out.
var tells = map[string]bool{
	"Walk error":                                    true, // a post-analyzer could not parse one of its files
	"Failed to parse":                               true, // an archive within a JAR
	"Unable to parse the available file":            true,
	"Image config analysis error":                   true,
	"Installed package version error":               true,
	"Failed to parse the installed package version": true,
}

const noted protocol.ProblemKind = "note"

// weigh says what a message of Trivy means: a Problem of a kind, a note, or nothing.
func weigh(r slog.Record, err error) protocol.ProblemKind {
	m := r.Message
	switch {
	case strings.HasPrefix(m, "This OS version is no longer supported"), strings.HasPrefix(m, "The vulnerability detection may be insufficient"):
		return "" // the report says so
	case m == "This OS version is not on the EOL list":
		return noted
	case m == "Unsupported os", strings.HasPrefix(m, "Version matching error"), strings.Contains(m, "package version"), strings.HasPrefix(m, "Invalid version"), strings.HasPrefix(m, "Invalid source version"):
		return protocol.Unknown
	case strings.HasPrefix(m, "No OS package is detected"):
		return noted
	case strings.HasPrefix(m, `e.g. files under`), strings.HasPrefix(m, "Third-party SBOM"), strings.HasPrefix(m, "Recommend using Trivy"), strings.HasPrefix(m, "The size of the scanned file is too large"):
		return ""
	case strings.HasPrefix(m, "Unable to get vulnerability details"):
		return noted
	case err != nil && r.Level >= slog.LevelWarn && strings.Contains(strings.ToLower(m), "licens"):
		return noted
	case strings.Contains(m, "terraform init"), strings.HasPrefix(m, "Variable values"), strings.HasPrefix(m, "Missing parameter values"), strings.Contains(m, "submodule"):
		return noted
	case err != nil:
		return protocol.Malformed
	case strings.HasPrefix(m, "Parse error"), strings.HasPrefix(m, "Error parsing"), strings.HasPrefix(m, "Failed to parse"), strings.HasPrefix(m, "Encountered HCL parse error"):
		return protocol.Malformed
	}
	return noted
}
