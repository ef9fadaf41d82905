// Package memo remembers what was found in content, so that content that was
// looked at once is not looked at again.
//
// A result is kept under the BLAKE3 digest of the content and a digest of the
// rules that it was looked at with, so that nothing has to be thrown away when
// rules change: results of other rules are never found, and go when room is
// needed. A memo is a cache. It may be deleted at any time, a damaged one is begun
// again, and an entry whose checksum is wrong was never there.
//
// Several processes share the file. Nobody waits to open it: what a process
// reads is a table that never changes, and frames behind it that are complete or
// ignored. Close appends what is new under a lock, or, when the frames have become
// long, writes a new table of everything and renames it over the old one. Those
// that still read the old table keep it until they close.
//
// The file is described in docs/formats/scan-memo.md. Whoever can write it can make
// a scan overlook what it should find, so Open refuses a file that belongs to
// somebody else or that others can write.
package memo

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// DefaultLimit is the size in bytes that a memo's file does not exceed when
// nothing else is asked for.
const DefaultLimit = 256 << 20

// MaxResult is the size in bytes of the largest result that is kept. A larger one
// is not remembered: whatever it took to find, it is rare.
const MaxResult = 1 << 20

// minLimit leaves room for the header and some thousand entries, and maxLimit is
// what the offsets of a table reach.
const (
	minLimit = 256 << 10
	maxLimit = 2 << 30
)

// fresh is how many hours an entry counts as just used. Within that time its use
// isn't written down again, so that a memo whose entries are used daily is
// written weekly.
const fresh = 7 * 24

// Key says what a result is the result of.
type Key struct {
	Content [32]byte // BLAKE3 of the content
	Ruleset [32]byte // digest of rules, their version and the options that change the result
}

// fingerprint is what a Key is stored under: BLAKE3 of both digests.
type fingerprint [32]byte

func (k *Key) fingerprint() fingerprint {
	var b [64]byte
	copy(b[:32], k.Content[:])
	copy(b[32:], k.Ruleset[:])
	return blake3.Sum256(b[:])
}

// entry is one result, and the hour (since 1970) in which it was last used.
type entry struct {
	print fingerprint
	used  uint32
	value []byte
}

// Memo is an open memo. It is safe for concurrent use.
type Memo struct {
	path  string
	limit int64
	now   func() time.Time

	table *table // what was there when it was opened; nil: nothing
	tail  *tail  // frames behind the table
	at    version

	mu      sync.RWMutex
	added   map[fingerprint][]byte // results that are new, and old ones whose use is to be written down
	renewed map[fingerprint]struct{}
	bytes   int64 // in added
	closed  bool

	note         string
	hits, misses atomic.Int64
	damaged      atomic.Int64
}

// version tells whether a file is still the one that was read.
type version struct {
	dev, ino uint64
	size     int64
}

// Stats are counters of an open memo.
type Stats struct {
	Hits, Misses int64
	Entries      int64 // remembered, including those that are new
	Bytes        int64 // size of the file, and of what will be added to it
	// Damaged is how many entries had a wrong checksum. Note is not empty when the
	// file as a whole, or the end of it, could not be used and was begun again.
	Damaged int64
	Note    string
}

// Open opens the memo at path, which need not exist; its directory must. limit is
// the greatest size in bytes of the file; 0: DefaultLimit. A file that is damaged
// is as good as none, and Stats has a note of it. An error is one of access: the
// file cannot be read (failure.Failed), or somebody else could have written it
// (failure.Untrustworthy). A scan can go on without its memo then.
func Open(path string, limit int64) (*Memo, error) {
	return open(path, limit, time.Now)
}

func open(path string, limit int64, now func() time.Time) (*Memo, error) {
	if limit <= 0 {
		limit = DefaultLimit
	}
	m := &Memo{
		path: path, limit: min(max(limit, minLimit), maxLimit), now: now,
		added: make(map[fingerprint][]byte), renewed: make(map[fingerprint]struct{}),
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m, nil
	case errors.Is(err, unix.ELOOP):
		return nil, failure.Hint(failure.Errorf(failure.Untrustworthy, "the memo of scans %s is a symbolic link", path), "remove it; it is only a cache")
	case err != nil:
		return nil, failure.Hint(failure.Errorf(failure.Failed, "open the memo of scans: %w", err), "remove it, or run as the user it belongs to; it is only a cache")
	}
	defer f.Close()
	if m.at, err = inspect(f, path); err != nil {
		return nil, err
	}
	m.table, m.tail, m.note, err = load(f, m.at.size)
	if err != nil {
		return nil, failure.Hint(failure.Errorf(failure.Failed, "read the memo of scans: %w", err), "remove it; it is only a cache")
	}
	return m, nil
}

// inspect refuses a file that this user cannot vouch for.
func inspect(f *os.File, path string) (version, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return version{}, failure.Errorf(failure.Failed, "stat %s: %w", path, err)
	}
	const hint = "remove it; it is only a cache"
	switch uid := uint32(os.Geteuid()); {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return version{}, failure.Hint(failure.Errorf(failure.Untrustworthy, "the memo of scans %s is not a regular file", path), hint)
	case st.Uid != uid && st.Uid != 0:
		return version{}, failure.Hint(failure.Errorf(failure.Untrustworthy, "the memo of scans %s belongs to user %d, who could make scans overlook what they should find", path, st.Uid), hint)
	case st.Mode&0o022 != 0:
		return version{}, failure.Hint(failure.Errorf(failure.Untrustworthy, "others can write the memo of scans %s, and make scans overlook what they should find", path), hint)
	}
	return version{dev: uint64(st.Dev), ino: st.Ino, size: st.Size}, nil
}

// Get returns the result that is remembered under k. It may be empty: nothing was
// found. The result belongs to the caller.
func (m *Memo) Get(k Key) (result []byte, ok bool) {
	print := k.fingerprint()
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return nil, false
	}
	if v, ok := m.added[print]; ok {
		m.hits.Add(1)
		return append([]byte(nil), v...), true
	}
	e, ok := m.find(print)
	if !ok {
		m.misses.Add(1)
		return nil, false
	}
	m.hits.Add(1)
	if hour := hours(m.now()); hour > e.used && hour-e.used > fresh {
		m.renew(e)
	}
	return e.value, true
}

// find looks into what was there at the opening. The value is a copy.
func (m *Memo) find(print fingerprint) (entry, bool) {
	if m.tail != nil {
		if e, ok := m.tail.find(print); ok {
			e.value = append([]byte(nil), e.value...)
			return e, true
		}
	}
	if m.table == nil {
		return entry{}, false
	}
	e, ok, bad := m.table.find(print)
	if bad {
		m.damaged.Add(1)
	}
	return e, ok
}

// renew has the use of an old entry written down. The caller holds the lock for
// reading.
func (m *Memo) renew(e entry) {
	m.mu.RUnlock()
	defer m.mu.RLock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.added[e.print]; !ok && !m.closed {
		m.added[e.print] = e.value
		m.renewed[e.print] = struct{}{}
		m.bytes += int64(len(e.value)) + frameRecordBytes
	}
}

// Put remembers a result under k. It is written by Close. A result of more than
// MaxResult bytes isn't remembered, and neither are more in one process than the
// limit has room for.
func (m *Memo) Put(k Key, result []byte) {
	if len(result) > MaxResult {
		return
	}
	print := k.fingerprint()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	old, had := m.added[print]
	grown := int64(len(result) - len(old))
	if !had {
		grown = int64(len(result)) + frameRecordBytes
	}
	if m.bytes+grown > m.limit {
		return
	}
	m.bytes += grown
	m.added[print] = append([]byte(nil), result...)
	delete(m.renewed, print)
}

// Stats returns what happened so far.
func (m *Memo) Stats() Stats {
	m.mu.RLock()
	defer m.mu.RUnlock()
	s := Stats{
		Hits: m.hits.Load(), Misses: m.misses.Load(), Damaged: m.damaged.Load(), Note: m.note,
		Entries: int64(len(m.added) - len(m.renewed)), Bytes: m.bytes + m.at.size,
	}
	if m.table != nil {
		s.Entries += int64(m.table.records)
	}
	if m.tail != nil {
		s.Entries += int64(len(m.tail.entries))
	}
	return s
}

func hours(t time.Time) uint32 { return uint32(max(0, t.Unix()) / 3600) }
