package powercut_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/update/powercut"
	"golang.org/x/sys/unix"
)

// syncFilesystem is syncfs(2).
func syncFilesystem(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// devicesOf returns the loop devices whose file is below dir.
func devicesOf(t *testing.T, dir string) (devices []string) {
	t.Helper()
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if file, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(file), dir) {
			devices = append(devices, name)
		}
	}
	return devices
}

// used reports whether a loop device is attached to a file below dir, or to one
// that is no longer in anybody's namespace, whose name is "/", and is so since the
// attachment with that number: other tests take what is free, at once.
func used(device, dir, attachment string) bool {
	file, err := os.ReadFile(device)
	return err == nil && (strings.HasPrefix(string(file), dir) || string(file) == "/\n") && attachmentOf(device) == attachment
}

// attachmentOf is a number that every attachment gets anew, before Linux 5.15 none.
func attachmentOf(device string) string {
	number, _ := os.ReadFile(filepath.Join(filepath.Dir(device), "../diskseq"))
	return string(number)
}

// serverOf returns the process that serves the disk below dir.
func serverOf(t *testing.T, dir string) int {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		env, _ := os.ReadFile(name)
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(name), "cmdline"))
		if bytes.Contains(line, []byte(dir)) && bytes.Contains(env, []byte("MOBILEOPS_POWERCUT=serve\x00")) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("no process serves the disk")
	return 0
}

// ended reports whether all threads of a process have ended. Nobody may have
// asked how the process ended: then it remains by name, as a zombie.
func ended(pid int) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(threads) > 1 {
		return false
	}
	for _, thread := range threads {
		stat, err := os.ReadFile(filepath.Join(thread, "stat"))
		if _, state, ok := bytes.Cut(stat, []byte(") ")); err == nil && ok && state[0] != 'Z' && state[0] != 'X' {
			return false
		}
	}
	return true
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// TestLogHasTheOrder writes to the bare disk: each write is in the log when it
// returns, not when it is flushed, and a flush is one flush.
func TestLogHasTheOrder(t *testing.T) {
	d := powercut.Start(t, powercut.Options{})
	device := d.Raw(t)
	from := d.Mark("begin")
	first, second := bytes.Repeat([]byte{1}, 8192), bytes.Repeat([]byte{2}, 4096)
	for _, step := range []func() error{
		func() error { _, err := unix.Pwrite(device, aligned(first), 1<<20); return err },
		func() error { return powercut.Mark(d.Path(), "written") },
		func() error { return unix.Fsync(device) },
		func() error { return powercut.Mark(d.Path(), "flushed") },
		func() error { _, err := unix.Pwrite(device, aligned(second), 1<<20+4096); return err },
		func() error {
			return unix.Fallocate(device, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 1<<20, 4096)
		},
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	type entry struct {
		kind   powercut.Kind
		offset int64
		length int64
		name   string
	}
	var got []entry
	for _, e := range d.Log()[from:] {
		got = append(got, entry{e.Kind, e.Offset, e.Length, e.Name})
	}
	want := []entry{
		{powercut.Write, 1 << 20, 8192, ""}, {powercut.Marked, 0, 0, "written"}, {powercut.Flush, 0, 0, ""}, {powercut.Marked, 0, 0, "flushed"},
		{powercut.Write, 1<<20 + 4096, 4096, ""}, {powercut.Zero, 1 << 20, 4096, ""},
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("log: %v, not %v", got, want)
	}

	// What is there after a cut at each position, as two blocks.
	one, two, zero := byte(1), byte(2), byte(0)
	for _, c := range []struct {
		after int
		fate  powercut.Fate
		want  [2]byte
		lost  int
	}{
		{0, powercut.Kept, [2]byte{zero, zero}, 0},
		{1, powercut.Lost, [2]byte{zero, zero}, 1},
		{1, powercut.Kept, [2]byte{one, one}, 0},
		{1, torn, [2]byte{zero, one}, 1},
		{2, powercut.Lost, [2]byte{zero, zero}, 1},
		{3, powercut.Lost, [2]byte{one, one}, 0},
		{5, powercut.Lost, [2]byte{one, one}, 1},
		{5, powercut.Kept, [2]byte{one, two}, 0},
		{6, powercut.Lost, [2]byte{one, one}, 2},
		{6, powercut.Kept, [2]byte{zero, two}, 0},
		{2, powercut.Lost, [2]byte{zero, zero}, 1}, // back again
	} {
		im := d.Cut(t, powercut.Cut{At: from + powercut.Position(c.after), Fate: c.fate})
		got := im.Bytes(t, 1<<20, 8192)
		if !bytes.Equal(got[:4096], bytes.Repeat(c.want[:1], 4096)) || !bytes.Equal(got[4096:], bytes.Repeat(c.want[1:], 4096)) || im.Lost != c.lost {
			t.Errorf("after %d of the log: blocks of %d and %d, %d lost, want %v", c.after, got[0], got[4096], im.Lost, c)
		}
	}
	if got := d.Reached(from + 3); !reflect.DeepEqual(got, []string{"begin", "written"}) {
		t.Errorf("reached: %q", got)
	}
}

// torn keeps the second block of a write.
func torn(e powercut.Entry, sector int64) []powercut.Part {
	return []powercut.Part{{Skip: sector, Length: e.Length - sector}}
}

// aligned returns a copy at an address that O_DIRECT takes.
func aligned(data []byte) []byte {
	memory, err := unix.Mmap(-1, 0, len(data), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic(err)
	}
	copy(memory, data)
	return memory
}

// TestChance: the fate is the same each time, parts are of whole sectors, in
// order, and something is lost, kept and torn.
func TestChance(t *testing.T) {
	var lost, kept, tears int
	for seed := range uint64(50) {
		fate := powercut.Chance(seed)
		super := powercut.Entry{Kind: powercut.Write, At: powercut.Position(seed), Length: 4096}
		if parts := fate(super, 512); len(parts) > 1 || len(parts) == 1 && parts[0].Length != super.Length {
			t.Fatalf("the superblock is torn: %v", parts)
		}
		for at := range powercut.Position(100) {
			e := powercut.Entry{Kind: powercut.Write, At: at, Offset: 1 << 20, Length: int64(1+at%40) * 512}
			parts := fate(e, 512)
			if !reflect.DeepEqual(parts, fate(e, 512)) {
				t.Fatal("two fates of one write")
			}
			var sum, end int64
			for _, p := range parts {
				if p.Skip < end || p.Skip%512 != 0 || p.Length%512 != 0 || p.Length == 0 || p.Skip+p.Length > e.Length {
					t.Fatalf("%v of %v", parts, e)
				}
				end = p.Skip + p.Length
				sum += p.Length
			}
			switch sum {
			case 0:
				lost++
			case e.Length:
				kept++
			default:
				tears++
			}
		}
	}
	if lost < 500 || kept < 500 || tears < 200 {
		t.Errorf("%d lost, %d kept, %d torn", lost, kept, tears)
	}
}
