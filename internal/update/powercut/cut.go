package powercut

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
)

// Part is a part of a write: Length bytes from Skip on, in bytes, both
// multiples of the sector unless they end with the write.
type Part struct{ Skip, Length int64 }

// Fate decides which parts of a write that no flush covers survive a cut. It
// gives the same answer when it is asked again. sector is in bytes.
type Fate func(write Entry, sector int64) []Part

// Lost is the fate of a disk that had everything in its cache.
func Lost(Entry, int64) []Part { return nil }

// Kept is the fate of a disk that had written everything. A cut at an earlier
// position with it keeps the beginning of what was written.
func Kept(e Entry, _ int64) []Part { return []Part{{0, e.Length}} }

// Chance is the fate of a disk that writes in whatever order it likes: any
// write may survive, and of one in four of those that do only a part does. How
// many survive depends on the seed.
func Chance(seed uint64) Fate {
	few := []float64{0.1, 0.3, 0.5, 0.7, 0.9}[seed%5]
	return func(e Entry, sector int64) (parts []Part) {
		r := rand.New(rand.NewPCG(seed, uint64(e.At)))
		if r.Float64() >= few {
			return nil
		}
		sectors := (e.Length + sector - 1) / sector
		if sectors < 2 || e.superblock() || r.IntN(4) != 0 {
			return Kept(e, sector)
		}
		part := func(from, to int64) Part {
			return Part{from * sector, min(to*sector, e.Length) - from*sector}
		}
		switch cut := 1 + r.Int64N(sectors-1); r.IntN(3) {
		case 0:
			return []Part{part(0, cut)}
		case 1:
			return []Part{part(cut, sectors)}
		}
		for i := range sectors {
			if r.IntN(2) == 0 {
				parts = append(parts, part(i, i+1))
			}
		}
		return parts
	}
}

// superblock reports whether a write holds the superblock of ext4, of which a
// half with the checksum of the whole cannot be mounted: it is written in place,
// and ext4 counts on its 1024 bytes to arrive together even where a sector is
// half as long. No program above can help that, so no cut tears it.
func (e Entry) superblock() bool { return e.Offset < 2048 && e.Offset+e.Length > 1024 }

// Cut is a moment at which the power goes, and what the disk makes of it.
type Cut struct {
	At   Position
	Fate Fate
	What string // of the fate, for the name of a test
}

// String names the cut.
func (c Cut) String() string { return fmt.Sprintf("%d-%s", c.At, c.What) }

// Cuts plans cuts between two positions: for each flush one that leaves exactly
// what it made stay, as late as possible, so that the most has been reported by
// then; and random more at random moments, of which every other is immediately
// before a flush, where the most is at stake. The same seed gives the same cuts.
func (d *Device) Cuts(from, to Position, random int, seed uint64) (cuts []Cut) {
	d.t.Helper()
	entries := d.Log()
	var flushes []Position
	pending := false // something was written since the last flush
	for at := from; at < to; at++ {
		switch entries[at].Kind {
		case Write, Zero:
			pending = true
		case Flush:
			if pending {
				flushes = append(flushes, at)
				cuts = append(cuts, Cut{at, Lost, "lost"})
			}
			pending = false
		}
	}
	cuts = append(cuts, Cut{to, Lost, "lost"}, Cut{to, Kept, "kept"})
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range random {
		at := from + Position(r.IntN(int(to-from)+1))
		if i%2 == 0 && len(flushes) > 0 {
			at = flushes[r.IntN(len(flushes))]
		}
		one := r.Uint64N(1_000_000)
		cuts = append(cuts, Cut{at, Chance(one), fmt.Sprintf("chance%d", one)})
	}
	return cuts
}

// settled is a disk as it was at a position, with nothing in its cache: cuts in
// their order do not begin at the beginning each.
type settled struct {
	disk *os.File
	at   Position
}

func (s *settled) close() {
	if s != nil {
		s.disk.Close()
	}
}

// settle returns the disk with everything before the position.
func (d *Device) settle(at Position) (*os.File, error) {
	entries, err := d.log.all()
	if err != nil {
		return nil, err
	}
	if d.settled == nil || d.settled.at > at {
		disk, err := sparse(d.base, d.options.Size)
		if err != nil {
			return nil, err
		}
		d.settled.close()
		d.settled = &settled{disk: disk}
	}
	for ; d.settled.at < at; d.settled.at++ {
		if e := entries[d.settled.at]; e.Kind == Write || e.Kind == Zero {
			if err := d.log.apply(d.settled.disk, e, 0, e.Length); err != nil {
				return nil, err
			}
		}
	}
	return d.settled.disk, nil
}

// Image is what a cut left on the disk.
type Image struct {
	// Reported are the names of the marks before the cut, oldest first.
	Reported []string
	// Lost is how many writes were lost or torn by the cut.
	Lost int

	t       testing.TB
	options Options
	place   *place
	disk    *os.File
}

// Cut cuts the power, and returns what is left. It is gone when t is over.
func (d *Device) Cut(t testing.TB, c Cut) *Image {
	t.Helper()
	d.cutting.Lock()
	defer d.cutting.Unlock()
	entries, err := d.log.all()
	must(t, err)
	flushed := c.At
	for flushed > 0 && entries[flushed-1].Kind != Flush {
		flushed--
	}
	disk, err := d.settle(flushed)
	must(t, err)
	disk, err = sparse(disk, d.options.Size)
	must(t, err)
	im := &Image{t: t, options: d.options, place: d.place, disk: disk, Reported: d.Reached(c.At)}
	t.Cleanup(im.close)
	for _, e := range entries[flushed:c.At] {
		if e.Kind != Write && e.Kind != Zero {
			continue
		}
		var survived int64
		for _, p := range c.Fate(e, int64(d.options.Sector)) {
			must(t, d.log.apply(disk, e, p.Skip, p.Length))
			survived += p.Length
		}
		if survived < e.Length {
			im.Lost++
		}
	}
	return im
}

func (im *Image) close() {
	im.Unmount()
	im.disk.Close()
}

// Mount mounts what is left, by which the filesystem recovers, and returns the
// directory: the one where the disk was mounted.
func (im *Image) Mount() string {
	im.t.Helper()
	must(im.t, im.place.mount(im, im.disk, im.options))
	return im.place.dir
}

// Unmount unmounts it. It does nothing when it is not mounted.
func (im *Image) Unmount() {
	im.t.Helper()
	if err := im.place.unmount(im); err != nil {
		im.t.Errorf("powercut: %v", err)
	}
}

// Check unmounts it and has the checker of the filesystem look at it, which
// must find nothing.
func (im *Image) Check() {
	im.t.Helper()
	im.Unmount()
	name, args := "e2fsck", []string{"-f", "-n"}
	switch im.options.Filesystem {
	case "xfs":
		name, args = "xfs_repair", []string{"-n", "-f"}
	case "btrfs":
		name, args = "btrfs", []string{"check", "--readonly", "--force"}
	}
	cmd := exec.Command(name, append(args, "/proc/self/fd/3")...)
	cmd.ExtraFiles = []*os.File{im.disk}
	if out, err := cmd.CombinedOutput(); err != nil {
		im.t.Errorf("powercut: %s: %v: %s", cmd, err, bytes.TrimSpace(out))
	}
}

// Disk is the power back on: a disk that begins with what is left and remembers
// again, for a second cut while a program recovers from the first.
func (im *Image) Disk() *Device {
	im.t.Helper()
	im.Unmount()
	base, err := sparse(im.disk, im.options.Size)
	must(im.t, err)
	return start(im.t, im.options, base, im.place)
}
