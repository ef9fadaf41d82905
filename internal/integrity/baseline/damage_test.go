package baseline

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/zeebo/blake3"
	bolt "go.etcd.io/bbolt"
)

func decoderOf(tb testing.TB) *zstd.Decoder {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*maxBlockBytes))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(z.Close)
	return z
}

func decodeBlock(b []byte, z *zstd.Decoder) (*Block, error) {
	blk := new(Block)
	err := blk.decode(b, z)
	return blk, err
}

// content is a digest of all that a baseline says, or the error.
func content(path string, want Hash) (Hash, error) {
	r, err := Open(path, want)
	if err != nil {
		return Hash{}, err
	}
	defer r.Close()
	h := blake3.New()
	err = r.All(func(rec *Record) error {
		h.Write(JoinPath(rec.Dir, rec.Name))
		h.Write(rec.Sum[:])
		return nil
	})
	h.Write(r.Policy)
	return Hash(h.Sum(nil)), err
}

// damaged opens what data is and reports what would let damage pass: a crash
// ends the test by itself, a hang by its time.
func damaged(t *testing.T, what string, path string, data []byte, root, good Hash) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	got, err := content(path, root)
	if err == nil && got != good {
		t.Errorf("%s: other content, and no error", what)
	}
	if err != nil && (!errors.Is(err, ErrDamaged) || failure.KindOf(err) != failure.Untrustworthy) {
		t.Errorf("%s: %v", what, err)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("%s: took %v", what, took)
	}
	// Without a known root, as at an import, nothing may crash either.
	if _, err := content(path, Hash{}); err != nil && !errors.Is(err, ErrDamaged) {
		t.Errorf("%s, without a root: %v", what, err)
	}
}

func TestDamage(t *testing.T) {
	list := generate(rand.New(rand.NewPCG(3, 3)), 4300)
	for i := range list {
		list[i].Xattrs = nil
		list[i].Target = list[i].Target[:min(len(list[i].Target), 20)]
		list[i].Name = fmt.Appendf(nil, "%06d", i) // short, and still in order
	}
	path, root := write(t, list)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	good, err := content(path, root)
	if err != nil {
		t.Fatal(err)
	}
	copyPath := filepath.Join(t.TempDir(), "damaged")
	rng := rand.New(rand.NewPCG(4, 4))
	t.Run("truncated", func(t *testing.T) {
		for n := 0; n < len(data); n += max(1, len(data)/60) {
			damaged(t, "truncated", copyPath, data[:n], root, good)
		}
		for _, n := range []int{1, 4095, 4096, 4097, 8192, 16384, len(data) - 1, len(data) - 4096} {
			damaged(t, "truncated", copyPath, data[:n], root, good)
			if _, err := content(copyPath, root); err == nil && n < len(data)-4096 {
				t.Errorf("cut to %d of %d bytes: no error", n, len(data))
			}
		}
	})
	t.Run("flipped", func(t *testing.T) {
		for i := range 500 {
			b := bytes.Clone(data)
			at := rng.IntN(len(b))
			if i%2 == 0 { // where bbolt's pages have their heads
				at = min(len(b)-1, rng.IntN(len(b)/4096)*4096+rng.IntN(96))
			}
			b[at] ^= 1 << rng.IntN(8)
			damaged(t, "flipped", copyPath, b, root, good)
		}
	})
	t.Run("pages exchanged", func(t *testing.T) {
		for range 120 {
			b := bytes.Clone(data)
			p, q := rng.IntN(len(b)/4096)*4096, rng.IntN(len(b)/4096)*4096
			copy(b[p:p+4096], data[q:q+4096])
			damaged(t, "page copied", copyPath, b, root, good)
		}
	})
}

// change applies fn to a copy of a baseline by way of bbolt.
func change(t *testing.T, path string, fn func(tx *bolt.Tx) error) string {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "changed")
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(to, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Update(fn); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestForgery: whoever can write the file properly still cannot keep its root.
func TestForgery(t *testing.T) {
	path, root := write(t, generate(rand.New(rand.NewPCG(5, 5)), 9000))
	for what, fn := range map[string]func(tx *bolt.Tx) error{
		"nothing": func(*bolt.Tx) error { return nil },
		"blocks exchanged": func(tx *bolt.Tx) error {
			b := tx.Bucket(blocksBucket)
			x, y := bytes.Clone(b.Get(blockKey(0))), bytes.Clone(b.Get(blockKey(1)))
			return errors.Join(b.Put(blockKey(0), y), b.Put(blockKey(1), x))
		},
		"last block removed":  func(tx *bolt.Tx) error { return tx.Bucket(blocksBucket).Delete(blockKey(2)) },
		"first block removed": func(tx *bolt.Tx) error { return tx.Bucket(blocksBucket).Delete(blockKey(0)) },
		"header": func(tx *bolt.Tx) error {
			h := bytes.Replace(tx.Bucket(metaBucket).Get(headerKey), []byte(`"test"`), []byte(`"tost"`), 1)
			return tx.Bucket(metaBucket).Put(headerKey, h)
		},
		"policy":  func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Put(policyKey, []byte("polizy")) },
		"schema":  func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Put(headerKey, []byte(`{"schema":"x"}`)) },
		"no meta": func(tx *bolt.Tx) error { return tx.DeleteBucket(metaBucket) },
		"block in a block": func(tx *bolt.Tx) error {
			_, err := tx.Bucket(blocksBucket).CreateBucket([]byte("\xff"))
			return err
		},
	} {
		_, err := content(change(t, path, fn), root)
		if what == "nothing" {
			if err != nil {
				t.Errorf("unchanged: %v", err)
			}
		} else if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string][]byte{"empty": nil, "text": []byte("hello\n"), "zeros": make([]byte, 65536), "one byte": {1}} {
		p := filepath.Join(dir, name)
		os.WriteFile(p, data, 0o600)
		if _, err := Open(p, Hash{}); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if now, _ := os.ReadFile(p); !bytes.Equal(now, data) {
			t.Errorf("%s was changed", name)
		}
	}
	if _, err := Open(dir, Hash{}); err == nil {
		t.Error("a directory was opened")
	}
	if _, err := Open(filepath.Join(dir, "none"), Hash{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

// TestFileThatShrinksWhileOpen: a mapped file that is cut is an error, not the
// end of the process.
func TestFileThatShrinksWhileOpen(t *testing.T) {
	list := generate(rand.New(rand.NewPCG(6, 6)), 20000)
	path, root := write(t, list)
	r, err := Open(path, root)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 8192); err != nil {
		t.Fatal(err)
	}
	c := r.Cursor()
	failed := false
	for i := 0; i < len(list); i += 50 {
		if _, _, err := c.Find(list[i].Dir, list[i].Name); err != nil {
			failed = errors.Is(err, ErrDamaged)
			break
		}
	}
	if !failed {
		t.Error("every record was found, or the error is not ErrDamaged")
	}
	r.Close()
}

func FuzzDecodeBlock(f *testing.F) {
	for seed := range uint64(4) {
		for _, b := range encodeAll(f, generate(rand.New(rand.NewPCG(7, seed)), 1+int(seed)*30)) {
			if len(b) < 64<<10 {
				f.Add(b)
			}
		}
	}
	f.Add([]byte("\x03/\x00a\x01\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		blk, err := decodeBlock(b, decoderOf(t))
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 64<<20 {
			t.Errorf("%d bytes of input took %d bytes of memory", len(b), used)
		}
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("%v", err)
			}
			return
		}
		// What can be read can be written, and says the same.
		again, err := decodeBlock(encodeAll(t, blk.Records)[0], decoderOf(t))
		if err != nil || len(again.Records) != len(blk.Records) {
			t.Fatalf("again: %v", err)
		}
		for i := range blk.Records {
			if !same(&blk.Records[i], &again.Records[i]) {
				t.Errorf("record %d: %+v, then %+v", i, blk.Records[i], again.Records[i])
			}
		}
	})
}

func FuzzOpen(f *testing.F) {
	path, _ := write(f, generate(rand.New(rand.NewPCG(8, 8)), 3))
	data, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		p := filepath.Join(t.TempDir(), "b")
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := content(p, Hash{}); err != nil && !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
	})
}

// TestPanicWhileOpening: what bbolt does when the file goes away under it must
// end as damage, not in waiting for a transaction that nobody ends.
func TestPanicWhileOpening(t *testing.T) {
	path, _ := write(t, generate(rand.New(rand.NewPCG(9, 9)), 10))
	db, err := openDB(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := begin(db, func(*bolt.Tx) (*Reader, error) { panic("page 7 already freed") }); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
	closed := make(chan error, 1)
	go func() { closed <- db.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the file cannot be closed")
	}
}

// TestLongDirectories: directories that share a long prefix take few bytes in a
// block and many in memory, so a block has only so many of them, and a reader
// does not believe one with more.
func TestLongDirectories(t *testing.T) {
	long := append([]byte("/"), bytes.Repeat([]byte("x"), 16<<10)...)
	var list []Record
	for i := range 2000 {
		list = append(list, Record{Dir: fmt.Appendf(nil, "%s%04d", long, i), Name: []byte("n")})
	}
	path, root := write(t, list)
	r, err := Open(path, root)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := 0
	if err := r.All(func(rec *Record) error { n++; return nil }); err != nil || n != len(list) {
		t.Errorf("%d records, %v", n, err)
	}
	if total := len(list) * len(long); int(r.Header.Blocks) < total/(flushBytes+len(long)+256) {
		t.Errorf("%d bytes of directories in %d blocks", total, r.Header.Blocks)
	}

	e, err := newEncoder()
	if err != nil {
		t.Fatal(err)
	}
	for i := range list {
		e.add(&list[i])
	}
	var corrupt *CorruptError
	if _, err := decodeBlock(e.block(), decoderOf(t)); !errors.As(err, &corrupt) || !strings.Contains(corrupt.Reason, "too long") {
		t.Errorf("%v", err)
	}
}
