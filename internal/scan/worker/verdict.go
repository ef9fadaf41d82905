package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unicode"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// verdict says what went wrong, and nil when nothing did. state is nil of a process
// that doesn't end.
func (r *running) verdict(ctx context.Context, state *os.ProcessState, got *answer, gotErr error, oom bool) error {
	if err := ctx.Err(); errors.Is(err, context.Canceled) {
		return err
	} else if err != nil {
		return failure.Errorf(failure.Failed, "time is up%s: %w", r.news.at(), err)
	}
	if r.stopped() {
		return fmt.Errorf("%s was ended: %w", Name, r.why)
	}
	if state == nil {
		return failure.Errorf(failure.Failed, "%s does not end, though it was killed", Name)
	}
	status, _ := state.Sys().(syscall.WaitStatus)
	failed := got.failure()
	if gotErr != nil {
		failed = nil
	}
	switch {
	case status.Signaled() && status.Signal() == unix.SIGKILL && oom:
		return r.crashed("the kernel ended it, because memory ran out", "give it less to do at a time, or set scan.memory below what there is")
	case status.Signaled() && status.Signal() == unix.SIGKILL:
		return r.crashed("somebody, or the kernel for want of memory, killed it", "look for \"Out of memory\" in the messages of the kernel (dmesg); if it is there, set scan.memory below what there is")
	case status.Signaled():
		return r.crashed("it was ended by the signal "+unix.SignalName(status.Signal()), "")
	case failed != nil && r.worker.same(failed.Version) != nil:
		return r.worker.same(failed.Version)
	case failed != nil && failed.Status == failure.Interrupted.Status():
		return failure.Errorf(failure.Failed, "somebody else told %s to end", Name)
	case failed != nil:
		kind, ok := failure.OfStatus(failed.Status)
		if !ok || kind == failure.None {
			kind = failure.Failed
		}
		err := failure.New(kind, visible(failed.Message))
		if failed.Hint != "" {
			err = failure.Hint(err, visible(failed.Hint))
		}
		return err
	case state.ExitCode() != 0:
		return r.crashed(fmt.Sprintf("it ended with status %d", state.ExitCode()), "")
	case gotErr != nil:
		return r.crashed("its report cannot be read: "+gotErr.Error(), "")
	}
	return nil
}

// crashed tells how it ended, its last words and what it was at.
func (r *running) crashed(how, hint string) error {
	words, panicked := r.words.tell()
	switch {
	case panicked: // which says more
		how = words
	case words != "":
		how += "; its last words: " + words
	}
	if strings.Contains(words, "cannot allocate memory") || strings.Contains(words, "out of memory") {
		hint = "give it more: scan.memory; or leave out what it was at"
	} else if hint == "" {
		hint = "leave out what it was at, and scan again; please report it with these words"
	}
	return failure.Hint(failure.Errorf(failure.Failed, "%s crashed%s: %s", Name, r.news.at(), how), hint)
}

const (
	mostWords    = 16 << 10 // of stderr that are kept
	mostHeadline = 512
	toldLines    = 3
)

// lastWords keeps the end of what a worker writes on stderr, and the line by which
// the runtime of Go begins to tell of a panic: behind it come pages of stacks.
type lastWords struct {
	mu       sync.Mutex
	ring     []byte
	line     []byte // that is being written, its beginning
	headline string
}

func (l *lastWords) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring = append(l.ring, p[max(0, len(p)-mostWords):]...)
	if over := len(l.ring) - mostWords; over > 0 {
		l.ring = append(l.ring[:0], l.ring[over:]...)
	}
	for rest := p; l.headline == "" && len(rest) > 0; {
		line, after, ended := bytes.Cut(rest, []byte{'\n'})
		l.line = append(l.line, line[:min(len(line), mostHeadline-len(l.line))]...)
		rest = after
		if ended {
			l.look()
		}
	}
	return len(p), nil
}

// look looks at the line that is complete.
func (l *lastWords) look() {
	for _, prefix := range []string{"panic: ", "fatal error: ", "SIG", "runtime: out of memory", "unexpected fault address"} {
		if strings.HasPrefix(string(l.line), prefix) {
			l.headline = strings.TrimSpace(string(l.line))
		}
	}
	l.line = l.line[:0]
}

// tell returns the words in one line that is fit for a terminal, and whether they
// are those of a panic.
func (l *lastWords) tell() (words string, panicked bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.headline == "" {
		l.look()
	}
	if l.headline != "" {
		return visible(l.headline), true
	}
	var lines []string
	for line := range bytes.Lines(l.ring) {
		if line = bytes.TrimSpace(line); len(line) > 0 {
			lines = append(lines, visible(string(line[:min(len(line), mostHeadline)])))
		}
	}
	return strings.Join(lines[max(0, len(lines)-toldLines):], " / "), false
}

// visible escapes what a terminal would act upon, or not show.
func visible(s string) string {
	var b strings.Builder
	for i, c := range s {
		switch {
		case c == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(c):
			b.WriteRune(c)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(c), "'"))
		}
	}
	return b.String()
}
