//go:build goexperiment.jsonv2

package trivy

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	ftypes "github.com/aquasecurity/trivy/pkg/fanal/types"

	"github.com/mobileops/mobileops/internal/scan/license/survey"
	"github.com/mobileops/mobileops/internal/scan/memo"
	"github.com/mobileops/mobileops/internal/scan/protocol"
	"github.com/mobileops/mobileops/internal/scan/trivy/secret"
)

// layerMemory is a memo as it is used for the layers of images. Three things are kept
// in it:
//
//   - what came of a layer, under the SHA-256 of its content and all that the result
//     depends on;
//   - that stored bytes, known by their BLAKE3, unpack to content of a SHA-256;
//   - that a file, known by its identity, has a layer whose content has a SHA-256.
//
// What the image says of a layer is believed of none. Before a result is used, its
// content was hashed in this scan, or what is stored was, or the file was shown to be
// the one in which that was done before.
//
// Only what was looked at as a whole is kept: not a layer of which there is a problem,
// nor one during which Trivy logged something that a report shows, since it doesn't
// say which of several layers that is about.
type layerMemory struct {
	memo    *memo.Memo
	ruleset [32]byte
	files   atomic.Int64 // of layers that were not looked at
}

// layerGeneration is part of every key: it changes with what a layerRecord means.
const layerGeneration = "mobileops layer 1"

// Limits of a record. What is larger is not remembered.
const (
	maxPackedRecord = 16 << 20
	maxRecord       = 256 << 20
)

// layerRecord is what came of a layer.
type layerRecord struct {
	Diff                    string
	Blob                    *ftypes.BlobInfo
	Files, Pattern, Special int64        // of it, as the report counts them
	Bytes, Entries          int64        // that it cost of the budget
	Secrets                 secret.Stats `json:",omitzero"`
	Notes                   []string     `json:",omitempty"`
	// Texts are those that its notices name.
	Texts map[string]survey.Text `json:",omitempty"`

	odd bool // it has names that JSON cannot hold
}

// newLayerMemory takes the digest of all that the result of a layer depends on. It
// returns nil when something of that cannot be told from something else.
func (j *job) newLayerMemory(a *analyzers) *layerMemory {
	h := blake3.New()
	put := func(values ...any) { _, _ = fmt.Fprintf(h, "%q\n", fmt.Sprintln(values...)) }
	put(layerGeneration, Engine, ftypes.BlobJSONSchemaVersion, j.wants, j.req.Document != protocol.NoDocument, j.req.Limits.Nested)
	put(len(j.req.SkipDirs), len(j.req.SkipFiles))
	for _, p := range slices.Concat(j.req.SkipDirs, j.req.SkipFiles) {
		put(p)
	}
	for _, f := range a.files {
		put(f.Type(), f.Version())
	}
	for _, p := range a.posts {
		put(p.Type(), p.Version())
	}
	if s := j.memory.secrets; s != nil {
		put(s.Ruleset())
	}
	if l := j.memory.licenses; l != nil {
		put(l.Ruleset())
	}
	files := []string{}
	if j.req.JavaDatabase != "" {
		files = append(files, filepath.Join(j.req.JavaDatabase, "trivy-java.db"))
	}
	if v := version(); v != "devel" {
		put(v)
	} else {
		files = append(files, "/proc/self/exe") // which is all that tells one build from another
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			return nil
		}
		id, ok := memo.Identify(info)
		if !ok {
			return nil
		}
		put(id.Digest())
	}
	return &layerMemory{memo: j.memory.memo, ruleset: [32]byte(h.Sum(nil))}
}

// The keys. A diff is the SHA-256 of content.

func (m *layerMemory) result(diff [32]byte, part int) memo.Key {
	return memo.Key{Content: diff, Ruleset: blake3.Sum256(fmt.Appendf(m.ruleset[:], "%d", part))}
}

func unpacked(stored [32]byte) memo.Key {
	return memo.Key{Content: stored, Ruleset: blake3.Sum256([]byte(layerGeneration + " unpacked"))}
}

func place(id *memo.Identity, l *storedLayer) memo.Key {
	at := id.Digest()
	return memo.Key{Content: blake3.Sum256(fmt.Appendf(at[:], "%s %s", l.digest, l.diff)), Ruleset: blake3.Sum256([]byte(layerGeneration + " place"))}
}

// diffOf returns the bytes of a diff.
func diffOf(h v1.Hash) (diff [32]byte, ok bool) {
	b, err := hex.DecodeString(h.Hex)
	if err != nil || h.Algorithm != "sha256" || len(b) != len(diff) {
		return diff, false
	}
	return [32]byte(b), true
}

// remembered returns what came of a layer before, or nil when it must be looked at.
func (a *imageArtifact) remembered(ctx context.Context, l *storedLayer) (*ftypes.BlobInfo, error) {
	m := a.memory.layers
	if m == nil {
		return nil, nil
	}
	r := m.get(l.diff)
	if r == nil {
		return nil, nil
	}
	if same, err := m.verify(ctx, l, r.Blob.Size); err != nil || !same {
		return nil, err
	}
	if !a.budget.Take(r.Bytes, r.Entries) {
		return nil, nil // how far it is looked at, the walk says
	}
	a.meter.files.Add(r.Files)
	a.meter.pattern.Add(r.Pattern)
	a.meter.special.Add(r.Special)
	m.files.Add(r.Files)
	if s := a.memory.secrets; s != nil {
		s.Add(secret.Stats{Binary: r.Secrets.Binary, Small: r.Secrets.Small, Pattern: r.Secrets.Pattern})
	}
	if s := a.memory.licenses; s != nil {
		s.Keep(r.Texts)
	}
	for _, n := range r.Notes {
		a.found.note(n)
	}
	return r.Blob, nil
}

// verify tells whether a layer is what the image says it is. Of one that isn't, the
// walk says what is wrong with it.
func (m *layerMemory) verify(ctx context.Context, l *storedLayer, size int64) (bool, error) {
	if l.local {
		same, err := m.verifyStored(ctx, l)
		if same || err != nil {
			return same, err
		}
	}
	started := time.Now()
	content, err := l.open(ctx, true)
	if err != nil {
		return false, nil
	}
	defer content.Close()
	// What is longer is something else, and may be a bomb.
	if _, err := io.CopyN(io.Discard, content, size+1); !errors.Is(err, io.EOF) || content.diff() != l.diff.Hex {
		return false, context.Cause(ctx)
	}
	m.vouch(l, content, started)
	return true, nil
}

// verifyStored tells whether the file that has a layer, or the bytes that are stored of
// it, are those that were unpacked before.
func (m *layerMemory) verifyStored(ctx context.Context, l *storedLayer) (bool, error) {
	started := time.Now()
	stored, err := l.raw()
	if err != nil {
		return false, nil
	}
	defer stored.Close()
	id, steady := l.identity(stored)
	if steady {
		if _, ok := m.memo.Get(place(&id, l)); ok {
			return true, nil
		}
	}
	if !l.packed {
		return false, nil // its content is what is stored
	}
	h := blake3.New()
	if _, err := io.Copy(h, patient{ctx, stored}); err != nil {
		return false, context.Cause(ctx)
	}
	diff, ok := m.memo.Get(unpacked([32]byte(h.Sum(nil))))
	if !ok || hex.EncodeToString(diff) != l.diff.Hex {
		return false, nil
	}
	if steady {
		m.settle(l, stored, id, started)
	}
	return true, nil
}

// vouch keeps what was seen of a layer that was read to its end since started, and is
// what the image says it is. It closes the layer.
func (m *layerMemory) vouch(l *storedLayer, r *layerReader, started time.Time) {
	if r.steady {
		m.settle(l, r.stored.ReadCloser, r.identity, started)
	}
	if err := r.Close(); err != nil || r.stored.hash == nil || !r.stored.end {
		return // Close waits for whoever unpacks beside us
	}
	if diff, ok := diffOf(l.diff); ok {
		m.memo.Put(unpacked([32]byte(r.stored.hash.Sum(nil))), diff[:])
	}
}

// settle keeps that a file has a layer, when it is the same as before it was read.
func (m *layerMemory) settle(l *storedLayer, stored io.ReadCloser, before memo.Identity, started time.Time) {
	if l.archive != nil {
		started = l.archive.since
	}
	if after, ok := l.identity(stored); ok && before == after && before.SettledBefore(started) {
		m.memo.Put(place(&before, l), nil)
	}
}

// put keeps what came of a layer that was read to its end since started. part is what
// looked at it.
func (m *layerMemory) put(part *inspector, l *storedLayer, content *layerReader, started time.Time, r *layerRecord) {
	diff, ok := diffOf(l.diff)
	if !ok || r.odd || part.found.incomplete() {
		return
	}
	if s := part.memory.secrets; s != nil {
		r.Secrets = s.Stats()
	}
	if a := part.memory.licenses; a != nil {
		if len(a.Problems()) > 0 {
			return
		}
		if r.Texts, ok = a.TextsOf(r.Blob.CustomResources); !ok {
			return
		}
	}
	_, r.Notes = part.found.all()
	blob := *r.Blob
	blob.Misconfigurations = withoutCode(blob.Misconfigurations)
	kept := *r
	kept.Blob = &blob
	plain, err := json.Marshal(&kept)
	if err != nil || len(plain) > maxRecord {
		return
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return
	}
	packed := z.EncodeAll(plain, nil)
	if len(packed) > maxPackedRecord {
		return
	}
	// The first part says how many there are, and has the digest of all of them.
	const room = memo.MaxResult - 64
	parts := slices.Collect(slices.Chunk(packed, room))
	digest := blake3.Sum256(packed)
	head := append(binary.LittleEndian.AppendUint32(nil, uint32(len(parts))), digest[:]...)
	parts[0] = append(head, parts[0]...)
	for n, p := range parts {
		m.memo.Put(m.result(diff, n), p)
	}
	m.vouch(l, content, started)
}

// get returns what came of content, or nil. A record that is damaged, or is one of
// other content, is none.
func (m *layerMemory) get(h v1.Hash) *layerRecord {
	diff, ok := diffOf(h)
	if !ok {
		return nil
	}
	const head = 4 + 32
	packed, ok := m.memo.Get(m.result(diff, 0))
	if !ok || len(packed) < head {
		return nil
	}
	parts, digest := binary.LittleEndian.Uint32(packed), [32]byte(packed[4:head])
	packed = packed[head:]
	for n := 1; n < int(min(parts, maxPackedRecord/(memo.MaxResult-64)+1)); n++ {
		more, ok := m.memo.Get(m.result(diff, n))
		if !ok {
			return nil
		}
		packed = append(packed, more...)
	}
	if blake3.Sum256(packed) != digest {
		return nil
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRecord))
	if err != nil {
		return nil
	}
	defer z.Close()
	plain, err := z.DecodeAll(packed, nil)
	if err != nil {
		return nil
	}
	r := new(layerRecord)
	if err := json.Unmarshal(plain, r); err != nil || r.Diff != h.String() || r.Blob == nil {
		return nil
	}
	return r
}

// withoutCode takes out the lines that failed checks show, which no report of ours has:
// there may be a secret in them.
func withoutCode(list []ftypes.Misconfiguration) []ftypes.Misconfiguration {
	list = slices.Clone(list)
	for i := range list {
		for _, results := range []*ftypes.MisconfResults{&list[i].Successes, &list[i].Warnings, &list[i].Failures} {
			*results = slices.Clone(*results)
			for n := range *results {
				(*results)[n].Code = ftypes.Code{}
			}
		}
	}
	return list
}

// patient reads until its context ends.
type patient struct {
	ctx context.Context
	io.Reader
}

func (p patient) Read(b []byte) (int, error) {
	if err := context.Cause(p.ctx); err != nil {
		return 0, err
	}
	return p.Reader.Read(b)
}
