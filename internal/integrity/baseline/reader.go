package baseline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sort"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/pkg/filehash"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// cachedBlocks is how many decoded blocks a reader keeps: the workers of a walk
// and the comparison behind them stay within a few blocks of each other.
const cachedBlocks = 8

// Reader reads a baseline. It may be used by several goroutines.
type Reader struct {
	Header Header
	Policy []byte // canonical YAML
	Root   Hash   // Merkle root over header, policy and blocks
	db     *bolt.DB
	tx     *bolt.Tx
	blocks []rawBlock
	zstd   *zstd.Decoder

	mu    sync.Mutex
	cache map[int]*cached
	tick  int
	spare []*Block // to decode into
}

// rawBlock is a block in the mapped file.
type rawBlock struct {
	data []byte    // mapped: only to be touched under guard
	head blockHead // of it, dir and name are not mapped
	base int       // number of its first record
}

// cached is a block in the cache. One that was dropped from the cache while it
// was used is decoded over once nobody uses it: a comparison goes through
// megabytes of records, which would keep the garbage collector busy.
type cached struct {
	once    sync.Once
	blk     *Block
	err     error
	used    int  // when, in ticks of the reader
	users   int  // cursors on it
	dropped bool // from the cache
}

// Open opens the baseline at path and verifies it: when it is not whole, or
// its Merkle root is not want, the error wraps ErrDamaged. A zero want accepts
// any root, for a baseline that is not catalogued yet.
func Open(path string, want Hash) (r *Reader, err error) {
	if err := examine(path); err != nil {
		return nil, err
	}
	db, err := openDB(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			db.Close()
		}
	}()
	if r, err = begin(db, load); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r.db = db
	if want != (Hash{}) && r.Root != want {
		r.zstd.Close()
		r.tx.Rollback()
		return nil, fmt.Errorf("%s: %w: its root %.16s… is not the catalogued %.16s…", path, ErrDamaged, r.Root, want)
	}
	return r, nil
}

// examine looks at the pages of the file before bbolt does: on some kinds of
// damage bbolt neither returns nor panics, but goes round in circles.
func examine(path string) error {
	err := state.Sound(context.Background(), path)
	if errors.Is(err, state.ErrCorrupt) || errors.Is(err, state.ErrForeign) {
		return fmt.Errorf("%s: %w", path, &CorruptError{Block: -1, Reason: "its pages are damaged, or it is no baseline"})
	}
	if err != nil {
		return failure.Errorf(failure.KindOf(err), "open baseline: %w", err)
	}
	return nil
}

func openDB(path string) (db *bolt.DB, err error) {
	err = guard(func() error {
		db, err = bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true, Timeout: 10 * time.Second})
		return err
	})
	if err == nil {
		return db, nil
	}
	if isForeign(err) {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrDamaged, err)
	}
	return nil, failure.Errorf(failure.KindOf(err), "open baseline: %w", err)
}

// begin gives a transaction to load, which keeps it when it succeeds. In any
// other case, a panic included, it is ended: closing db would wait for it.
func begin(db *bolt.DB, load func(*bolt.Tx) (*Reader, error)) (r *Reader, err error) {
	err = guard(func() error {
		tx, err := db.Begin(false)
		if err != nil {
			return err
		}
		kept := false
		defer func() {
			if !kept {
				tx.Rollback()
			}
		}()
		r, err = load(tx)
		kept = err == nil
		return err
	})
	return r, err
}

// load reads header, policy and the heads of the blocks, and computes the root.
func load(tx *bolt.Tx) (*Reader, error) {
	meta, blocks := tx.Bucket(metaBucket), tx.Bucket(blocksBucket)
	if meta == nil || blocks == nil {
		return nil, &CorruptError{Block: -1, Reason: "it is not a baseline"}
	}
	r := &Reader{tx: tx, cache: map[int]*cached{}}
	header := meta.Get(headerKey)
	r.Policy = bytes.Clone(meta.Get(policyKey))
	if err := json.Unmarshal(header, &r.Header); err != nil {
		return nil, &CorruptError{Block: -1, Reason: "its header cannot be read: " + err.Error()}
	}
	if r.Header.Schema != Schema {
		return nil, &CorruptError{Block: -1, Reason: fmt.Sprintf("its format is %q, not %q", r.Header.Schema, Schema)}
	}
	leaves := []Hash{headerLeaf(header, r.Policy)}
	base := 0
	c := blocks.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		n := len(r.blocks)
		if !bytes.Equal(k, blockKey(uint32(n))) {
			return nil, &CorruptError{Block: n, Offset: -1, Reason: "it is missing"}
		}
		h, err := parseHead(v)
		if err != nil {
			return nil, inBlock(n, err)
		}
		if n > 0 {
			if before := r.blocks[n-1].head; filehash.CompareKeys(before.dir, before.name, h.dir, h.name) >= 0 {
				return nil, &CorruptError{Block: n, Offset: -1, Reason: "blocks are not in order"}
			}
		}
		// Keys are compared outside of guard, so they must not stay in the map.
		h.dir, h.name = bytes.Clone(h.dir), bytes.Clone(h.name)
		r.blocks = append(r.blocks, rawBlock{data: v, head: h, base: base})
		base += h.records
		leaves = append(leaves, leafHash(uint64(n)+1, v))
	}
	if int64(len(r.blocks)) != r.Header.Blocks || int64(base) != r.Header.Entries {
		return nil, &CorruptError{Block: -1, Reason: "its header does not match its blocks"}
	}
	r.Root = merkleRoot(leaves)
	var err error
	r.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(2*maxBlockBytes))
	return r, err
}

// inBlock says in which block a CorruptError happened.
func inBlock(n int, err error) error {
	var c *CorruptError
	if errors.As(err, &c) {
		c.Block = n
	}
	return err
}

// guard runs fn and makes an error of what bbolt does on a damaged file: it
// panics, or touches mapped pages that are not in the file.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = &CorruptError{Block: -1, Reason: "its pages are damaged"}
		}
	}()
	return fn()
}

// Close closes the baseline. Records must not be used any more.
func (r *Reader) Close() error {
	r.zstd.Close()
	return errors.Join(r.tx.Rollback(), r.db.Close())
}

// acquire returns block n, decoded, for use until release. Blocks used recently
// are kept.
func (r *Reader) acquire(n int) (*cached, error) {
	r.mu.Lock()
	c := r.cache[n]
	if c == nil {
		c = new(cached)
		r.cache[n] = c
		if len(r.cache) > cachedBlocks {
			r.evict(n)
		}
	}
	r.tick++
	c.used = r.tick
	c.users++
	r.mu.Unlock()
	c.once.Do(func() {
		c.blk = r.room()
		c.err = guard(func() error { return inBlock(n, c.blk.decode(r.blocks[n].data, r.zstd)) })
		c.blk.base = r.blocks[n].base
	})
	if c.err != nil {
		r.release(c)
		return nil, c.err
	}
	return c, nil
}

// room returns a block to decode into.
func (r *Reader) room() *Block {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := len(r.spare) - 1; last >= 0 {
		b := r.spare[last]
		r.spare = r.spare[:last]
		return b
	}
	return new(Block)
}

// release ends a use of a block; nil is none.
func (r *Reader) release(c *cached) {
	if c == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c.users--
	r.reuse(c)
}

// reuse makes room of a block that nobody uses any more. r.mu is held.
func (r *Reader) reuse(c *cached) {
	if c.dropped && c.users == 0 && c.blk != nil {
		r.spare = append(r.spare, c.blk)
		c.blk = nil
	}
}

// evict drops the block that was used longest ago, other than keep, from the
// cache. r.mu is held.
func (r *Reader) evict(keep int) {
	oldest := -1
	for n, c := range r.cache {
		if n != keep && (oldest < 0 || c.used < r.cache[oldest].used) {
			oldest = n
		}
	}
	c := r.cache[oldest]
	delete(r.cache, oldest)
	c.dropped = true
	r.reuse(c)
}

// All calls fn with every record in order. The record and what it refers to
// are valid during the call.
func (r *Reader) All(fn func(*Record) error) error {
	c := r.Cursor()
	defer c.Close()
	for {
		rec, _, err := c.Next()
		if rec == nil || err != nil {
			return err
		}
		if err := fn(rec); err != nil {
			return err
		}
	}
}

// Cursor looks records up in ascending order. It belongs to one goroutine. A
// record that it returned, and what that refers to, is valid until its next
// method is called.
type Cursor struct {
	r *Reader
	n int // block
	i int // record in it: the one found last, or the next
	c *cached
}

// Cursor returns a cursor before the first record.
func (r *Reader) Cursor() *Cursor { return &Cursor{r: r} }

// Close gives back what the cursor holds.
func (c *Cursor) Close() {
	c.r.release(c.c)
	c.c = nil
}

// move goes to the beginning of block n.
func (c *Cursor) move(n int) error {
	c.Close()
	got, err := c.r.acquire(n)
	if err != nil {
		return err
	}
	c.n, c.i, c.c = n, 0, got
	return nil
}

// Next returns the next record and its number in the baseline, nil at the end.
func (c *Cursor) Next() (*Record, int, error) {
	for c.c == nil || c.i == len(c.c.blk.Records) {
		n := c.n
		if c.c != nil {
			n++
		}
		if n >= len(c.r.blocks) {
			return nil, 0, nil
		}
		if err := c.move(n); err != nil {
			return nil, 0, err
		}
	}
	c.i++
	return &c.c.blk.Records[c.i-1], c.c.blk.base + c.i - 1, nil
}

// Find returns the record of a key and its number in the baseline, or nil.
// Looking up keys in order is cheap; going back is a search.
func (c *Cursor) Find(dir, name []byte) (*Record, int, error) {
	if len(c.r.blocks) == 0 {
		return nil, 0, nil
	}
	// Mostly it is the one behind the one found last.
	if c.c != nil {
		for i := c.i; i < min(c.i+2, len(c.c.blk.Records)); i++ {
			if r := &c.c.blk.Records[i]; bytes.Equal(r.Name, name) && bytes.Equal(r.Dir, dir) {
				c.i = i
				return r, c.c.blk.base + i, nil
			}
		}
	}
	before := func(n int) bool { // block n begins at or before the key
		h := &c.r.blocks[n].head
		return filehash.CompareKeys(h.dir, h.name, dir, name) <= 0
	}
	if c.c == nil || !before(c.n) || c.n+1 < len(c.r.blocks) && before(c.n+1) {
		n := sort.Search(len(c.r.blocks), func(n int) bool { return !before(n) }) - 1
		if n < 0 {
			return nil, 0, nil
		}
		if err := c.move(n); err != nil {
			return nil, 0, err
		}
	}
	records := c.c.blk.Records
	cmp := func(i int) int { return filehash.CompareKeys(records[i].Dir, records[i].Name, dir, name) }
	// Else it is often a few further on.
	i := c.i
	for range 8 {
		if i >= len(records) || cmp(i) >= 0 {
			break
		}
		i++
	}
	if i < len(records) && cmp(i) < 0 || i > 0 && cmp(i-1) >= 0 {
		i = sort.Search(len(records), func(i int) bool { return cmp(i) >= 0 })
	}
	c.i = i
	if i < len(records) && cmp(i) == 0 {
		return &records[i], c.c.blk.base + i, nil
	}
	return nil, 0, nil
}

// isForeign tells what bbolt says of a file that is not its own or not whole
// from the errors of the system.
func isForeign(err error) bool {
	for _, e := range []error{bolterrors.ErrInvalid, bolterrors.ErrVersionMismatch, bolterrors.ErrChecksum, bolterrors.ErrInvalidMapping, ErrDamaged, io.ErrUnexpectedEOF} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
