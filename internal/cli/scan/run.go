package scan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	engine "github.com/mobileops/mobileops/internal/scan"
	"github.com/mobileops/mobileops/internal/scan/license"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/vex"
	"github.com/mobileops/mobileops/internal/ui"
)

// runTarget scans one target and prints what was found.
func runTarget(ctx context.Context, a *app.App, o *targetOptions, target string) error {
	a.BindFlag("scan.license_policy", o.policy)
	request, err := o.request(a, target)
	if err != nil {
		return err
	}
	show, err := o.selection()
	if err != nil {
		return err
	}
	e, err := newEngine(a, o.allowStale, o.attribution)
	if err != nil {
		return err
	}
	if o.failOn == "kev" && slices.Contains(request.Scanners, protocol.Vulnerabilities) {
		if err := knowsKEV(a); err != nil {
			return err
		}
	}
	bar := newProgress(a, "scanning "+ui.Escape(target))
	report, err := e.Scan(ctx, *request, bar.take)
	bar.stop()
	if err != nil {
		return err
	}
	v := newView(report, show, time.Now())
	a.SetResult("%s: %s", ui.Printable(report.Asset.ID), v.summary())
	if err := o.writeNotice(report); err != nil {
		return err
	}
	if err := v.print(a, o); err != nil {
		return err
	}
	return failure.Silent(v.verdict(o))
}

// request is what the flags ask the engine for.
func (o *targetOptions) request(a *app.App, target string) (*engine.Request, error) {
	if target == "" {
		return nil, app.UsageError("the target is empty: name one")
	}
	scanners, err := o.wanted()
	if err != nil {
		return nil, err
	}
	r := &engine.Request{
		Kind: o.kind, Target: target, Remote: o.remote, Insecure: o.insecure, Platform: o.platform,
		Host:     o.host,
		Scanners: scanners, SkipDirs: o.skipDirs, SkipFiles: o.skipFiles, Document: document(a.Streams.Format),
		Packages: o.allPackages, Asset: o.asset, Forget: o.noRemember,
	}
	if o.kind == protocol.Image && !r.Remote {
		if r.Remote, err = isReference(target); err != nil {
			return nil, err
		}
	}
	if !r.Remote {
		if _, err := os.Stat(target); err != nil {
			return nil, unreadable(target, err)
		}
	}
	if o.allPackages && a.Streams.Format != ui.JSON {
		return nil, app.UsageError("--all-packages goes with --output json (an SBOM lists them all: --output cyclonedx)")
	}
	if o.notice != "" { // it would be a pity to find out when the scan is done
		if dir := filepath.Dir(o.notice); !isDir(dir) {
			return nil, failure.Hint(failure.Errorf(failure.Failed, "--notice: there is no directory %s", ui.Escape(dir)), "make it first: mkdir -p")
		}
		if isDir(o.notice) {
			return nil, failure.Errorf(failure.Failed, "--notice: %s is a directory", ui.Escape(o.notice))
		}
	}
	for _, path := range o.vex {
		d, err := readVEX(path)
		if err != nil {
			return nil, err
		}
		r.VEX = append(r.VEX, d)
	}
	return r, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// unreadable is the error of a file that cannot be looked at.
func unreadable(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return failure.Errorf(failure.Failed, "there is no %s", ui.Escape(path))
	}
	return failure.Wrap(failure.Failed, err)
}

// isReference tells the name of an image from a path. What looks like a path and
// is none is a slip, not a name to ask a registry for.
func isReference(target string) (bool, error) {
	if _, err := os.Lstat(target); err == nil {
		return false, nil
	}
	if filepath.IsAbs(target) || strings.HasPrefix(target, "./") || strings.HasPrefix(target, "../") || strings.HasSuffix(target, ".tar") {
		return false, failure.Hint(failure.Errorf(failure.Failed, "there is no %s", ui.Escape(target)), "if it is the name of an image: --remote")
	}
	return true, nil
}

// maxVEX is how long a VEX document may be that is read from a file, in bytes.
const maxVEX = 64 << 20

func readVEX(path string) (*vex.Document, error) {
	data, err := readFile(path, maxVEX)
	if err != nil {
		return nil, err
	}
	d, err := vex.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ui.Escape(path), err)
	}
	return d, nil
}

// writeNotice writes which licences apply, in the format that the file's name
// ends with.
func (o *targetOptions) writeNotice(report *engine.Report) error {
	if o.notice == "" {
		return nil
	}
	n, out := license.Attribution(report.Scanned), new(bytes.Buffer)
	write := n.WriteText
	switch strings.ToLower(filepath.Ext(o.notice)) {
	case ".md":
		write = n.WriteMarkdown
	case ".json":
		write = n.WriteJSON
	}
	if err := write(out); err != nil {
		return err
	}
	if err := durable.WriteFile(o.notice, out.Bytes(), 0o644); err != nil {
		return failure.Wrap(failure.Failed, err)
	}
	return nil
}
