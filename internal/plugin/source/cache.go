package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
)

// An index is kept as NAME.index in one file, so that it and its signature are
// always of the same age: a line of JSON, then index.json as it came. It is
// verified again whenever it is read, so the directory need not be trusted; its
// worst is an older index that is still valid, which is refused by Index.Seen.

const cacheSchema = "mobileops.plugin.cache/v1"

// cached is the first line.
type cached struct {
	Schema    string    `json:"schema"`
	URL       string    `json:"url"`
	Fetched   time.Time `json:"fetched"`
	Signature string    `json:"signature"`
}

func cachePath(dir string, idx Index) string { return filepath.Join(dir, idx.Name+".index") }

// store keeps an index. Whoever may not write the cache may still use the index:
// the one that is kept stays, grows old, and says so.
func store(dir string, idx Index, fetched time.Time, signature, data []byte) error {
	if dir == "" {
		return nil
	}
	line, err := json.Marshal(cached{cacheSchema, idx.URL, fetched.UTC(), string(signature)})
	if err != nil {
		return err
	}
	err = durable.MkdirAll(dir, 0o755)
	if err == nil {
		err = durable.WriteFile(cachePath(dir, idx), append(append(line, '\n'), data...), 0o644)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return &Error{Code: CodeDisk, Msg: "keep index " + idx.Name, Err: err}
	}
	return nil
}

// load reads an index that was kept. One that is not there, or of another
// address, is an error with CodeNoIndex.
func load(idx Index, opts Options) (*snapshot, error) {
	if err := checkIndexName(idx.Name); err != nil {
		return nil, err
	}
	none := refuse(CodeNoIndex, "get it: mobileops plugin search --refresh", "index %s was never fetched", idx.Name)
	if opts.CacheDir == "" {
		return nil, none
	}
	data, err := readCache(cachePath(opts.CacheDir, idx))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, none
	}
	if err != nil {
		return nil, &Error{Code: CodeDisk, Err: err}
	}
	first, data, _ := bytes.Cut(data, []byte{'\n'})
	var c cached
	if json.Unmarshal(first, &c) != nil || c.Schema != cacheSchema || c.URL != idx.URL {
		return nil, none
	}
	v, err := verifier(idx, []byte(c.Signature), opts)
	if err != nil {
		return nil, err
	}
	if err := idx.notOlder(v.Release().Sequence); err != nil {
		return nil, err
	}
	s, err := verified(idx, v, data)
	if err != nil {
		return nil, err
	}
	s.fetched, s.cached = c.Fetched, true
	return s, nil
}

func readCache(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	const limit = maxIndex + 4*maxSignature
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && len(b) > limit {
		err = refuse(CodeTooLarge, "remove it", "%s has more than %d bytes", path, limit)
	}
	return b, err
}
