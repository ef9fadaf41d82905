package logs

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

// counted counts how often it is open.
type counted struct {
	*bytes.Reader
	open   *atomic.Int64
	closed atomic.Bool
}

func (c *counted) ReadAt(b []byte, off int64) (int, error) {
	if c.closed.Load() {
		return 0, errors.New("it is closed")
	}
	return c.Reader.ReadAt(b, off)
}

func (c *counted) Close() error {
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	return nil
}

func TestPoolKeepsFewFilesOpen(t *testing.T) {
	p := &pool{max: 4}
	var open, most atomic.Int64
	var files []*pooled
	for i := range 100 {
		reopen := func() (Data, error) {
			most.Store(max(most.Load(), open.Add(1)))
			return &counted{Reader: bytes.NewReader([]byte{byte(i)}), open: &open}, nil
		}
		data, err := reopen()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, p.add(data, reopen))
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 1000 {
				n := (i*7 + w*31) % len(files)
				b := make([]byte, 1)
				if _, err := files[n].ReadAt(b, 0); err != nil || b[0] != byte(n) {
					t.Errorf("file %d: %v, %v", n, b, err)
				}
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n > 4+4+1 {
		t.Errorf("%d files were open at once", n)
	}
	for _, f := range files {
		f.Close()
	}
	if n := open.Load(); n != 0 {
		t.Errorf("%d files stayed open", n)
	}
}
