package memo

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"golang.org/x/sys/unix"
)

// patience is how long Close waits for other processes that close. Each takes
// milliseconds, and less than a second when it writes a new table.
const patience = 20 * time.Second

// Close writes down what is new and gives everything back. Processes that close at
// the same time come one after the other, and nothing of any is lost. After an
// error (a full disk, a file system that became read-only) what was remembered
// before is still there, and only what this process added is lost: a scan is none
// the worse for it. A second Close does nothing.
func (m *Memo) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	defer m.table.close()
	if len(m.added) == 0 {
		return nil
	}
	hour := hours(m.now())
	entries := make([]entry, 0, len(m.added))
	for print, value := range m.added {
		entries = append(entries, entry{print: print, used: hour, value: value})
	}
	slices.SortFunc(entries, func(a, b entry) int { return bytes.Compare(a.print[:], b.print[:]) })
	if err := m.write(entries); err != nil {
		return failure.Hint(failure.Errorf(failure.Failed, "write the memo of scans %s: %w", m.path, err), "the next scan takes as long as this one; remove the file when this goes on")
	}
	return nil
}

// write adds entries, sorted by fingerprint, to the file as it is now.
func (m *Memo) write(entries []entry) error {
	f, at, err := m.lock()
	if err != nil {
		return err
	}
	defer f.Close() // drops the lock
	t, tail, _, err := load(f, at.size)
	if err != nil {
		return err
	}
	defer t.close()
	if t == nil {
		return m.rewrite(&source{}, entries)
	}
	if at != m.at { // others have added something meanwhile, perhaps the same
		entries = slices.DeleteFunc(entries, func(e entry) bool {
			old, ok := tail.find(e.print)
			return ok && bytes.Equal(old.value, e.value) && old.used >= e.used
		})
	}
	frames := appendFrames(nil, entries)
	room := min(max(minTail, int64(len(t.raw))/8), maxTail)
	if tail.end-int64(len(t.raw))+int64(len(frames)) > room || tail.end+int64(len(frames)) > m.limit {
		return m.rewrite(&source{table: t, tail: tail}, entries)
	}
	if len(frames) == 0 {
		return nil
	}
	if tail.end < at.size { // what a killed process left
		if err := f.Truncate(tail.end); err != nil {
			return err
		}
	}
	if _, err := f.WriteAt(frames, tail.end); err != nil {
		return errors.Join(err, f.Truncate(tail.end))
	}
	return nil
}

// lock opens the file, makes it when there is none, and waits for its lock. The
// file that it returns is the one that has the name.
func (m *Memo) lock() (*os.File, version, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		f, err := os.OpenFile(m.path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
		if err != nil {
			return nil, version{}, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			at, err := inspect(f, m.path)
			if err != nil {
				f.Close()
				return nil, version{}, err
			}
			var st unix.Stat_t
			if err := unix.Lstat(m.path, &st); err == nil && st.Ino == at.ino && uint64(st.Dev) == at.dev {
				return f, at, nil
			} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
				f.Close()
				return nil, version{}, err
			}
			f.Close() // another process has put a new table in its place
			continue
		}
		f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, version{}, err
		}
		if time.Now().After(deadline) {
			return nil, version{}, errors.New("another process holds its lock for too long")
		}
	}
}

// rewrite puts a table of everything in the place of the file. The lock of the old
// one is held meanwhile.
func (m *Memo) rewrite(old *source, entries []entry) error {
	old.add(entries)
	_ = durable.Clean(m.path)
	f, err := durable.Create(m.path, 0o600)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := old.writeTable(f, m.limit); err != nil {
		return err
	}
	return f.Commit()
}
