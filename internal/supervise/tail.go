package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxLogFiles = 100                    // that are looked for
	tailBlock   = 64 << 10               // read at a time
	tailLine    = MaxLine + 256          // a longer line is not ours, and is cut
	tailPoll    = 250 * time.Millisecond // between looks at a file that does not grow
)

// TailLog gives the last lines of a log, and, with follow, those that come,
// until ctx is done. It goes on in the next file when the log is rotated; when
// it was so slow that files are gone, a line of the stream Remark says so.
// Nobody waits for it. A log that is not there yet has no lines.
//
// The log is that of path ("…/NAME.log"), whether a supervisor runs or not.
func TailLog(ctx context.Context, path string, lines int, follow bool) iter.Seq2[Line, error] {
	return tailLog(ctx, path, lines, follow, nil)
}

// tailLog is TailLog with a function that tells when it is worth looking.
func tailLog(ctx context.Context, path string, lines int, follow bool, wake func() <-chan struct{}) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		t := &tailer{path: path, yield: yield}
		defer t.close()
		files, err := openLast(path, lines)
		if err != nil {
			yield(Line{}, err)
			return
		}
		for i, f := range files {
			t.close()
			t.f, t.rest = f, t.rest[:0]
			if !t.drain(ctx) {
				for _, other := range files[i+1:] {
					other.Close()
				}
				return
			}
		}
		for follow {
			var woken <-chan struct{}
			if wake != nil {
				woken = wake()
			}
			moved, ok := t.step(ctx)
			if !ok {
				return
			}
			if moved {
				continue
			}
			select {
			case <-ctx.Done():
				return
			case <-woken:
			case <-time.After(tailPoll):
			}
		}
	}
}

// openLast opens the files that have the last lines, from the oldest to the
// newest, each at the first byte that is wanted.
func openLast(path string, lines int) ([]*os.File, error) {
	var files []*os.File
	var seen []os.FileInfo
	fail := func(err error) ([]*os.File, error) {
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	for back := 0; back < maxLogFiles && (lines > 0 || back == 0); back++ {
		f, err := openLog(logName(path, back))
		if errors.Is(err, os.ErrNotExist) {
			if back == 0 {
				continue // just being rotated
			}
			break
		}
		if err != nil {
			return fail(err)
		}
		st, err := f.Stat()
		if err != nil {
			f.Close()
			return fail(err)
		}
		if len(seen) > 0 && os.SameFile(seen[len(seen)-1], st) {
			f.Close() // rotated meanwhile
			continue
		}
		offset, found, err := lastLines(f, st.Size(), lines)
		if err == nil {
			_, err = f.Seek(offset, io.SeekStart)
		}
		if err != nil {
			f.Close()
			return fail(err)
		}
		lines -= found
		seen = append(seen, st)
		files = append([]*os.File{f}, files...)
	}
	return files, nil
}

func openLog(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

// lastLines returns where the last n whole lines of a file begin, and how many
// there are.
func lastLines(f io.ReaderAt, size int64, n int) (offset int64, found int, err error) {
	buf := make([]byte, tailBlock)
	end := int64(-1) // of the last whole line
	for at := size; at > 0; {
		block := buf[:min(at, tailBlock)]
		at -= int64(len(block))
		if _, err := f.ReadAt(block, at); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		for i := len(block) - 1; i >= 0; i-- {
			if block[i] != '\n' {
				continue
			}
			if end < 0 {
				end = at + int64(i) + 1
			} else {
				found++
			}
			if found == n {
				return at + int64(i) + 1, n, nil
			}
		}
	}
	if end >= 0 {
		found++
	}
	return 0, found, nil
}

// tailer reads one file after the other.
type tailer struct {
	path  string
	f     *os.File // nil: none was there yet
	rest  []byte   // the beginning of a line
	yield func(Line, error) bool
}

func (t *tailer) close() {
	if t.f != nil {
		t.f.Close()
	}
}

// drain gives every whole line up to the end of the file, and reports whether
// to go on.
func (t *tailer) drain(ctx context.Context) bool {
	buf := make([]byte, tailBlock)
	for ctx.Err() == nil {
		n, err := t.f.Read(buf)
		if n > 0 {
			t.rest = append(t.rest, buf[:n]...)
			if !t.lines() {
				return false
			}
		}
		if errors.Is(err, io.EOF) {
			return true
		}
		if err != nil {
			t.yield(Line{}, err)
			return false
		}
	}
	return false
}

// lines gives the whole lines that were read.
func (t *tailer) lines() bool {
	data := t.rest
	for {
		i := bytes.IndexByte(data, '\n')
		text := data
		switch {
		case i >= 0:
			text, data = data[:i], data[i+1:]
		case len(data) > tailLine:
			data = nil
		default:
			t.rest = append(t.rest[:0], data...)
			return true
		}
		if !t.yield(ParseLine(text), nil) {
			return false
		}
	}
}

// step looks for more: at the end of this file, and in the next one when this
// one was renamed. It reports whether there may be still more, and whether to
// go on.
func (t *tailer) step(ctx context.Context) (moved, ok bool) {
	now, err := os.Lstat(t.path)
	if errors.Is(err, os.ErrNotExist) { // between two names, or not there yet
		return false, t.f == nil || t.drain(ctx)
	}
	var mine os.FileInfo
	if err == nil && t.f != nil {
		mine, err = t.f.Stat()
	}
	if err != nil {
		t.yield(Line{}, err)
		return false, false
	}
	if mine != nil && os.SameFile(mine, now) {
		if at, err := t.f.Seek(0, io.SeekCurrent); err == nil && at > mine.Size() {
			t.rest = nil
			_, _ = t.f.Seek(0, io.SeekStart) // somebody emptied it
		}
		return false, t.drain(ctx)
	}
	// This one was renamed after its last line was written.
	if t.f != nil && !t.drain(ctx) {
		return false, false
	}
	next, gap, err := t.next(ctx, mine)
	if err != nil {
		t.yield(Line{}, err)
		return false, false
	}
	if next == nil {
		return false, true
	}
	t.close()
	t.f, t.rest = next, nil
	if gap {
		text := fmt.Sprintf("lines are missing here: they came faster than they were read, and %s was rotated away", t.path)
		if !t.yield(Line{Time: time.Now(), Stream: Remark, Text: []byte(text)}, nil) {
			return false, false
		}
	}
	return true, t.drain(ctx)
}

// next opens the file that was begun after mine, and reports whether some
// between them are gone. Without mine it is the oldest. There is none while the
// log is being rotated.
func (t *tailer) next(ctx context.Context, mine os.FileInfo) (next *os.File, gap bool, err error) {
	for range 5 {
		next, last, err := t.after(mine)
		if err != nil || next != nil || last {
			return next, false, err
		}
		select { // files have no names while they are renamed
		case <-ctx.Done():
			return nil, false, nil
		case <-time.After(20 * time.Millisecond):
		}
	}
	next, _, err = t.after(nil)
	return next, true, err
}

// after opens the file after mine, or reports that mine is the last. The oldest
// comes after none.
func (t *tailer) after(mine os.FileInfo) (next *os.File, last bool, err error) {
	for back, missing := 0, 0; back < maxLogFiles && missing < 2; back++ {
		f, err := openLog(logName(t.path, back))
		if errors.Is(err, os.ErrNotExist) {
			missing++
			continue
		}
		var st os.FileInfo
		if err == nil {
			st, err = f.Stat()
		}
		if err != nil {
			if next != nil {
				next.Close()
			}
			return nil, false, err
		}
		if mine != nil && os.SameFile(mine, st) {
			f.Close()
			return next, next == nil, nil
		}
		if next != nil {
			next.Close()
		}
		next = f
	}
	if mine == nil {
		return next, false, nil
	}
	if next != nil {
		next.Close()
	}
	return nil, false, nil
}
