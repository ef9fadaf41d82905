//go:build goexperiment.jsonv2

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mobileops/mobileops/internal/buildinfo"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/trivy"
	"github.com/mobileops/mobileops/internal/scan/trivy/build"
)

const (
	maxRequest       = 16 << 20 // bytes
	progressInterval = 200 * time.Millisecond
)

// serve reads one request, does what it asks for, writes the report or what went
// wrong, and returns the exit status.
func serve(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) int {
	report, err := answer(ctx, stdin, stderr)
	if err == nil {
		if err = write(stdout, report); err == nil {
			return 0
		}
		// The report was written in part, so that a Failure behind it would be of no use.
		fmt.Fprintln(stderr, "mobileops-scan: write the report:", err)
		return failure.Failed.Status()
	}
	if ctx.Err() != nil {
		err = failure.Wrap(failure.Interrupted, err)
	}
	if e := write(stdout, failed(err)); e != nil {
		fmt.Fprintln(stderr, "mobileops-scan:", err)
	}
	return failure.KindOf(err).Status()
}

func write(w io.Writer, v any) error {
	b := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	return b.Flush()
}

func failed(err error) protocol.Failure {
	f := protocol.Failure{Schema: protocol.Schema, Version: buildinfo.Get().Version, Status: failure.KindOf(err).Status(), Message: err.Error()}
	var e *failure.Error
	if errors.As(err, &e) && e.Hint != "" {
		f.Hint = e.Hint
		without := *e
		without.Hint = ""
		if s := without.Error(); s != "" {
			f.Message = s
		}
	}
	return f
}

// answer does what the request asks for.
func answer(ctx context.Context, stdin io.Reader, stderr io.Writer) (report any, err error) {
	req, err := read(stdin)
	if err != nil {
		return nil, err
	}
	what := "the request"
	defer func() {
		if v := recover(); v != nil {
			fmt.Fprintf(stderr, "panic: %v\n%s", v, debug.Stack())
			err = failure.Errorf(failure.Failed, "%s: a parser panicked: %v", what, v)
		}
	}()
	tell := newTeller()
	ctx = trivy.WithTrace(ctx, stderr)
	switch {
	case req.Scan != nil:
		what = "scan " + req.Scan.Target
		if err := useTemp(req.Scan.Temp); err != nil {
			return nil, err
		}
		tune(req.Scan)
		if !req.Scan.Remote {
			// Nothing that is needed is a program: helpers of registries are, and git,
			// which Trivy would start for modules that a scanned file names.
			if err := os.Unsetenv("PATH"); err != nil {
				return nil, failure.Wrap(failure.Failed, err)
			}
		}
		return result(trivy.Scan(ctx, req.Scan, tell.progress))
	default:
		what = "build a database"
		if err := useTemp(req.Build.Temp); err != nil {
			return nil, err
		}
		return result(build.Build(ctx, req.Build, tell.progress))
	}
}

// result keeps a nil pointer from becoming a report.
func result[T any](r *T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return r, nil
}

// read reads the request and refuses one of another version.
func read(stdin io.Reader) (*protocol.Request, error) {
	b, err := io.ReadAll(io.LimitReader(stdin, maxRequest+1))
	if err != nil {
		return nil, failure.Errorf(failure.Failed, "read the request: %w", err)
	}
	if len(b) > maxRequest {
		return nil, failure.Errorf(failure.Usage, "the request has more than %d bytes", maxRequest)
	}
	// Who asks is looked at before anything else: a request of another version may
	// well have fields that are not known here.
	var head struct {
		Schema  string `json:"schema"`
		Version string `json:"version"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, failure.Errorf(failure.Usage, "the request cannot be read: %w", err)
	}
	own := buildinfo.Get().Version
	if head.Schema != protocol.Schema {
		return nil, failure.Errorf(failure.NotReady, "mobileops-scan speaks %s, and mobileops %s asks in %q", protocol.Schema, head.Version, head.Schema)
	}
	if head.Version != own {
		return nil, failure.Hint(failure.Errorf(failure.NotReady, "mobileops-scan is of version %s, and mobileops of version %s", own, head.Version),
			"install both from the same release")
	}
	var req protocol.Request
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return nil, failure.Errorf(failure.Usage, "the request cannot be read: %w", err)
	}
	if dec.More() {
		return nil, failure.New(failure.Usage, "there is something after the request")
	}
	if (req.Scan == nil) == (req.Build == nil) {
		return nil, failure.New(failure.Usage, "the request asks for neither a scan nor a build, or for both")
	}
	return &req, nil
}

// useTemp makes dir the place of all temporary files, those of Trivy too.
func useTemp(dir string) error {
	if dir == "" {
		return nil // Scan and Build say what is wrong
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return failure.Errorf(failure.Failed, "the directory for temporary files, %s, cannot be used: %w", dir, errors.Join(err, errNoDirectory(info)))
	}
	return os.Setenv("TMPDIR", dir)
}

func errNoDirectory(info os.FileInfo) error {
	if info != nil && !info.IsDir() {
		return errors.New("it is no directory")
	}
	return nil
}

// teller writes progress on its descriptor for as long as somebody reads it.
//
// The descriptor is not wrapped in an os.File: when nobody passed it on, its number
// may be one that the runtime opened for itself, which the collector would close.
type teller struct {
	mu   sync.Mutex
	off  bool
	last time.Time
	was  string
}

const maxItem = 1024 // bytes, so that a line is written to a pipe as a whole or not at all

func newTeller() *teller {
	var st unix.Stat_t
	flags, err := unix.FcntlInt(protocol.ProgressDescriptor, unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE == unix.O_RDONLY || unix.Fstat(protocol.ProgressDescriptor, &st) != nil {
		return &teller{off: true}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFREG, unix.S_IFCHR:
	default:
		return &teller{off: true}
	}
	// A reader that is slow loses lines; it never holds up the scan.
	return &teller{off: unix.SetNonblock(protocol.ProgressDescriptor, true) != nil}
}

func (t *teller) progress(p protocol.Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if t.off || now.Sub(t.last) < progressInterval && p.Stage == t.was {
		return
	}
	t.last, t.was = now, p.Stage
	if len(p.Item) > maxItem {
		p.Item = strings.ToValidUTF8(p.Item[:maxItem], "")
	}
	b, err := json.Marshal(p)
	if err != nil {
		return
	}
	if _, err := unix.Write(protocol.ProgressDescriptor, append(b, '\n')); err != nil && !errors.Is(err, unix.EAGAIN) {
		t.off = true // nobody reads it any more
	}
}
