package source

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childEnv says what a process that a test starts does instead of the tests:
// it collects into a file until it is killed.
const childEnv = "SOURCE_TEST_CHILD"

func TestMain(m *testing.M) {
	if include := os.Getenv(childEnv); include != "" {
		if err := collectorChild(include, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func collectorChild(include, kept string) error {
	if pattern, ok := strings.CutPrefix(include, "problems:"); ok {
		c, err := New([]Spec{{Name: "test", Kind: Files, Include: []string{pattern}}}, nil, &memorySink{}, Options{Idle: time.Millisecond})
		if err != nil {
			return err
		}
		r, err := c.Once(context.Background())
		for _, p := range r.Problems {
			fmt.Println(r.Records, p.Path, p.Reason)
		}
		return err
	}
	sink, err := openFileSink(kept)
	if err != nil {
		return err
	}
	defer sink.f.Close()
	c, err := New([]Spec{{Name: "test", Kind: Files, Format: plain, Include: []string{include}}}, nil, sink,
		Options{Idle: 20 * time.Second, Poll: 100 * time.Millisecond, Flush: time.Millisecond})
	if err != nil {
		return err
	}
	return c.Follow(context.Background())
}

// fileSink keeps frames in a file: length, checksum, JSON. It kills itself now
// and then, at any point of keeping.
type fileSink struct {
	f       *os.File
	cursors map[string][]byte
}

type frame struct {
	Key    string
	Cursor []byte
	Lines  [][]byte
}

func openFileSink(path string) (*fileSink, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	s := &fileSink{f: f, cursors: map[string][]byte{}}
	end, err := readFrames(f, func(list []frame) {
		for _, fr := range list {
			if fr.Cursor == nil {
				delete(s.cursors, fr.Key)
			} else {
				s.cursors[fr.Key] = fr.Cursor
			}
		}
	})
	if err == nil {
		err = f.Truncate(end)
	}
	if err == nil {
		_, err = f.Seek(end, io.SeekStart)
	}
	return s, err
}

// readFrames calls fn with every whole frame and returns where they end.
func readFrames(f *os.File, fn func([]frame)) (end int64, err error) {
	in := bufio.NewReader(f)
	var head [8]byte
	for {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return end, nil
		}
		n := binary.LittleEndian.Uint32(head[:])
		if n > 64<<20 {
			return end, nil
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(in, body); err != nil || crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(head[4:]) {
			return end, nil
		}
		var list []frame
		if err := json.Unmarshal(body, &list); err != nil {
			return 0, err
		}
		fn(list)
		end += 8 + int64(n)
	}
}

func (s *fileSink) Cursors(context.Context) (map[string][]byte, error) { return s.cursors, nil }

func (s *fileSink) Append(_ context.Context, batches []Batch) error {
	var list []frame
	for _, b := range batches {
		fr := frame{Key: b.Key, Cursor: b.Cursor}
		for _, r := range b.Records {
			fr.Lines = append(fr.Lines, r.Raw)
		}
		list = append(list, fr)
	}
	body, err := json.Marshal(list)
	if err != nil {
		return err
	}
	out := binary.LittleEndian.AppendUint32(nil, uint32(len(body)))
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(body))
	out = append(out, body...)
	die := func() { syscall.Kill(os.Getpid(), syscall.SIGKILL) }
	switch rand.IntN(60) {
	case 0:
		die()
	case 1:
		s.f.Write(out[:rand.IntN(len(out))])
		die()
	case 2:
		s.f.Write(out)
		die()
	case 3:
		return errors.New("the sink fails")
	}
	_, err = s.f.Write(out)
	return err
}

// rotator writes numbered lines and rotates the file in every way.
type rotator struct {
	h    *host
	rnd  *rand.Rand
	next int
	kept int // rotated files
}

func (r *rotator) step() {
	h := r.h
	n := 1 + r.rnd.IntN(40)
	if r.rnd.IntN(10) == 0 {
		n *= 100
	}
	text := numbered(r.next, r.next+n)
	r.next += n
	// In pieces that end within lines.
	for len(text) > 0 {
		k := 1 + r.rnd.IntN(len(text))
		h.append("app.log", text[:k])
		text = text[k:]
		if k > 2000 {
			k = 2000
		}
		time.Sleep(time.Duration(r.rnd.IntN(k+1)) * time.Microsecond)
	}
	switch r.rnd.IntN(24) {
	case 0:
		r.shift()
		h.rename("app.log", "app.log.1")
	case 1:
		r.shift()
		h.copyTruncate("app.log", "app.log.1")
	case 2:
		r.shift()
		h.rename("app.log", "app.log.1")
		r.compress(1)
	case 3:
		r.shift()
		h.copyTruncate("app.log", "app.log.1")
		r.compress(1)
	case 4:
		if r.kept > 0 {
			r.compress(1 + r.rnd.IntN(r.kept))
		}
	}
}

func (r *rotator) shift() {
	for i := r.kept; i > 0; i-- {
		for _, ext := range []string{"", ".gz"} {
			if _, err := os.Stat(r.h.path(fmt.Sprintf("app.log.%d%s", i, ext))); err == nil {
				r.h.rename(fmt.Sprintf("app.log.%d%s", i, ext), fmt.Sprintf("app.log.%d%s", i+1, ext))
			}
		}
	}
	r.kept++
}

func (r *rotator) compress(i int) {
	if name := r.h.path(fmt.Sprintf("app.log.%d", i)); exists(name) {
		run(r.h.t, "gzip "+name)
	}
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// TestKilled is what this package promises: a collector that is killed at any
// moment, again and again, while a log is written and rotated, has every line
// exactly once in the end.
func TestKilled(t *testing.T) {
	kills := 60
	if testing.Short() {
		kills = 10
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	h := newHost(t)
	kept := filepath.Join(t.TempDir(), "kept")
	w := &rotator{h: h, rnd: rand.New(rand.NewPCG(seed, 1))}
	died := 0
	var child *exec.Cmd
	ended := make(chan error, 1)
	start := func() {
		child = exec.Command(os.Args[0], kept)
		child.Env = append(os.Environ(), childEnv+"="+h.path("app.log"))
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		c := child
		go func() { ended <- c.Wait() }()
	}
	start()
	defer func() {
		child.Process.Kill()
		<-ended
	}()
	for died < kills {
		timeout := time.After(time.Duration(30+w.rnd.IntN(200)) * time.Millisecond)
		for alive := true; alive; {
			w.step()
			select {
			case <-ended:
				alive = false
			case <-timeout:
				child.Process.Kill()
				<-ended
				alive = false
			default:
			}
		}
		died++
		start()
	}
	msg := ""
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		select {
		case <-ended: // the sink fails also without anybody's doing
			start()
		default:
		}
		if msg = checkNumbers(keptLines(t, kept), w.next); msg == "" {
			break
		}
	}
	if msg != "" {
		out, _ := exec.Command("ls", "-lai", "--full-time", h.dir).CombinedOutput()
		t.Logf("%s", out)
		if s, err := openFileSink(kept); err == nil {
			for k, c := range s.cursors {
				t.Logf("%s %s", k, c)
			}
		}
		t.Fatalf("after %d kills and %d rotations: %s", died, w.kept, msg)
	}
	t.Logf("%d kills, %d rotations, %d lines", died, w.kept, w.next)
}

func keptLines(t *testing.T, kept string) []string {
	t.Helper()
	f, err := os.Open(kept)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []string
	if _, err := readFrames(f, func(list []frame) {
		for _, fr := range list {
			for _, l := range fr.Lines {
				lines = append(lines, string(l))
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	return lines
}
