package boltfile

import (
	"bytes"
	"hash/fnv"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// TestMetaPagesThatBboltWouldTake changes meta pages as somebody does who wants one
// tree to be examined and another one to be used: bbolt looks at magic, version and
// checksum alone, and takes the newer one.
func TestMetaPagesThatBboltWouldTake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("b")); return err }); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// forge writes the meta page at off with pages of that size, as the newest.
	forge := func(b []byte, off int, pageSize uint32) {
		m := b[off+PageHeader:]
		Order.PutUint32(m[8:], pageSize)
		Order.PutUint64(m[48:], 1000)
		sum := fnv.New64a()
		sum.Write(m[:metaSize-8])
		Order.PutUint64(m[56:], sum.Sum64())
	}
	for _, tc := range []struct {
		name     string
		off      int
		pageSize uint32
		ok       bool
	}{
		{"as it is, and newer", 4096, 4096, true},
		{"the second with other pages", 4096, 8192, false},
		{"the second with impossible pages", 4096, 3, false},
		{"the first with small pages", 0, 512, false},
		{"the first with impossible pages", 0, 4095, false},
	} {
		b := bytes.Clone(whole)
		forge(b, tc.off, tc.pageSize)
		h, err := ReadHeader(bytes.NewReader(b), int64(len(b)))
		if (err == nil) != tc.ok || tc.ok && h.Txid != 1000 {
			t.Errorf("%s: %+v, %v", tc.name, h, err)
		}
	}
}
