package baseline

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/mobileops/mobileops/pkg/filehash"
	"golang.org/x/sys/unix"
)

// generate makes n records in walk order, with values up to the extremes.
func generate(r *rand.Rand, n int) []Record {
	pick := func(v ...int64) int64 { return v[r.IntN(len(v))] }
	moment := func() filehash.Time {
		return filehash.Time{
			Sec:  pick(0, -2147483648, 15032385535, math.MinInt64, math.MaxInt64, 1795309480+int64(r.IntN(1e6))),
			Nsec: uint32(pick(0, 999999999, int64(r.IntN(1e9)))),
		}
	}
	text := func(max int) []byte {
		b := make([]byte, 1+r.IntN(max))
		for i := range b {
			for b[i] == 0 || b[i] == '/' {
				b[i] = byte(r.Uint32())
			}
		}
		return b
	}
	dirs := [][]byte{[]byte("/")}
	for range n/20 + 3 {
		dirs = append(dirs, JoinPath(dirs[r.IntN(len(dirs))], text(30)))
	}
	var list []Record
	for range n {
		rec := Record{Dir: dirs[r.IntN(len(dirs))], Name: text(255)}
		types := []int64{unix.S_IFREG, unix.S_IFREG, unix.S_IFREG, unix.S_IFDIR, unix.S_IFLNK, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK, 0}
		rec.Info = filehash.Info{
			Mode: uint32(pick(types...)) | uint32(r.IntN(0o10000)), UID: r.Uint32() >> r.IntN(32), GID: r.Uint32(), Links: r.Uint32() >> r.IntN(32),
			Dev: uint64(pick(0, math.MaxInt64, -1, 65024)), Ino: uint64(pick(0, math.MaxInt64, math.MinInt64, -1, int64(r.Uint64()>>32))),
			Size: pick(0, 1<<62, math.MaxInt64, int64(r.IntN(1e6))), Mtime: moment(), Ctime: moment(), Btime: moment(),
			Flags: uint32(pick(0, 0x10, 0x20, 0x30)),
		}
		switch rec.Info.Type() {
		case unix.S_IFREG:
			rec.Content = []filehash.Content{filehash.NoContent, filehash.Hashed, filehash.Hashed, filehash.Unreadable, filehash.Unstable}[r.IntN(5)]
			if rec.Content == filehash.Hashed {
				copy(rec.Sum[:], text(32))
			}
		case unix.S_IFLNK:
			rec.Target = text(4095)
		case unix.S_IFCHR, unix.S_IFBLK:
			rec.Info.Rdev = uint64(pick(0, -1, 259))
		}
		if r.IntN(10) == 0 {
			for i := range 1 + r.IntN(4) {
				rec.Xattrs = append(rec.Xattrs, filehash.Xattr{Name: fmt.Sprintf("user.%d%s", i, text(200)), Value: text(5000)})
			}
			if r.IntN(20) == 0 {
				rec.Xattrs[0].Value = make([]byte, 64<<10)
			}
		}
		list = append(list, rec)
	}
	slices.SortFunc(list, func(a, b Record) int { return filehash.CompareKeys(a.Dir, a.Name, b.Dir, b.Name) })
	return slices.CompactFunc(list, func(a, b Record) bool { return bytes.Equal(a.Dir, b.Dir) && bytes.Equal(a.Name, b.Name) })
}

// write makes a baseline of records and returns its path and root.
func write(t testing.TB, list []Record) (string, Hash) {
	t.Helper()
	return writeAs(t, list, &Header{ID: "0123456789abcdef", Name: "test"}, "policy")
}

// writeAs is write with the given header and policy.
func writeAs(t testing.TB, list []Record, h *Header, policy string) (string, Hash) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "b"+Ext)
	w, err := Create(filepath.Join(dir, "temp"), path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	for i := range list {
		if err := w.Add(&list[i]); err != nil {
			t.Fatal(err)
		}
	}
	root, err := w.Commit(h, []byte(policy))
	if err != nil {
		t.Fatal(err)
	}
	return path, root
}

func same(a, b *Record) bool {
	return bytes.Equal(a.Dir, b.Dir) && bytes.Equal(a.Name, b.Name) && a.Info == b.Info && a.Content == b.Content && a.Sum == b.Sum &&
		bytes.Equal(a.Target, b.Target) && len(a.Xattrs) == len(b.Xattrs) && (len(a.Xattrs) == 0 || reflect.DeepEqual(a.Xattrs, b.Xattrs))
}

func TestRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 2, 4095, 4096, 4097, 30000} {
		list := generate(rand.New(rand.NewPCG(1, uint64(n))), n)
		path, root := write(t, list)
		r, err := Open(path, root)
		if err != nil {
			t.Fatal(err)
		}
		if r.Header.Entries != int64(len(list)) || string(r.Policy) != "policy" || r.Header.Name != "test" || r.Root != root {
			t.Errorf("%d records: %+v", n, r.Header)
		}
		i := 0
		err = r.All(func(rec *Record) error {
			if i >= len(list) || !same(rec, &list[i]) {
				return fmt.Errorf("record %d is %+v, want %+v", i, rec, list[i])
			}
			i++
			return nil
		})
		if err != nil || i != len(list) {
			t.Errorf("%d records, %d read: %v", n, i, err)
		}
		t.Logf("%d records, %d blocks", len(list), r.Header.Blocks)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestFind compares with a map: in order, backwards, at random, and for keys
// that are not there.
func TestFind(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	list := generate(rng, 20000)
	path, root := write(t, list)
	r, err := Open(path, root)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	index := map[string]int{}
	for i := range list {
		index[string(list[i].Dir)+"\x00"+string(list[i].Name)] = i
	}
	c := r.Cursor()
	find := func(dir, name []byte) {
		t.Helper()
		want, there := index[string(dir)+"\x00"+string(name)]
		rec, n, err := c.Find(dir, name)
		if err != nil || (rec != nil) != there || there && (n != want || !same(rec, &list[want])) {
			t.Fatalf("find %q %q: %+v, %d, %v; want %d, %v", dir, name, rec, n, err, want, there)
		}
	}
	for i := range list {
		find(list[i].Dir, list[i].Name)
	}
	for i := range list { // some left out, some missing ones between
		if rng.IntN(3) == 0 {
			find(list[i].Dir, append(bytes.Clone(list[i].Name), 0))
			find(list[i].Dir, list[i].Name)
			find(list[i].Dir, list[i].Name)
		}
	}
	for i := len(list) - 1; i >= 0; i -= 7 {
		find(list[i].Dir, list[i].Name)
	}
	for range 5000 {
		l := &list[rng.IntN(len(list))]
		find(l.Dir, l.Name)
		find(l.Dir, l.Name[:rng.IntN(len(l.Name))])
		find(l.Name, l.Dir)
	}
	find([]byte("/"), nil)
	find([]byte("/\xff\xff\xff"), []byte("\xff"))
}

// records of /usr/share, much as the engine would write them.
func realRecords(b *testing.B) []Record {
	var list []Record
	err := filehash.Walk(b.Context(), "/usr/share", filehash.Options{}, func(bt *filehash.Batch) error {
		dir := bytes.Clone(bt.Dir)
		for i := range bt.Entries {
			e := &bt.Entries[i]
			list = append(list, Record{Dir: dir, Name: bytes.Clone(e.Name), Info: e.Info, Content: e.Content, Sum: e.Sum, Target: e.Target})
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return list
}

func encodeAll(tb testing.TB, list []Record) [][]byte {
	e, err := newEncoder()
	if err != nil {
		tb.Fatal(err)
	}
	var blocks [][]byte
	for i := range list {
		e.add(&list[i])
		if e.full() || i == len(list)-1 {
			blocks = append(blocks, e.block())
		}
	}
	return blocks
}

func BenchmarkEncode(b *testing.B) {
	list := realRecords(b)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, blk := range encodeAll(b, list) {
			n += len(blk)
		}
		b.ReportMetric(float64(n)/float64(len(list)), "B/record")
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(list)), "ns/record")
}

func BenchmarkDecode(b *testing.B) {
	list := realRecords(b)
	blocks := encodeAll(b, list)
	z := decoderOf(b)
	b.ReportAllocs()
	for b.Loop() {
		for _, blk := range blocks {
			if _, err := decodeBlock(blk, z); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(list)), "ns/record")
}

func BenchmarkFind(b *testing.B) {
	list := realRecords(b)
	path, root := write(b, list)
	r, err := Open(path, root)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	b.ReportAllocs()
	for b.Loop() {
		c := r.Cursor()
		for i := range list {
			if rec, _, err := c.Find(list[i].Dir, list[i].Name); rec == nil || err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(list)), "ns/record")
}
