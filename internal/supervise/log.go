package supervise

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes of a log.
const (
	MaxLine         = 64 << 10 // bytes of text in a line; longer ones are split
	DefaultLogSize  = 10 << 20 // bytes of a file, after which another one is begun
	DefaultLogFiles = 3        // NAME.log, NAME.log.1, NAME.log.2

	ringLines   = 200
	ringBytes   = 256 << 10
	pendingSize = 1 << 20                // bytes that wait for the disk
	patience    = time.Second            // of a service with a disk that takes nothing
	retry       = 500 * time.Millisecond // between attempts to open a log
)

// The streams of a log.
const (
	Stdout = "stdout"
	Stderr = "stderr"
	Remark = "supervisor" // ours: started, ended, lines that are missing
)

// serviceLog keeps what a service prints: in files, and the last lines in
// memory. A service waits for it only as long as the disk takes something;
// lines that find no place are counted and left out.
type serviceLog struct {
	path  string
	size  int64 // of a file
	files int

	mu      sync.Mutex
	pending []byte        // lines as they are written
	room    chan struct{} // closed when pending was taken
	stuck   bool          // nobody waits for room any more
	busy    bool          // something is being written
	ring    []Line
	inRing  int           // bytes
	dropped uint64        // lines, ever
	unsaid  uint64        // of these, since the log last said so
	why     error         // why the last one was dropped
	written chan struct{} // closed when something was written
	ended   bool

	work chan struct{} // there is something pending
	gone chan struct{} // the writer has ended

	// The writer's own.
	f       *os.File
	at      int64 // size of f
	retryAt time.Time
}

func newServiceLog(path string, size int64, files int) *serviceLog {
	l := &serviceLog{
		path: path, size: size, files: files,
		room: make(chan struct{}), written: make(chan struct{}),
		work: make(chan struct{}, 1), gone: make(chan struct{}),
	}
	go l.write()
	return l
}

// copyFrom adds what is read from r, until its end or its deadline.
func (l *serviceLog) copyFrom(stream string, r io.Reader) {
	in := bufio.NewReaderSize(r, MaxLine)
	for {
		text, err := in.ReadSlice('\n')
		switch {
		case err == nil:
			l.add(stream, text[:len(text)-1], false)
		case errors.Is(err, bufio.ErrBufferFull):
			l.add(stream, text, true)
		default:
			if len(text) > 0 {
				l.add(stream, text, false)
			}
			return
		}
	}
}

// remark adds a line of the supervisor itself.
func (l *serviceLog) remark(format string, args ...any) {
	text := fmt.Appendf(nil, format, args...)
	for i, c := range text {
		if c == '\n' {
			text[i] = ' '
		}
	}
	l.add(Remark, text[:min(len(text), MaxLine)], false)
}

// add adds a line. It waits only while the disk is slower than whoever prints.
func (l *serviceLog) add(stream string, text []byte, more bool) {
	line := Line{Time: time.Now(), Stream: stream, More: more, Text: bytes.Clone(text)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring = append(l.ring, line)
	l.inRing += len(text)
	for len(l.ring) > ringLines || l.inRing > ringBytes && len(l.ring) > 1 {
		l.inRing -= len(l.ring[0].Text)
		l.ring[0] = Line{}
		l.ring = l.ring[1:]
	}
	if len(l.pending) > pendingSize && !l.stuck && !l.ended {
		l.await()
	}
	if len(l.pending) > pendingSize {
		l.drop(1, errors.New("the disk is too slow"))
		return
	}
	if l.ended {
		l.drop(1, os.ErrClosed)
		return
	}
	l.pending = line.append(l.pending)
	select {
	case l.work <- struct{}{}:
	default:
	}
}

// await waits until something was written, or until that has taken so long that
// nobody should wait any more. The lock is held, and given up meanwhile.
func (l *serviceLog) await() {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for len(l.pending) > pendingSize && !l.stuck && !l.ended {
		room := l.room
		l.mu.Unlock()
		select {
		case <-room:
			l.mu.Lock()
		case <-timer.C:
			l.mu.Lock()
			l.stuck = len(l.pending) > pendingSize
			return
		}
	}
}

// settle waits until all lines so far are in the file, and for a disk that is
// slow only a moment.
func (l *serviceLog) settle() {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	for (len(l.pending) > 0 || l.busy) && !l.ended {
		written := l.written
		l.mu.Unlock()
		late := false
		select {
		case <-written:
		case <-timer.C:
			late = true
		}
		l.mu.Lock()
		if late {
			return
		}
	}
}

// drop counts lines that are left out. The lock is held.
func (l *serviceLog) drop(lines uint64, why error) {
	l.dropped += lines
	l.unsaid += lines
	l.why = why
}

// last returns the last lines, at most n.
func (l *serviceLog) last(n int) []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Line(nil), l.ring[max(0, len(l.ring)-n):]...)
}

// droppedLines is how many lines are in no file.
func (l *serviceLog) droppedLines() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// wake is closed when something was written after the call.
func (l *serviceLog) wake() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written
}

// close writes what is pending, and waits a moment for a disk that does not
// take it.
func (l *serviceLog) close() {
	l.mu.Lock()
	if !l.ended {
		l.ended = true
		close(l.work)
	}
	l.mu.Unlock()
	select {
	case <-l.gone:
	case <-time.After(patience):
	}
}

// write is the goroutine that writes. It alone stands before a slow disk.
func (l *serviceLog) write() {
	defer close(l.gone)
	for range l.work {
		l.flush()
	}
	l.flush()
	if l.f != nil {
		l.f.Close()
	}
}

// flush writes what is pending.
func (l *serviceLog) flush() {
	l.mu.Lock()
	data := l.pending
	l.pending = nil
	l.stuck, l.busy = false, true
	close(l.room)
	l.room = make(chan struct{})
	unsaid, why := l.unsaid, l.why
	l.mu.Unlock()
	defer l.said()
	if len(data) == 0 && unsaid == 0 {
		return
	}
	var err error
	if l.f == nil {
		err = l.open()
	}
	if unsaid > 0 && err == nil {
		note := Line{Time: time.Now(), Stream: Remark, Text: fmt.Appendf(nil, "%d lines are missing here: %v", unsaid, why)}
		if l.put(note.append(nil)) == nil {
			l.mu.Lock()
			l.unsaid -= unsaid
			l.mu.Unlock()
		}
	}
	for len(data) > 0 {
		n := len(data)
		if err == nil {
			n, err = l.some(data)
		}
		if err != nil {
			l.mu.Lock()
			l.drop(uint64(bytes.Count(data[:n], []byte{'\n'})), err)
			l.mu.Unlock()
			err = nil
			if l.f == nil {
				err = l.open()
			}
		}
		data = data[n:]
	}
}

// said tells those who wait that something was written.
func (l *serviceLog) said() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy = false
	close(l.written)
	l.written = make(chan struct{})
}

// some writes as many of the lines as one file takes, begins another when this
// one takes none, and returns how many bytes that were; with an error, how
// many are lost.
func (l *serviceLog) some(data []byte) (int, error) {
	if room := l.size - l.at; int64(len(data)) > room {
		n := bytes.LastIndexByte(data[:max(room, 0)], '\n') + 1
		if n == 0 && l.at > 0 {
			if err := l.rotate(); err != nil {
				return len(data), err
			}
			return 0, nil
		}
		if n == 0 { // longer than a file is meant to be
			n = bytes.IndexByte(data, '\n') + 1
		}
		data = data[:n]
	}
	return len(data), l.put(data)
}

// put appends whole lines to the file. What was written of them in part, as on
// a full disk, is taken back.
func (l *serviceLog) put(b []byte) error {
	n, err := l.f.Write(b)
	if err == nil {
		l.at += int64(n)
		return nil
	}
	if n > 0 && l.f.Truncate(l.at) != nil {
		l.f.Close() // opening it again ends the line
		l.f = nil
	}
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return err
}

// open opens the file, and ends a line that a power cut left unfinished.
func (l *serviceLog) open() error {
	if now := time.Now(); now.Before(l.retryAt) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.why != nil {
			return l.why
		}
		return os.ErrClosed
	}
	l.retryAt = time.Now().Add(retry)
	err := os.MkdirAll(filepath.Dir(l.path), 0o700)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", l.path)
	}
	if err == nil && st.Size() > 0 {
		var end [1]byte
		if _, err = f.ReadAt(end[:], st.Size()-1); err == nil && end[0] != '\n' {
			if _, err = f.Write([]byte{'\n'}); err == nil {
				st, err = f.Stat()
			}
		}
	}
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.at, l.retryAt = f, st.Size(), time.Time{}
	return nil
}

// rotate gives every file the next number, and begins a new one.
func (l *serviceLog) rotate() error {
	for i := l.files - 1; i > 0; i-- {
		if err := os.Rename(logName(l.path, i-1), logName(l.path, i)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if l.files == 1 {
		if err := os.Remove(l.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	l.f.Close()
	l.f = nil
	l.at = 0
	return l.open()
}

// logName is the name of the file before the current one, of that before it,
// and so on.
func logName(path string, back int) string {
	if back == 0 {
		return path
	}
	return path + "." + strconv.Itoa(back)
}
