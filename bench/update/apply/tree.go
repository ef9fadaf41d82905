package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// Versions are trees v1 and v2, which share the files that do not change; ov has
// those that do.
const (
	version1 = "v1"
	version2 = "v2"
	overlay  = "ov"
)

// released is the time of every file, as if a build had set it.
var released = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// content makes the content of files: text of words and noise, in runs, as
// programs and their data are. The same name and version have the same content
// every time.
type content struct {
	words [][]byte
	seed  [32]byte
}

func newContent() *content {
	r := rand.New(rand.NewPCG(1, 2))
	c := new(content)
	for range 5000 {
		w := make([]byte, 2+r.IntN(10))
		for i := range w {
			w[i] = byte('a' + r.IntN(26))
		}
		c.words = append(c.words, append(w, " \n,=("[r.IntN(5)]))
	}
	return c
}

// fill appends n bytes, a third of them noise.
func (c *content) fill(to []byte, n, file, version int) []byte {
	binary.LittleEndian.PutUint64(c.seed[:], uint64(file))
	binary.LittleEndian.PutUint64(c.seed[8:], uint64(version))
	source := rand.NewChaCha8(c.seed)
	r := rand.New(source)
	end := len(to) + n
	for len(to) < end {
		run := 256 + r.IntN(16<<10)
		if r.IntN(3) == 0 {
			at := len(to)
			to = append(to, make([]byte, min(run, end-at))...)
			source.Read(to[at:])
			continue
		}
		for stop := min(len(to)+run, end); len(to) < stop; {
			// Some words come far more often than others.
			to = append(to, c.words[int(r.Float64()*r.Float64()*r.Float64()*float64(len(c.words)))]...)
		}
	}
	return to[:end]
}

// sizes returns sizes as those of files are: many small ones, few large ones, and
// total in all.
func sizes(files int, total int64) []int {
	r := rand.New(rand.NewPCG(3, 4))
	shape := make([]float64, files)
	sum := 0.0
	for i := range shape {
		shape[i] = min(math.Pow(1-r.Float64(), -1/1.3), 500) // Pareto
		sum += shape[i]
	}
	list := make([]int, files)
	for i := range list {
		list[i] = max(1, int(shape[i]/sum*float64(total)))
	}
	return list
}

// trees makes the trees of both versions.
func (b *bench) trees() error {
	c := newContent()
	list := sizes(b.files, b.size)
	changes := make([]bool, b.files)
	for _, i := range rand.New(rand.NewPCG(5, 6)).Perm(b.files)[:b.changed] {
		changes[i] = true
	}
	var buf []byte
	for i, n := range list {
		name := fmt.Sprintf("%02d/%03d/file-%05d", i/1000, i/100, i)
		old := b.at(version1, name)
		if err := b.ctx.Err(); err != nil {
			return err
		}
		buf = c.fill(buf[:0], n, i, 1)
		if err := plant(old, buf); err != nil {
			return err
		}
		if !changes[i] {
			if err := link(old, b.at(version2, name)); err != nil {
				return err
			}
			continue
		}
		// A build changes sizes as well.
		buf = c.fill(buf[:0], n+i%17, i, 2)
		if err := plant(b.at(version2, name), buf); err != nil {
			return err
		}
		if err := link(b.at(version2, name), b.at(overlay, name)); err != nil {
			return err
		}
	}
	return nil
}

func plant(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		return err
	}
	return os.Chtimes(path, released, released)
}

func link(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.Link(from, to)
}
