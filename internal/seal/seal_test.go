package seal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

const testContext = "test object 1"

// key returns the key of a key file that is always the same for n.
func key(t testing.TB, n byte) *Key {
	t.Helper()
	secret := sha256.Sum256([]byte{n})
	k, err := newKey(secret[:])
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// random returns n bytes that are always the same for a seed.
func random(n int, seed byte) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// sealed returns data as a sealed file for keys.
func sealed(t testing.TB, data []byte, context string, to ...Recipient) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, context, to, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func open(b []byte, context string, ids ...Identity) (*Object, error) {
	return Open(bytes.NewReader(b), int64(len(b)), context, ids)
}

// content opens b and returns all of its plaintext, or the error of whatever
// failed first.
func content(b []byte, context string, ids ...Identity) ([]byte, error) {
	o, err := open(b, context, ids...)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(o.NewReader(testCtx))
}

var testCtx = context.Background()

func wantCorrupt(t *testing.T, what string, err error) {
	t.Helper()
	var c *CorruptError
	if !errors.As(err, &c) || !errors.Is(err, ErrCorrupt) || failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("%s: %v; want a CorruptError", what, err)
	}
}

func TestRoundTrip(t *testing.T) {
	k := key(t, 1)
	for _, size := range []int{0, 1, 4095, SegmentSize - 1, SegmentSize, SegmentSize + 1, 2*SegmentSize - 1, 2 * SegmentSize, 4*SegmentSize + 12345} {
		data := random(size, byte(size))
		for _, workers := range []int{0, 1} {
			for name, write := range map[string]func(*Writer) error{
				"Write":    func(w *Writer) error { _, err := w.Write(data); return err },
				"ReadFrom": func(w *Writer) error { _, err := io.Copy(w, bytes.NewReader(data)); return err },
				"pieces": func(w *Writer) error {
					for rest := data; len(rest) > 0; {
						n := min(len(rest), 333_333)
						if n, err := w.Write(rest[:n]); err != nil {
							return fmt.Errorf("%d: %w", n, err)
						}
						rest = rest[n:]
					}
					return nil
				},
				"halves": func(w *Writer) error {
					if _, err := w.Write(data[:size/2]); err != nil {
						return err
					}
					n, err := w.ReadFrom(iotest.DataErrReader(iotest.HalfReader(bytes.NewReader(data[size/2:]))))
					if err == nil && n != int64(size-size/2) {
						err = fmt.Errorf("%d bytes read", n)
					}
					return err
				},
			} {
				var b bytes.Buffer
				w, err := NewWriter(&b, testContext, []Recipient{k}, Options{Workers: workers})
				if err != nil {
					t.Fatal(err)
				}
				if err := write(w); err != nil {
					t.Fatalf("%d bytes, %s: %v", size, name, err)
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				o, err := open(b.Bytes(), testContext, k)
				if err != nil {
					t.Fatalf("%d bytes, %s: %v", size, name, err)
				}
				if o.Size() != int64(size) || o.Interrupted() {
					t.Errorf("%d bytes, %s: size %d, interrupted %v", size, name, o.Size(), o.Interrupted())
				}
				if segments := max(1, (size+SegmentSize-1)/SegmentSize); b.Len() != 12288+size+16*segments {
					t.Errorf("%d bytes, %s: the file has %d", size, name, b.Len())
				}
				if err := o.Verify(testCtx); err != nil {
					t.Errorf("%d bytes, %s: verify: %v", size, name, err)
				}
				got, err := io.ReadAll(io.NewSectionReader(o, 0, o.Size()))
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes, %s: ReadAt gives something else: %v", size, name, err)
				}
				got, err = io.ReadAll(iotest.OneByteReader(io.LimitReader(o.NewReader(testCtx), 3)))
				if err != nil || !bytes.Equal(got, data[:min(3, size)]) {
					t.Errorf("%d bytes, %s: Reader gives something else: %v", size, name, err)
				}
				var out bytes.Buffer
				if n, err := io.Copy(&out, o.NewReader(testCtx)); n != int64(size) || err != nil || !bytes.Equal(out.Bytes(), data) {
					t.Errorf("%d bytes, %s: WriteTo gives something else: %v", size, name, err)
				}
			}
		}
	}
}

func TestNothingOfThePlaintextIsInTheFile(t *testing.T) {
	data := bytes.Repeat([]byte("a line that must not be seen\n"), 100_000)
	b := sealed(t, data, testContext, key(t, 1))
	if bytes.Contains(b, data[:8]) {
		t.Error("plaintext is in the sealed file")
	}
	if !IsSealed(b[:16]) || IsSealed(b[:15]) || IsSealed(data) {
		t.Error("IsSealed is wrong")
	}
	if again := sealed(t, data, testContext, key(t, 1)); bytes.Equal(again[12288:12400], b[12288:12400]) {
		t.Error("the same content is sealed to the same bytes")
	}
}

// TestReadAt compares random reads, many at once, with those of the plaintext.
func TestReadAt(t *testing.T) {
	data := random(9*SegmentSize+777, 3)
	plain := bytes.NewReader(data)
	k := key(t, 1)
	o, err := open(sealed(t, data, testContext, k), testContext, k)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for seed := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(seed), 1))
			for range 60 {
				n := rnd.IntN(3000)
				switch rnd.IntN(8) {
				case 0:
					n = rnd.IntN(4 * SegmentSize)
				case 1:
					n = 0
				}
				off := rnd.Int64N(int64(len(data)) + 1000)
				switch rnd.IntN(4) {
				case 0:
					off = off / SegmentSize * SegmentSize
				case 1:
					off = max(0, off/SegmentSize*SegmentSize-rnd.Int64N(3000))
				}
				got, want := make([]byte, n), make([]byte, n)
				gn, gerr := o.ReadAt(got, off)
				wn, werr := plain.ReadAt(want, off)
				if n == 0 {
					werr = nil // bytes.Reader says io.EOF for nothing at the end; io.ReaderAt allows both
				}
				if gn != wn || gerr != werr || !bytes.Equal(got, want) {
					t.Errorf("ReadAt(%d bytes, %d) = %d, %v; want %d, %v", n, off, gn, gerr, wn, werr)
				}
			}
		})
	}
	wg.Wait()
	if n := len(o.cache.entries); n > cacheSize {
		t.Errorf("%d segments are kept", n)
	}
	for _, e := range o.cache.entries {
		if e.users != 0 {
			t.Errorf("segment %d has %d users", e.index, e.users)
		}
	}
	if _, err := o.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("a read before the beginning")
	}
}

// counting counts the bytes that are read through it.
type counting struct {
	io.ReaderAt
	mu sync.Mutex
	n  int64
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	c.n += int64(len(p))
	c.mu.Unlock()
	return c.ReaderAt.ReadAt(p, off)
}

func TestReadAtTouchesOnlyWhatIsAskedFor(t *testing.T) {
	data := random(8*SegmentSize, 4)
	k := key(t, 1)
	b := sealed(t, data, testContext, k)
	c := &counting{ReaderAt: bytes.NewReader(b)}
	o, err := Open(c, int64(len(b)), testContext, []Identity{k})
	if err != nil {
		t.Fatal(err)
	}
	if c.n > SegmentSize+20_000 {
		t.Errorf("Open read %d bytes", c.n)
	}
	c.n = 0
	for i := range 1000 {
		if _, err := o.ReadAt(make([]byte, 100), 3*SegmentSize+int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if c.n != SegmentSize+16 {
		t.Errorf("a thousand reads in one segment read %d bytes", c.n)
	}
}

// flaky fails once.
type flaky struct {
	io.ReaderAt
	fail atomic.Bool
}

func (f *flaky) ReadAt(p []byte, off int64) (int, error) {
	if f.fail.CompareAndSwap(true, false) {
		return 0, fs.ErrPermission
	}
	return f.ReaderAt.ReadAt(p, off)
}

func TestAFailureOfTheDiskIsNotDamage(t *testing.T) {
	before := runtime.NumGoroutine()
	data := random(3*SegmentSize, 5)
	k := key(t, 1)
	b := sealed(t, data, testContext, k)
	f := &flaky{ReaderAt: bytes.NewReader(b)}
	f.fail.Store(true)
	if _, err := Open(f, int64(len(b)), testContext, []Identity{k}); !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrCorrupt) {
		t.Errorf("Open: %v", err)
	}
	o, err := Open(f, int64(len(b)), testContext, []Identity{k})
	if err != nil {
		t.Fatal(err)
	}
	for _, read := range []func() error{
		func() error { _, err := o.ReadAt(make([]byte, 10), 10); return err },
		func() error { _, err := o.ReadAt(make([]byte, SegmentSize), SegmentSize); return err },
		func() error { _, err := io.ReadAll(o.NewReader(testCtx)); return err },
		func() error { return o.Verify(testCtx) },
	} {
		f.fail.Store(true)
		if err := read(); !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrCorrupt) {
			t.Errorf("read: %v", err)
		}
		settle(t, before) // what was read ahead is not what fails next
		if err := read(); err != nil {
			t.Errorf("read again: %v", err)
		}
	}
}

// failing is a writer that fails after so many bytes.
type failing struct{ left int }

func (f *failing) Write(p []byte) (int, error) {
	if len(p) > f.left {
		return 0, io.ErrClosedPipe
	}
	f.left -= len(p)
	return len(p), nil
}

// settle waits until there are no more goroutines than before.
func settle(t *testing.T, before int) {
	t.Helper()
	for range 6000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines; %d before", runtime.NumGoroutine(), before)
}

func TestAWriterThatFails(t *testing.T) {
	before := runtime.NumGoroutine()
	k := key(t, 1)
	data := random(20*SegmentSize, 6)
	if _, err := NewWriter(&failing{1000}, testContext, []Recipient{k}, Options{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("NewWriter: %v", err)
	}
	for _, room := range []int{12288, 12288 + SegmentSize, 12288 + 5*SegmentSize + 100} {
		w, err := NewWriter(&failing{room}, testContext, []Recipient{k}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, werr := w.Write(data)
		err = w.Close()
		if !errors.Is(err, io.ErrClosedPipe) || werr != nil && !errors.Is(werr, io.ErrClosedPipe) {
			t.Errorf("room for %d: Write %v, Close %v", room, werr, err)
		}
		w.Abort()
	}
	w, err := NewWriter(io.Discard, testContext, []Recipient{k}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := w.ReadFrom(io.MultiReader(bytes.NewReader(data), iotest.ErrReader(fs.ErrPermission))); n != int64(len(data)) || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("ReadFrom = %d, %v", n, err)
	}
	w.Abort()
	if _, err := w.Write(data); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Write after Abort: %v", err)
	}
	if err := w.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Close after Abort: %v", err)
	}
	settle(t, before)
}

func TestAnAbortedObjectDoesNotOpen(t *testing.T) {
	k := key(t, 1)
	for _, size := range []int{0, 100, SegmentSize, 3*SegmentSize + 5, 4 * SegmentSize} {
		var b bytes.Buffer
		w, err := NewWriter(&b, testContext, []Recipient{k}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(random(size, 7)); err != nil {
			t.Fatal(err)
		}
		w.Abort()
		_, err = open(b.Bytes(), testContext, k)
		wantCorrupt(t, fmt.Sprintf("%d bytes, aborted", size), err)
	}
}

func TestAReaderEndsWhenItIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	k := key(t, 1)
	o, err := open(sealed(t, random(30*SegmentSize, 8), testContext, k), testContext, k)
	if err != nil {
		t.Fatal(err)
	}
	r := o.NewReader(testCtx)
	if _, err := r.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := r.Read(make([]byte, 10)); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	ctx, cancel := context.WithCancel(testCtx)
	r = o.NewReader(ctx)
	if _, err := r.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.Copy(io.Discard, r); !errors.Is(err, context.Canceled) {
		t.Errorf("Read of a cancelled reader: %v", err)
	}
	if err := o.Verify(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled Verify: %v", err)
	}
	settle(t, before)
}

func TestLimits(t *testing.T) {
	k := key(t, 1)
	for name, err := range map[string]error{
		"long context":  second(NewWriter(io.Discard, string(make([]byte, maxContext+1)), []Recipient{k}, Options{})),
		"nobody":        second(NewWriter(io.Discard, "", nil, Options{})),
		"65 recipients": second(NewWriter(io.Discard, "", slices.Repeat([]Recipient{k}, maxStanzas+1), Options{})),
	} {
		if failure.KindOf(err) != failure.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := string(bytes.Repeat([]byte("é"), maxContext/2))
	if got, err := content(sealed(t, []byte("x"), long, slices.Repeat([]Recipient{k}, maxStanzas)...), long, k); err != nil || string(got) != "x" {
		t.Errorf("at the limits: %q, %v", got, err)
	}
	for _, payload := range []int64{0, 1, 15, SegmentSize + 16 + 1, SegmentSize + 16 + 16, (maxSegments + 1) * (SegmentSize + 16)} {
		if _, _, ok := geometry(payload); ok {
			t.Errorf("a payload of %d bytes", payload)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestTheFormatStays opens an object that the first version wrote, with
// everything that it can have.
func TestTheFormatStays(t *testing.T) {
	path := filepath.Join("testdata", "v1.sealed")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := ParseIdentities(bytes.NewReader([]byte(goldenIdentity)))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range append(ids, key(t, 1)) {
		if got, err := content(b, "golden", id); err != nil || string(got) != "sealed in 2026\n" {
			t.Errorf("%T: %q, %v", id, got, err)
		}
	}
}

const goldenIdentity = "AGE-SECRET-KEY-13GLTA4XR0J7Y330EN7EWHY05ASUMM93V7MT2DQ7JWQPSXYJMTXKSPQP3NV\n" // made for this test
