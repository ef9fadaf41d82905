// Command store measures the log store: appends with their fsync, taking in
// files of lines, snapshots of stores with many segments, verification.
//
//	go run ./bench/logs/store [-dir DIR] FILE…
//
// DIR is on the disk that is to be measured, and is removed afterwards.
package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/logs/event"
	"github.com/mobileops/mobileops/internal/logs/store"
	"github.com/mobileops/mobileops/internal/state"
)

type signer struct{ ed25519.PrivateKey }

func (s signer) SigningKey(context.Context) (ed25519.PrivateKey, error) { return s.PrivateKey, nil }

func main() {
	under := flag.String("dir", "", "where to put the stores; empty: the temporary directory")
	flag.Parse()
	if err := run(*under, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(under string, files []string) error {
	dir, err := os.MkdirTemp(under, "store")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := appends(filepath.Join(dir, "appends")); err != nil {
		return err
	}
	for _, n := range []int{500, 5000} {
		if err := snapshots(filepath.Join(dir, fmt.Sprint("snapshots", n)), n); err != nil {
			return err
		}
	}
	if len(files) == 0 {
		return nil
	}
	return ingest(filepath.Join(dir, "ingest"), files)
}

func open(dir string) (*store.Store, *store.Writer, error) {
	s, err := store.Open(store.Options{
		Dir: filepath.Join(dir, "logs"), State: state.New(dir, state.Options{}),
		Signer: signer{ed25519.NewKeyFromSeed(make([]byte, 32))},
	})
	if err != nil {
		return nil, nil, err
	}
	w, err := s.Writer(context.Background())
	return s, w, err
}

func batch(source string, n int) store.Batch {
	b := store.Batch{Key: source, Origin: event.Origin{Source: source}, Cursor: []byte("position")}
	for i := range n {
		b.Records = append(b.Records, event.Record{Time: time.Now().UnixNano(), Raw: fmt.Appendf(nil, "%s: connection %d from 10.0.%d.%d closed after some time by the other side", source, i, i/256, i%256)})
	}
	return b
}

func appends(dir string) error {
	ctx := context.Background()
	_, w, err := open(dir)
	if err != nil {
		return err
	}
	for _, n := range []int{1, 100, 10_000} {
		b := []store.Batch{batch("source", n)}
		count := 0
		begin := time.Now()
		for time.Since(begin) < 2*time.Second {
			if err := w.Append(ctx, b); err != nil {
				return err
			}
			count++
		}
		took := time.Since(begin)
		fmt.Printf("append of %5d records: %6.0f a second, %9.0f records a second\n", n, float64(count)/took.Seconds(), float64(count*n)/took.Seconds())
	}
	return w.Close()
}

func snapshots(dir string, n int) error {
	ctx := context.Background()
	s, w, err := open(dir)
	if err != nil {
		return err
	}
	defer w.Close()
	var batches []store.Batch
	for i := range n {
		batches = append(batches, batch(fmt.Sprintf("/var/log/source%04d.log", i), 20))
	}
	if err := w.Append(ctx, batches); err != nil {
		return err
	}
	begin := time.Now()
	if err := w.Flush(ctx); err != nil {
		return err
	}
	fmt.Printf("flush to %d segments: %v\n", n, time.Since(begin).Round(time.Millisecond))
	if err := w.Append(ctx, batches[:1]); err != nil {
		return err
	}
	var took []time.Duration
	for range 200 {
		begin := time.Now()
		snap, err := s.Snapshot(ctx, store.Everything())
		if err != nil {
			return err
		}
		took = append(took, time.Since(begin))
		snap.Close()
	}
	slices.Sort(took)
	fmt.Printf("snapshot of %d segments: median %v, worst of 200 %v\n", n, took[100].Round(time.Microsecond), took[199].Round(time.Microsecond))
	return nil
}

func ingest(dir string, files []string) error {
	ctx := context.Background()
	s, w, err := open(dir)
	if err != nil {
		return err
	}
	begin := time.Now()
	var raw int64
	for _, path := range files {
		n, err := ingestFile(ctx, w, path)
		if err != nil {
			return err
		}
		raw += n
	}
	if err := w.Flush(ctx); err != nil {
		return err
	}
	took := time.Since(begin)
	fmt.Printf("ingest of %d MB: %v, %.0f MB/s with all processors\n", raw/1e6, took.Round(time.Millisecond), float64(raw)/1e6/took.Seconds())
	begin = time.Now()
	r, err := s.Verify(ctx, store.VerifyOptions{})
	if err != nil {
		return err
	}
	took = time.Since(begin)
	fmt.Printf("verify of %d segments, %d MB: %v, %d problems\n", r.Segments, r.Bytes/1e6, took.Round(time.Millisecond), len(r.Problems))
	begin = time.Now()
	rot, err := s.Rotate(ctx, store.Policy{})
	if err != nil {
		return err
	}
	fmt.Printf("merge of %d: %v\n", len(rot.Merged), time.Since(begin).Round(time.Millisecond))
	return w.Close()
}

func ingestFile(ctx context.Context, w *store.Writer, path string) (raw int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := store.Batch{Key: path, Origin: event.Origin{Source: path}, Cursor: []byte("position")}
	at := time.Now().Add(-time.Hour).UnixNano()
	var room []byte
	size := 0
	send := func() error {
		err := w.Append(ctx, []store.Batch{b})
		b.Records, room, size = b.Records[:0], room[:0], 0
		return err
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 1<<20), 1<<20)
	for lines.Scan() {
		from := len(room)
		room = append(room, lines.Bytes()...)
		at += 1000
		b.Records = append(b.Records, event.Record{Time: at, Raw: room[from:len(room):len(room)]})
		size += len(lines.Bytes()) + 1
		raw += int64(len(lines.Bytes()) + 1)
		if size > 1<<20 {
			if err := send(); err != nil {
				return raw, err
			}
		}
	}
	if err := lines.Err(); err != nil {
		return raw, err
	}
	return raw, send()
}
