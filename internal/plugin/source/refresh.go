package source

import (
	"context"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/zeebo/blake3"
)

// Index is a place where many packages are.
type Index struct {
	Name string // what it is called here: lower case letters, digits and hyphens
	URL  string // of index.json or of the directory with it; a path or file:/// for one on this host
	Seen Seen   // what was accepted last; zero: nothing yet
}

// Seen is what has to be remembered of an index, so that nobody can pass off an
// older one.
type Seen struct {
	Serial uint64    `json:"serial"`
	Digest string    `json:"digest"` // BLAKE3-256 of index.json
	Time   time.Time `json:"time"`   // when it was accepted, by the clock of this host
}

// Status is what is known about an index.
type Status struct {
	Name, URL string
	Serial    uint64 // 0: nothing is known
	Generated time.Time
	Expires   time.Time
	Fetched   time.Time // when it was got from where it is
	Plugins   int
	Cached    bool  // it was not looked at now
	Err       error // why it cannot be used, or could not be looked at
}

// Age is how long ago the index was fetched.
func (s *Status) Age(now time.Time) time.Duration { return max(0, now.Sub(s.Fetched)) }

func checkIndexName(name string) error {
	if name == "" || len(name) > 48 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.HasPrefix(name, "-") {
		return refuse(CodeSpec, "1 to 48 lower case letters, digits and hyphens", "%.80q is not the name of an index", name)
	}
	return nil
}

// Refresh gets every index anew and keeps it in Options.CacheDir. What is wrong
// with one of them stands in its Status and keeps nobody from the others.
func Refresh(ctx context.Context, opts Options) []Status {
	opts = opts.withDefaults()
	list := make([]Status, len(opts.Indexes))
	var wg sync.WaitGroup
	for i, idx := range opts.Indexes {
		wg.Go(func() {
			s, err := fetchIndex(ctx, idx, opts)
			list[i] = s.status(idx)
			list[i].Err = err
		})
	}
	wg.Wait()
	return list
}

// snapshot is an index that was verified.
type snapshot struct {
	doc     *Document
	release trust.Release
	seen    Seen
	fetched time.Time
	cached  bool
}

func (s *snapshot) status(idx Index) Status {
	st := Status{Name: idx.Name, URL: idx.URL}
	if s != nil {
		st.Serial, st.Generated, st.Expires = s.doc.Serial, s.doc.Generated, s.doc.Expires
		st.Fetched, st.Cached, st.Plugins = s.fetched, s.cached, len(s.doc.Plugins)
	}
	return st
}

// place is where an index lies: a URL, or a directory of this host.
type place struct {
	url  *url.URL // of index.json; nil: local
	dir  string
	file string
}

func (idx *Index) place() (place, error) {
	p := idx.URL
	if strings.HasPrefix(p, "file://") {
		u, err := url.Parse(p)
		if err != nil || u.Host != "" {
			return place{}, refuse(CodeSpec, "write it as file:///directory", "%s is not the URL of a directory", quoted(p))
		}
		p = u.Path
	}
	if filepath.IsAbs(p) {
		if strings.HasSuffix(p, ".json") {
			return place{dir: filepath.Dir(p), file: filepath.Base(p)}, nil
		}
		return place{dir: filepath.Clean(p), file: IndexName}, nil
	}
	u, err := parseURL(p)
	if err != nil {
		return place{}, err
	}
	u.Fragment, u.RawFragment = "", ""
	if !strings.HasSuffix(u.Path, ".json") {
		u = u.JoinPath(IndexName)
	}
	return place{url: u}, nil
}

// open opens the index, or with an ending what lies beside it.
func (p place) open(ctx context.Context, c *client, ending string) (*body, error) {
	if p.url == nil {
		return openLocal(p.dir, p.file+ending)
	}
	u := *p.url
	u.Path += ending
	if u.RawPath != "" {
		u.RawPath += ending
	}
	return c.get(ctx, &u)
}

func (p place) read(ctx context.Context, c *client, ending string, limit int64) ([]byte, error) {
	b, err := p.open(ctx, c, ending)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return read(ctx, b, limit)
}

// fetchIndex gets an index, verifies and keeps it.
func fetchIndex(ctx context.Context, idx Index, opts Options) (*snapshot, error) {
	if err := checkIndexName(idx.Name); err != nil {
		return nil, err
	}
	p, err := idx.place()
	if err != nil {
		return nil, err
	}
	if opts.Offline && p.url != nil {
		return nil, offline(shown(p.url))
	}
	c := newClient(opts)
	defer c.close()
	s, err := tryIndex(ctx, c, p, idx, opts)
	if trust.CodeOf(err) == trust.CodeBadSignature {
		// Index and signature are two files: between two requests both were
		// published anew.
		s, err = tryIndex(ctx, c, p, idx, opts)
	}
	return s, err
}

func tryIndex(ctx context.Context, c *client, p place, idx Index, opts Options) (*snapshot, error) {
	signature, err := p.read(ctx, c, ".minisig", maxSignature)
	if err != nil && CodeOf(err) != CodeMissing {
		return nil, err
	}
	v, err := verifier(idx, signature, opts)
	if err != nil {
		return nil, err
	}
	if err := v.Release().Current(opts.Now(), idx.Seen.Time); err != nil {
		return nil, expired(idx.Name, err)
	}
	if err := idx.notOlder(v.Release().Sequence); err != nil {
		return nil, err
	}
	data, err := p.read(ctx, c, "", maxIndex)
	if err != nil {
		return nil, err
	}
	s, err := verified(idx, v, data)
	if err != nil {
		return nil, err
	}
	s.fetched = opts.Now()
	if s.seen.Time = s.fetched; s.seen.Time.Before(idx.Seen.Time) {
		s.seen.Time = idx.Seen.Time
	}
	if s.seen.Serial > idx.Seen.Serial && opts.Accept != nil {
		if err := opts.Accept(idx.Name, s.seen); err != nil {
			return nil, err
		}
	}
	return s, store(opts.CacheDir, idx, s.fetched, signature, data)
}

func expired(name string, err error) error {
	return &Error{Code: CodeExpired, Msg: "index " + name, Err: err,
		Hint: "who publishes it has to make it anew; or somebody keeps news from this host; or its clock is wrong"}
}

// verifier proves what a signature says of an index.
func verifier(idx Index, signature []byte, opts Options) (*trust.Verifier, error) {
	if opts.Keys == nil {
		return nil, failure.New(failure.NotReady, "no directory of trusted keys is configured")
	}
	v, err := opts.Keys.Verifier(signature)
	if err != nil {
		return nil, trust.About("index "+idx.Name, err)
	}
	if r := v.Release(); r.Name != IndexRelease || r.Channel != IndexChannel || r.Version != strconv.FormatUint(r.Sequence, 10) {
		return nil, refuse(CodeMalformed, "the signature of an index is made together with it",
			"index %s: its signature is of %s %s (%s), and not of an index of plugins", idx.Name, r.Name, r.Version, r.Channel)
	}
	return v, nil
}

// notOlder refuses a serial number below the one that was accepted.
func (idx *Index) notOlder(serial uint64) error {
	if serial < idx.Seen.Serial {
		return refuse(CodeRollback, "a mirror that lags behind looks like that; so does somebody who keeps updates from this host",
			"index %s has the serial number %d, but %d was here at %s already", idx.Name, serial, idx.Seen.Serial, idx.Seen.Time.UTC().Format(time.RFC3339))
	}
	return nil
}

// verified proves an index with the signature beside it.
func verified(idx Index, v *trust.Verifier, data []byte) (*snapshot, error) {
	_, _ = v.Write(data) // it never fails
	if err := v.Verify(); err != nil {
		return nil, trust.About("index "+idx.Name, err)
	}
	doc, err := Parse(data)
	if err != nil {
		return nil, &Error{Code: CodeOf(err), Msg: "index " + idx.Name, Err: err}
	}
	r := v.Release()
	if doc.Serial != r.Sequence || !doc.Expires.Equal(r.Expires) {
		return nil, refuse(CodeMalformed, "who publishes the index has to make it anew",
			"index %s: serial number and end are %d, %s in it, and %d, %s in its signature", idx.Name,
			doc.Serial, doc.Expires.UTC().Format(time.RFC3339), r.Sequence, r.Expires.UTC().Format(time.RFC3339))
	}
	sum := blake3.Sum256(data)
	s := &snapshot{doc: doc, release: r, seen: Seen{Serial: doc.Serial, Digest: fmt.Sprintf("%x", sum)}}
	if doc.Serial == idx.Seen.Serial && idx.Seen.Digest != "" && s.seen.Digest != idx.Seen.Digest {
		return nil, refuse(CodeRollback, "who publishes it must give every index a new serial number: ask which one is right",
			"index %s: there are two of the serial number %d", idx.Name, doc.Serial)
	}
	return s, nil
}

// current returns an index as it is now, or, when that cannot be had, as it was
// kept, with a note about it. What was kept is as good as new until it expires.
func current(ctx context.Context, idx Index, opts Options) (*snapshot, string, error) {
	s, err := fetchIndex(ctx, idx, opts)
	if err == nil {
		return s, "", nil
	}
	switch CodeOf(err) {
	case CodeUnreachable, CodeStalled, CodeTruncated, CodeMissing:
	default: // what is refused now was not better before
		return nil, "", err
	}
	kept, kerr := load(idx, opts)
	if kerr != nil {
		if CodeOf(kerr) == CodeNoIndex {
			kerr = err
		}
		return nil, "", kerr
	}
	if xerr := kept.release.Current(opts.Now(), idx.Seen.Time); xerr != nil {
		return nil, "", expired(idx.Name, xerr)
	}
	age := opts.Now().Sub(kept.fetched).Truncate(time.Second)
	if opts.Offline {
		return kept, fmt.Sprintf("index %s as it was %v ago", idx.Name, age), nil
	}
	return kept, fmt.Sprintf("index %s cannot be reached; it is used as it was %v ago: %v", idx.Name, age, err), nil
}

// resolve returns where a package of the index is: a URL, or a name beneath the
// directory of a local index.
func (p place) resolve(location string) (u *url.URL, local string, err error) {
	ref, err := url.Parse(location)
	if err != nil {
		return nil, "", refuse(CodeMalformed, "", "%s is not the URL of a package", quoted(location))
	}
	if p.url != nil {
		return p.url.ResolveReference(ref), "", nil
	}
	if ref.IsAbs() {
		return ref, "", nil
	}
	return nil, strings.TrimPrefix(path.Clean("/"+ref.Path), "/"), nil
}
