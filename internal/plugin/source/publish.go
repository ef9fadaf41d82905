package source

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/zeebo/blake3"
)

// DefaultIndexLife is how long an index may be used, when nobody says.
const DefaultIndexLife = 30 * 24 * time.Hour

// PublishOptions say how an index is made.
type PublishOptions struct {
	Signer   trust.Signer
	Describe func(ctx context.Context, path string) (Described, error) // what the package at path is; it refuses what is no package
	Serial   uint64                                                    // 0: one more than that of the index in the directory, or 1
	Expires  time.Time                                                 // whole seconds; zero: after DefaultIndexLife
	Now      time.Time                                                 // zero: now
	Note     string                                                    // a line for people in the signature; "": names the key
}

// MakeIndex makes index.json and its signature of all packages in dir, which is
// then ready to be copied to a web server. Files that are not called like a
// package are left alone. Two packages of the same name and sequence, and an
// index in dir that cannot be read, are errors, and nothing is written.
func MakeIndex(ctx context.Context, dir string, opts PublishOptions) (*Document, error) {
	if opts.Now.IsZero() {
		opts.Now = time.Now()
	}
	if opts.Expires.IsZero() {
		opts.Expires = opts.Now.Add(DefaultIndexLife)
	}
	doc := &Document{Schema: IndexSchema, Serial: opts.Serial, Generated: opts.Now.UTC().Truncate(time.Second), Expires: opts.Expires.UTC().Truncate(time.Second)}
	if !doc.Expires.After(doc.Generated) {
		return nil, failure.Errorf(failure.Usage, "an index that expires at %s would be of no use", doc.Expires.Format(time.RFC3339))
	}
	if err := nextSerial(dir, doc); err != nil {
		return nil, err
	}
	if err := collect(ctx, dir, doc, opts); err != nil {
		return nil, err
	}
	data, err := json.Marshal(doc) // without indentation, which every search would have to read
	if err != nil {
		return nil, err
	}
	data = append(data, '\n')
	if _, err := Parse(data); err != nil { // whatever Describe said, hosts must be able to read it
		return nil, err
	}
	release := trust.Release{Name: IndexRelease, Version: strconv.FormatUint(doc.Serial, 10), Sequence: doc.Serial, Channel: IndexChannel, Expires: doc.Expires}
	signature, err := trust.SignPackage(ctx, opts.Signer, bytes.NewReader(data), release, opts.Note)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, IndexName)
	if err := durable.WriteFile(path, data, 0o644); err != nil {
		return nil, err
	}
	return doc, durable.WriteFile(trust.SignaturePath(path), signature, 0o644)
}

// nextSerial gives the index a serial number above that of the one before.
func nextSerial(dir string, doc *Document) error {
	path := filepath.Join(dir, IndexName)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		doc.Serial = max(doc.Serial, 1)
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxIndex+1))
	if err != nil {
		return err
	}
	before, err := Parse(data)
	if err != nil {
		return failure.Hint(&Error{Code: CodeOf(err), Msg: path, Err: err}, "move it away, and give the new one a serial number above all that were published")
	}
	if doc.Serial == 0 {
		doc.Serial = before.Serial + 1
	}
	if doc.Serial <= before.Serial {
		return failure.Errorf(failure.Usage, "the serial number %d is not above %d, that of the index before: hosts would refuse it", doc.Serial, before.Serial)
	}
	return nil
}

// collect describes all packages of dir.
func collect(ctx context.Context, dir string, doc *Document, opts PublishOptions) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	plugins := map[string][]Version{}
	for _, e := range entries {
		if !e.Type().IsRegular() || !isPackageName(e.Name()) || e.Name()[0] == '.' {
			continue
		}
		path := filepath.Join(dir, e.Name())
		d, err := opts.Describe(ctx, path)
		if err != nil {
			return failure.Hint(err, "put it right, or move "+path+" away")
		}
		v := Version{Version: d.Version, Sequence: d.Sequence, URL: (&url.URL{Path: e.Name()}).String(), Summary: d.Summary, MinVersion: d.MinVersion}
		if v.Digest, v.Size, err = measure(ctx, path); err != nil {
			return err
		}
		for _, other := range plugins[d.Name] {
			if other.Sequence == v.Sequence {
				return failure.Errorf(failure.Usage, "%s and %s are both %s of the sequence %d: each version has a sequence of its own", other.URL, v.URL, d.Name, v.Sequence)
			}
		}
		plugins[d.Name] = append(plugins[d.Name], v)
	}
	doc.Plugins = []Plugin{}
	for name, versions := range plugins {
		slices.SortFunc(versions, func(a, b Version) int { return cmp.Compare(b.Sequence, a.Sequence) })
		doc.Plugins = append(doc.Plugins, Plugin{name, versions})
	}
	slices.SortFunc(doc.Plugins, func(a, b Plugin) int { return cmp.Compare(a.Name, b.Name) })
	return nil
}

// measure returns the BLAKE3 digest and the size of a file.
func measure(ctx context.Context, path string) (string, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := blake3.New()
	n, err := io.Copy(durable.Writer(ctx, h), f)
	return hex.EncodeToString(h.Sum(nil)), n, err
}
