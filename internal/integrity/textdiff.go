package integrity

import (
	"bytes"
	"context"

	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/pkg/filehash"
	"github.com/rogpeppe/go-internal/diff"
)

// Texts shows changes of text files as differences, where the baseline kept
// the text that was there.
type Texts struct {
	opened *Opened
	cur    *baseline.Cursor
	kept   *contents
	single *single
}

// Texts opens the texts that the current baseline of a name kept.
func (e *Engine) Texts(ctx context.Context, name string) (*Texts, error) {
	o, err := e.OpenCurrent(ctx, name)
	if err != nil {
		return nil, err
	}
	t := &Texts{opened: o, cur: o.Reader.Cursor()}
	if t.kept, err = e.loadContents(o.Entry); err == nil {
		t.single, err = openSingle(o.Tree)
	}
	if err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// Close closes the baseline.
func (t *Texts) Close() error {
	t.cur.Close()
	if t.single != nil {
		t.single.Close()
	}
	return t.opened.Close()
}

// Diff returns the unified difference that a change makes to a text, and nil
// when one of both texts is not known: it was not kept, is not text, or is no
// longer what was reported.
func (t *Texts) Diff(ctx context.Context, c *Change) []byte {
	from := c.Path
	if c.From != nil {
		from = c.From
	}
	old, okOld := []byte(nil), c.Kind == Added
	dir, name := splitPath(from)
	if rec, _, err := t.cur.Find(dir, name); err == nil && rec != nil {
		if rec.Content == filehash.Hashed && rec.Info.Size == 0 {
			okOld = true
		} else {
			old, okOld = t.kept.texts[rec.Sum], t.kept.texts[rec.Sum] != nil
		}
	}
	var now bytes.Buffer
	okNow := c.Now == nil
	if n := c.Now; n != nil && n.Content == filehash.Hashed && n.Info.Size <= maxKeptFile {
		okNow = t.single.copyTo(ctx, n, &now) == nil && bytes.IndexByte(now.Bytes(), 0) < 0
	}
	if !okOld || !okNow {
		return nil
	}
	return diff.Diff("baseline"+string(from), old, "now"+string(c.Path), now.Bytes())
}
