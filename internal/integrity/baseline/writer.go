package baseline

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/pkg/filehash"
	bolt "go.etcd.io/bbolt"
)

// The buckets and keys of the file.
var (
	metaBucket   = []byte("meta")
	blocksBucket = []byte("blocks") // big-endian uint32 number → block
	headerKey    = []byte("header") // JSON of Header
	policyKey    = []byte("policy") // canonical YAML of the policy
)

// commitBytes is how much is written in one transaction: bbolt keeps what a
// transaction has written in memory.
const commitBytes = 4 << 20

// Writer writes a baseline. It is not visible under its name before Commit.
type Writer struct {
	path, temp string
	db         *bolt.DB
	tx         *bolt.Tx
	blocks     *bolt.Bucket
	pending    int
	enc        *encoder
	leaves     []Hash // leaf 0, the header, is filled in at Commit
	counts     Counts
}

// Create starts writing the baseline that is to appear at path, under the
// temporary name temp on the same filesystem; see durable.Temp. Abort must be
// called in any case; after Commit it does nothing.
func Create(temp, path string) (*Writer, error) {
	enc, err := newEncoder()
	if err != nil {
		return nil, err
	}
	w := &Writer{path: path, temp: temp, enc: enc, leaves: make([]Hash, 1)}
	w.db, err = bolt.Open(w.temp, 0o600, &bolt.Options{
		NoSync: true, NoGrowSync: true, FreelistType: bolt.FreelistMapType, // durable once, at the end
		OpenFile: func(name string, flag int, perm fs.FileMode) (*os.File, error) {
			return os.OpenFile(name, flag|os.O_EXCL, perm)
		},
	})
	if err != nil {
		if !errors.Is(err, fs.ErrExist) {
			os.Remove(w.temp) // made, but the disk was too full for its first pages
		}
		return nil, fmt.Errorf("create baseline: %w", err)
	}
	w.db.AllocSize = 32 << 10 // the file is to be no larger than its content
	if err := w.begin(); err != nil {
		w.Abort()
		return nil, err
	}
	return w, nil
}

func (w *Writer) begin() error {
	tx, err := w.db.Begin(true)
	if err != nil {
		return err
	}
	w.tx, w.pending = tx, 0
	w.blocks, err = tx.CreateBucketIfNotExists(blocksBucket)
	if err != nil {
		return err
	}
	w.blocks.FillPercent = 1 // keys only ascend
	return nil
}

// Add appends a record. Records come in the order of filehash.CompareKeys; the
// writer keeps nothing of r.
func (w *Writer) Add(r *Record) error {
	w.count(r, 1)
	return w.encode(r)
}

func (w *Writer) encode(r *Record) error {
	w.enc.add(r)
	if w.enc.full() {
		return w.flush()
	}
	return nil
}

func (w *Writer) flush() error {
	if w.enc.n == 0 {
		return nil
	}
	return w.put(w.enc.block())
}

// put appends an encoded block.
func (w *Writer) put(b []byte) error {
	n := uint32(len(w.leaves) - 1)
	w.leaves = append(w.leaves, leafHash(uint64(n)+1, b))
	if err := w.blocks.Put(blockKey(n), b); err != nil {
		return err
	}
	w.counts.Blocks++
	w.pending += len(b)
	if w.pending < commitBytes {
		return nil
	}
	if err := w.commitTx(); err != nil {
		return err
	}
	return w.begin()
}

func (w *Writer) commitTx() error {
	tx := w.tx
	w.tx = nil
	return tx.Commit()
}

func blockKey(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// Counts returns what was added so far, with Blocks complete after Commit.
func (w *Writer) Counts() Counts { return w.counts }

// Commit completes the file with its header, whose counts it fills in, and the
// encoded policy, makes it durable and visible, and returns its Merkle root.
func (w *Writer) Commit(h *Header, policy []byte) (Hash, error) {
	if err := w.flush(); err != nil {
		return Hash{}, w.failed(err)
	}
	h.Schema, h.Counts = Schema, w.counts
	header, err := json.Marshal(h)
	if err != nil {
		return Hash{}, err
	}
	meta, err := w.tx.CreateBucketIfNotExists(metaBucket)
	if err == nil {
		err = errors.Join(meta.Put(headerKey, header), meta.Put(policyKey, policy))
	}
	if err == nil {
		err = w.commitTx()
	}
	if err == nil {
		err = w.db.Close()
	}
	if err == nil {
		err = durable.Publish(w.temp, w.path) // fsyncs before the rename
	}
	if err != nil {
		return Hash{}, w.failed(err)
	}
	w.db = nil
	w.leaves[0] = headerLeaf(header, policy)
	return merkleRoot(w.leaves), nil
}

// headerLeaf is the hash of leaf 0: the header, and the policy behind it.
func headerLeaf(header, policy []byte) Hash {
	b := binary.BigEndian.AppendUint64(nil, uint64(len(header)))
	return leafHash(0, append(append(b, header...), policy...))
}

func (w *Writer) failed(err error) error {
	return failure.Errorf(failure.Failed, "write baseline %s: %w", w.path, err)
}

// Abort removes what was written, unless it was committed.
func (w *Writer) Abort() {
	if w.db == nil {
		return
	}
	if w.tx != nil {
		w.tx.Rollback()
	}
	w.db.Close()
	w.db = nil
	os.Remove(w.temp)
}

// count adds a record to the counts, or with n = -1 takes it away.
func (w *Writer) count(r *Record, n int64) {
	w.counts.Entries += n
	switch r.Content {
	case filehash.Hashed:
		w.counts.Files += n
		w.counts.Bytes += n * r.Info.Size
	case filehash.Unreadable:
		w.counts.Unreadable += n
	case filehash.Unstable:
		w.counts.Unstable += n
	}
}
