package integrity

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/klauspost/compress/zstd"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/pkg/filehash"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// KeepContent says whose content a baseline keeps, so that a change can be
// shown as a difference of text.
type KeepContent string

// What can be kept. It is text below /etc, up to a size.
const (
	KeepPublic KeepContent = "public" // what every user may read
	KeepAll    KeepContent = "all"    // also secrets, such as /etc/shadow
	KeepNone   KeepContent = "none"
)

// Bounds on kept content.
const (
	maxKeptFile  = 256 << 10
	maxKept      = 32 << 20 // of a baseline, uncompressed
	maxKeptFiles = 50000
)

const contentsSchema = "mobileops.integrity.contents/v1"

// contents are texts by their digest. Beside a baseline they are one zstd frame
// of JSON lines: the schema, then each text with its digest; see
// docs/formats/report.md.
type contents struct {
	texts map[filehash.Sum][]byte
	size  int
}

type contentLine struct {
	Schema string         `json:"schema,omitempty"`
	Sum    *baseline.Hash `json:"sum,omitempty"`
	Text   []byte         `json:"text,omitempty"`
}

func (e *Engine) contentsFile(c Entry) string { return e.path(c.ID + ".contents") }

// keeps tells whether the content of a record is to be kept. A text that is not
// for every user to read is taken for a secret.
func (k KeepContent) keeps(rec *baseline.Record) bool {
	if k == KeepNone || k == "" || rec.Content != filehash.Hashed || rec.Info.Size > maxKeptFile || rec.Info.Size == 0 || !within(rec.Dir, []byte("/etc")) {
		return false
	}
	return k == KeepAll || rec.Info.Mode&unix.S_IROTH != 0
}

// add reads the content of a record, if it is text and there is room.
func (c *contents) add(ctx context.Context, s *single, rec *baseline.Record) {
	if _, have := c.texts[rec.Sum]; have || c.size+int(rec.Info.Size) > maxKept {
		return
	}
	var b bytes.Buffer
	// One that has changed meanwhile, or is gone, is shown without its text.
	if s.copyTo(ctx, rec, &b) != nil || bytes.IndexByte(b.Bytes(), 0) >= 0 {
		return
	}
	c.put(rec.Sum, b.Bytes())
}

func (c *contents) put(sum filehash.Sum, text []byte) {
	if c.texts == nil {
		c.texts = map[filehash.Sum][]byte{}
	}
	c.texts[sum] = text
	c.size += len(text)
}

// keepTexts reads and writes the texts of a new baseline.
func (e *Engine) keepTexts(ctx context.Context, b Entry, list []baseline.Record) error {
	if len(list) == 0 {
		return nil
	}
	s, err := openSingle(b.Tree)
	if err != nil {
		return err
	}
	defer s.Close()
	c := &contents{}
	for i := range list {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.add(ctx, s, &list[i])
	}
	return e.saveContents(b, c)
}

// saveContents writes the kept texts of a baseline.
func (e *Engine) saveContents(b Entry, c *contents) error {
	if len(c.texts) == 0 {
		return nil
	}
	var buf bytes.Buffer
	z, err := zstd.NewWriter(&buf, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return err
	}
	enc := json.NewEncoder(z)
	err = enc.Encode(contentLine{Schema: contentsSchema})
	for _, sum := range slices.SortedFunc(maps.Keys(c.texts), func(a, b filehash.Sum) int { return bytes.Compare(a[:], b[:]) }) {
		err = errors.Join(err, enc.Encode(contentLine{Sum: (*baseline.Hash)(&sum), Text: c.texts[sum]}))
	}
	if err = errors.Join(err, z.Close()); err != nil {
		return err
	}
	return failure.Wrap(failure.Failed, durable.WriteFile(e.contentsFile(b), buf.Bytes(), 0o600))
}

// loadContents reads the kept texts of a baseline; there may be none. Each is
// held against its digest, which the baseline vouches for.
func (e *Engine) loadContents(b Entry) (*contents, error) {
	c := &contents{}
	data, err := readAtMost(e.contentsFile(b), maxKept)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, failure.Wrap(failure.Failed, err)
	}
	if err := c.decode(data); err != nil {
		return nil, fmt.Errorf("%s: %w", e.contentsFile(b), err)
	}
	return c, nil
}

// errContents is wrapped when kept texts are not what was written.
var errContents = failure.New(failure.Untrustworthy, "kept texts are damaged")

func (c *contents) decode(data []byte) error {
	z, err := zstd.NewReader(bytes.NewReader(data), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20), zstd.WithDecoderMaxWindow(8<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 2*maxKeptFile)
	for n := 1; lines.Scan(); n++ {
		var l contentLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("%w: line %d: %v", errContents, n, err)
		}
		switch {
		case n == 1 && l.Schema == contentsSchema:
		case n > 1 && l.Sum != nil && blake3.Sum256(l.Text) == [32]byte(*l.Sum) && c.size+len(l.Text) <= maxKept:
			c.put(filehash.Sum(*l.Sum), l.Text)
		default:
			return fmt.Errorf("%w: line %d", errContents, n)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: %v", errContents, err)
	}
	return nil
}

// carryContents gives the new baseline the texts that the former one kept,
// and those of what was accepted.
func (e *Engine) carryContents(ctx context.Context, old, c Entry, tree string, accepted []Change, keep KeepContent) error {
	texts, err := e.loadContents(old)
	if err != nil {
		texts = &contents{} // they are a convenience: damaged ones are left behind
	}
	s, err := openSingle(tree)
	if err != nil {
		return err
	}
	defer s.Close()
	for i := range accepted {
		if rec := accepted[i].Now; rec != nil && keep.keeps(rec) {
			texts.add(ctx, s, rec)
		}
	}
	return e.saveContents(c, texts)
}
