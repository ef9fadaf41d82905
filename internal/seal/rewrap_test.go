package seal

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// sealedFile writes a sealed file and returns its path.
func sealedFile(t *testing.T, data []byte, to ...Recipient) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "object")
	if err := os.WriteFile(path, sealed(t, data, testContext, to...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func fixedDigest(t *testing.T, b []byte) [32]byte {
	t.Helper()
	r, err := Fixed(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(all)
}

func TestRewrap(t *testing.T) {
	old, k := key(t, 1), key(t, 2)
	to, ids := ageKeys(t)
	data := random(2*SegmentSize+99, 1)
	path := sealedFile(t, data, old)
	before := readFile(t, path)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	reading, err := Open(f, int64(len(before)), testContext, []Identity{old})
	if err != nil {
		t.Fatal(err)
	}
	if err := Rewrap(path, []Identity{key(t, 9), old}, append(to, k)); err != nil {
		t.Fatal(err)
	}
	after := readFile(t, path)
	if !bytes.Equal(after[12288:], before[12288:]) || !bytes.Equal(after[:4096], before[:4096]) {
		t.Error("more than the slots was changed")
	}
	if fixedDigest(t, before) != fixedDigest(t, after) {
		t.Error("the digest of what is fixed was changed")
	}
	if bytes.Contains(after[:12288], before[4096+24:4096+24+60]) {
		t.Error("the stanza of the old key is still there")
	}
	if _, err := open(after, testContext, old); !errors.Is(err, ErrNoKey) {
		t.Errorf("the old key: %v", err)
	}
	for _, id := range append(ids, k) {
		if got, err := content(after, testContext, id); err != nil || !bytes.Equal(got, data) {
			t.Errorf("the new key %T: %v", id, err)
		}
	}
	if got, err := io.ReadAll(reading.NewReader(testCtx)); err != nil || !bytes.Equal(got, data) {
		t.Errorf("who had it open: %v", err)
	}
	// The documentation says so: an old header still opens the payload.
	if got, err := content(append(slices.Clone(before[:12288]), after[12288:]...), testContext, old); err != nil || !bytes.Equal(got, data) {
		t.Errorf("an old header put back: %v", err)
	}
	h, err := readHeader(bytes.NewReader(after), int64(len(after)), ids, false)
	if err != nil || h.sequence != 2 {
		t.Errorf("sequence %d, %v; want 2", h.sequence, err)
	}
}

func TestRewrapRefuses(t *testing.T) {
	k := key(t, 1)
	path := sealedFile(t, []byte("content"), k)
	before := readFile(t, path)
	many := slices.Repeat([]Recipient{k}, 57) // 56 stanzas of 72 bytes fit into 4 KiB
	for name, tc := range map[string]struct {
		err  error
		kind failure.Kind
	}{
		"nobody":    {Rewrap(path, []Identity{k}, nil), failure.Usage},
		"no room":   {Rewrap(path, []Identity{k}, many), failure.Usage},
		"stranger":  {Rewrap(path, []Identity{key(t, 2)}, []Recipient{k}), failure.NotAllowed},
		"directory": {Rewrap(filepath.Dir(path), []Identity{k}, []Recipient{k}), failure.Failed},
		"device":    {Rewrap("/dev/null", []Identity{k}, []Recipient{k}), failure.Usage},
	} {
		if tc.err == nil || failure.KindOf(tc.err) != tc.kind {
			t.Errorf("%s: %v; want kind %d", name, tc.err, tc.kind)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := Rewrap(path, []Identity{k}, []Recipient{k}); !errors.Is(err, ErrBusy) || failure.KindOf(err) != failure.Busy {
		t.Errorf("a second rewrap: %v", err)
	}
	if !bytes.Equal(readFile(t, path), before) {
		t.Error("a refused rewrap has changed the file")
	}
	// Room that was asked for is there.
	var b bytes.Buffer
	w, err := NewWriter(&b, testContext, []Recipient{k}, Options{Keys: 64})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+"2", b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Rewrap(path+"2", []Identity{k}, append(many, many[:7]...)); err != nil {
		t.Error(err)
	}
}

func TestRewrapMendsADamagedCopy(t *testing.T) {
	k, l := key(t, 1), key(t, 2)
	for _, at := range []int{fixedSize, fixedSize + 100, 4096, 4096 + 50, 8191, 8192 + 30, 12287} {
		path := sealedFile(t, []byte("content"), k)
		b := readFile(t, path)
		b[at] ^= 4
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := open(b, testContext, k)
		wantCorrupt(t, fmt.Sprintf("byte %d", at), err)
		if err := Rewrap(path, []Identity{k}, []Recipient{l}); err != nil {
			t.Errorf("byte %d: %v", at, err)
		}
		if got, err := content(readFile(t, path), testContext, l); err != nil || string(got) != "content" {
			t.Errorf("byte %d, mended: %v", at, err)
		}
	}
}

// disk is a file of which one can see every state that a crash may leave: each
// write is torn into sectors, of which any may have reached the disk until the
// next Sync.
type disk struct {
	b       []byte
	pending []write
	crash   func(b []byte, pending []write)
}

type write struct {
	at   int
	data []byte
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(d.b).ReadAt(p, off) }

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	total := len(p)
	for at := int(off); len(p) > 0; {
		n := min(len(p), 512-at%512)
		d.pending = append(d.pending, write{at, slices.Clone(p[:n])})
		p, at = p[n:], at+n
	}
	return total, nil
}

func (d *disk) Sync() error {
	d.crash(d.b, d.pending)
	for _, w := range d.pending {
		copy(d.b[w.at:], w.data)
	}
	d.pending = nil
	d.crash(d.b, nil)
	return nil
}

func TestRewrapSurvivesPowerCuts(t *testing.T) {
	k, l := key(t, 1), key(t, 2)
	states := 0
	rnd := rand.New(rand.NewPCG(1, 2))
	check := func(b []byte) {
		states++
		o, err := open(b, testContext, k, l)
		if err != nil {
			t.Fatalf("state %d does not open: %v", states, err)
		}
		got := make([]byte, 7)
		if _, err := o.ReadAt(got, 0); err != nil || string(got) != "content" {
			t.Fatalf("state %d: %q, %v", states, got, err)
		}
		// Called again, it finishes, and can be interrupted again.
		again := &disk{b: slices.Clone(b), crash: func(b []byte, pending []write) {
			for keep := range 3 { // nothing, every second sector, all of it is on the disk
				torn := slices.Clone(b)
				for i, w := range pending {
					if keep == 2 || keep == 1 && i%2 == 0 {
						copy(torn[w.at:], w.data)
					}
				}
				if _, err := open(torn, testContext, k, l); err != nil {
					t.Fatalf("state %d, interrupted again: %v", states, err)
				}
			}
		}}
		if err := rewrap(again, int64(len(b)), []Identity{k, l}, []Recipient{l}); err != nil {
			t.Fatalf("state %d: again: %v", states, err)
		}
		if o, err := open(again.b, testContext, l); err != nil || o.Interrupted() {
			t.Fatalf("state %d: after that: %v", states, err)
		}
		if _, err := open(again.b, testContext, k); !errors.Is(err, ErrNoKey) {
			t.Fatalf("state %d: after that, the old key: %v", states, err)
		}
	}
	d := &disk{b: sealed(t, []byte("content"), testContext, k)}
	d.crash = func(b []byte, pending []write) {
		check(b)
		for range 40 {
			torn := slices.Clone(b)
			for _, w := range pending {
				if rnd.IntN(2) == 0 {
					copy(torn[w.at:], w.data)
				}
			}
			check(torn)
		}
		for n := range pending { // in order, and the last sector in part
			torn := slices.Clone(b)
			for i, w := range pending[:n+1] {
				if i == n && len(pending) > 1 {
					w.data = w.data[:rnd.IntN(len(w.data))]
				}
				copy(torn[w.at:], w.data)
			}
			check(torn)
		}
	}
	if err := rewrap(d, int64(len(d.b)), []Identity{k}, []Recipient{l}); err != nil {
		t.Fatal(err)
	}
	check(d.b)
	if states < 200 {
		t.Errorf("only %d states were tried", states)
	}
}

// TestAHeaderReadInTwoMoments reads the state before a rewrap begins and the
// slots when one of them was renewed.
func TestAHeaderReadInTwoMoments(t *testing.T) {
	k, l := key(t, 1), key(t, 2)
	before := sealed(t, []byte("content"), testContext, k)
	var between []byte
	d := &disk{b: slices.Clone(before)}
	syncs := 0
	d.crash = func(b []byte, pending []write) {
		if pending == nil {
			if syncs++; syncs == 2 {
				between = slices.Clone(b)
			}
		}
	}
	if err := rewrap(d, int64(len(before)), []Identity{k}, []Recipient{l}); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(between[4096:8192], between[8192:12288]) {
		t.Fatal("this is not the middle of a rewrap")
	}
	r := &twoMoments{first: before, then: between}
	if o, err := Open(r, int64(len(before)), testContext, []Identity{k, l}); err != nil || !o.Interrupted() {
		t.Errorf("%v", err)
	}
}

// twoMoments is a file that changes after the first read.
type twoMoments struct{ first, then []byte }

func (r *twoMoments) ReadAt(p []byte, off int64) (int, error) {
	b := r.first
	r.first = r.then
	return bytes.NewReader(b).ReadAt(p, off)
}

// TestMain is the process that the next test kills, when it is called so.
func TestMain(m *testing.M) {
	if path := os.Getenv("SEAL_TEST_REWRAP"); path != "" {
		rewrapForEver(path)
	}
	os.Exit(m.Run())
}

func rewrapForEver(path string) {
	var keys []*Key
	for _, name := range []string{"a.key", "b.key"} {
		k, err := KeyFile(filepath.Join(filepath.Dir(path), name))
		if err != nil {
			panic(err)
		}
		keys = append(keys, k)
	}
	for i := 0; ; i++ {
		if err := Rewrap(path, []Identity{keys[0], keys[1]}, []Recipient{keys[i%2]}); err != nil {
			panic(err)
		}
		fmt.Println(i)
	}
}

func TestRewrapSurvivesKill(t *testing.T) {
	data := random(SegmentSize+5, 1)
	dir := t.TempDir()
	path := filepath.Join(dir, "object")
	a, err := GenerateKeyFile(filepath.Join(dir, "a.key"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := GenerateKeyFile(filepath.Join(dir, "b.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, sealed(t, data, testContext, a), 0o600); err != nil {
		t.Fatal(err)
	}
	interrupted := 0
	const rounds = 100
	for round := 0; round < rounds || interrupted == 0 && round < 10*rounds; round++ {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SEAL_TEST_REWRAP="+path)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_, rerr := out.Read(make([]byte, 1)) // it has done one
		time.Sleep(time.Duration(rand.IntN(4000)) * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if rerr != nil {
			t.Fatalf("round %d: it never came to rewrapping: %v\n%s", round, rerr, stderr.String())
		}
		file := readFile(t, path)
		o, err := open(file, testContext, a, b)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if o.Interrupted() {
			interrupted++
		}
		if got, err := io.ReadAll(o.NewReader(testCtx)); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("round %d: the content is another: %v", round, err)
		}
		from, to := a, b
		if round%2 == 1 {
			from, to = b, a
		}
		if round%10 == 0 {
			if err := Rewrap(path, []Identity{a, b}, []Recipient{to}); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			file = readFile(t, path)
			if _, err := open(file, testContext, to); err != nil {
				t.Fatalf("round %d: the new key: %v", round, err)
			}
			if _, err := open(file, testContext, from); !errors.Is(err, ErrNoKey) {
				t.Fatalf("round %d: the old key: %v", round, err)
			}
		}
	}
	t.Logf("%d kills were in the middle of a rewrap", interrupted)
	if interrupted == 0 {
		t.Error("no kill was in the middle of a rewrap: this shows nothing")
	}
}

// TestReadersWhileRewrapping opens a file again and again while it is
// rewrapped: a reader with both keys is never refused.
func TestReadersWhileRewrapping(t *testing.T) {
	a, b := key(t, 1), key(t, 2)
	path := sealedFile(t, []byte("content"), a)
	const enough = 100 // of both
	var opened atomic.Int64
	done := make(chan error, 1)
	go func() {
		for i := 0; i < enough || opened.Load() < enough; i++ {
			if err := Rewrap(path, []Identity{a, b}, []Recipient{[]*Key{a, b}[i%2]}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	for ended := false; !ended; {
		select {
		case err := <-done:
			if ended = true; err != nil {
				t.Error(err)
			}
		default:
			if _, err := Open(f, st.Size(), testContext, []Identity{a, b}); err != nil {
				t.Fatalf("opened %d times, then: %v", opened.Load(), err)
			}
			opened.Add(1)
		}
	}
}
