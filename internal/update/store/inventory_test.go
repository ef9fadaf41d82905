package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/pkg/filehash"
)

// TestInventory: views say of every name what was put last, whatever is in the
// file and whatever in memory, as a map would.
func TestInventory(t *testing.T) {
	s := New(Options{Dir: t.TempDir()}) // has no tmp/, so the file is elsewhere
	names := s.newInventory()
	defer names.close()
	names.traits.most, names.seen.most = 3, 3
	views, maps := []*view{names.view(), names.view()}, []map[string]Entry{{}, {}}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 20_000 {
		e := Entry{Path: fmt.Sprintf("dir-%d/%s%d", r.IntN(10), strings.Repeat("x", r.IntN(3)*r.IntN(100)), r.IntN(500)), Kind: File, Mode: uint32(r.IntN(8)), Size: int64(r.IntN(3)), Sum: filehash.Sum{byte(r.IntN(256)), byte(r.IntN(4)), 1}}
		switch r.IntN(10) {
		case 0:
			e = Entry{Path: e.Path, Kind: Link, Target: fmt.Sprint("to-", r.IntN(50))}
		case 1:
			e.Kind, e.Base = Config, &Delivered{filehash.Sum{byte(r.IntN(256))}, 0o644}
		case 2:
			e = Entry{Path: strings.Repeat("deep/", 14_000) + fmt.Sprint(r.IntN(3)), Kind: Dir, UID: 7, GID: 8}
		}
		which := i % 2
		if r.IntN(5) == 0 {
			views[which].drop(e.Path)
			delete(maps[which], e.Path)
			continue
		}
		views[which].put(&e)
		maps[which][e.Path] = e
	}
	if names.traits.file == nil {
		t.Fatal("nothing was put aside")
	}
	for i, v := range views {
		want := make([]string, 0, len(maps[i]))
		for p := range maps[i] {
			want = append(want, p)
		}
		slices.Sort(want)
		var got []string
		for e := range v.all() {
			got = append(got, e.Path)
			m := maps[i][e.Path]
			if again := v.get(e.Path); !equal(e, &m) || !equal(again, &m) || v.kind(e.Path) != m.Kind {
				t.Fatalf("%+v and %+v, not %+v", e, again, m)
			}
		}
		if !slices.Equal(got, want) || v.len() != len(want) {
			t.Fatalf("%d names, not %d", len(got), len(want))
		}
		if v.get("nowhere") != nil || v.has("nowhere") {
			t.Error("what is not there is there")
		}
	}
	if err := names.sound(); err != nil {
		t.Fatal(err)
	}
}

func equal(a, b *Entry) bool {
	if (a.Base == nil) != (b.Base == nil) || a.Base != nil && *a.Base != *b.Base {
		return false
	}
	x, y := *a, *b
	x.Base, y.Base = nil, nil
	return x == y
}

// TestSpillThatCannotBeRead is not taken for what was written.
func TestSpillThatCannotBeRead(t *testing.T) {
	s := New(Options{Dir: t.TempDir()})
	for _, broken := range []bool{false, true} {
		names := s.newInventory()
		names.traits.most = 1
		v := names.view()
		for i := range 10 * spillBlock {
			v.put(&Entry{Path: fmt.Sprint(i), Kind: File, Size: int64(i)})
		}
		if broken {
			names.traits.file.Close()
		}
		e := v.get("1")
		if err := names.sound(); broken != (err != nil) || !broken && e.Size != 1 {
			t.Errorf("broken %v: %+v, %v", broken, e, err)
		}
		names.close()
	}
}

// TestSpillWithoutFile: where none can be made, everything stays in memory.
func TestSpillWithoutFile(t *testing.T) {
	names := New(Options{Dir: t.TempDir()}).newInventory()
	defer names.close()
	names.traits.most, names.traits.create = 1, func() (*os.File, error) { return nil, errors.New("no room") }
	v := names.view()
	for i := range 10 * spillBlock {
		v.put(&Entry{Path: fmt.Sprint(i), Kind: File, Size: int64(i)})
	}
	for i := range 10 * spillBlock {
		if e := v.get(fmt.Sprint(i)); e.Size != int64(i) {
			t.Fatalf("%+v", e)
		}
	}
	if err := names.sound(); err != nil {
		t.Error(err)
	}
}

// TestInventoryIsSmall: what two versions of a large installation take in memory,
// with every file another, is little beside their paths.
func TestInventoryIsSmall(t *testing.T) {
	const count, most = 200_000, 20 << 20
	before := heap()
	names := New(Options{Dir: t.TempDir()}).newInventory()
	defer names.close()
	views := []*view{names.view(), names.view()}
	text := 0
	for i := range count {
		for version, v := range views {
			e := Entry{Path: fmt.Sprintf("%03d/file-%06d", i/1000, i), Kind: File, Size: 100, Sum: filehash.Sum{byte(i), byte(i >> 8), byte(i >> 16), byte(version)}}
			id := v.put(&e)
			names.seen.at(int(id)).ino = uint64(i)
			text += len(e.Path)
		}
	}
	if took := heap() - before; took > most {
		t.Errorf("%d bytes for %d names, whose paths have %d; %d are allowed", took, count, text/2, most)
	}
	if names.sorted(); names.sound() != nil || views[1].get("199/file-199999") == nil {
		t.Error("it lost something")
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
