package watch

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity"
	"github.com/mobileops/mobileops/internal/integrity/baseline"
	"github.com/mobileops/mobileops/pkg/filehash"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// AllowFile is the name of the allow-list in the state directory: a line for
// each content, 32 or 64 hexadecimal digits of BLAKE3, and behind a space the
// path that it was seen at, quoted as Go quotes strings, and its size. Lines that begin with # are
// comments.
const AllowFile = "integrity/exec-allow"

// digest is the first half of a BLAKE3 digest: nobody can find a second file
// for 128 bits of it, and it takes half the memory.
type digest [16]byte

// allowed is what may be executed.
type allowed struct {
	file string

	mu      sync.RWMutex
	content []digest         // of the baseline, sorted
	sizes   []int64          // of the same, sorted
	always  map[digest]int64 // with their sizes
	listed  map[digest]int64 // in the file; sizeUnknown where it does not say
	anySize bool             // there are such
	dirs    []string
	seen    time.Time // when the file last changed
	learned []string  // lines to be added
}

const (
	maxAllowed  = 1 << 20
	sizeUnknown = -1
	// maxUnsized is the size of the largest file that is read because an entry
	// of the list does not say how large its file is: reading more could take
	// longer than an answer may, and what is not answered in time is allowed.
	maxUnsized = 256 << 20
)

// newAllowed gathers what may be executed: the content of the baseline, of this
// program, of the allow-list, and what was named.
func newAllowed(e *integrity.Engine, o *integrity.Opened, named []string) (*allowed, error) {
	a := &allowed{file: filepath.Join(e.Store.Dir(), AllowFile), always: map[digest]int64{}, listed: map[digest]int64{}}
	if err := a.reload(o); err != nil {
		return nil, err
	}
	self, size, err := hashFile("/proc/self/exe")
	if err != nil {
		return nil, fmt.Errorf("read this program: %w", err)
	}
	a.always[self] = size // so that --release can always be called
	for _, name := range named {
		abs, err := filepath.Abs(name)
		if err != nil {
			return nil, err
		}
		if abs, err = filepath.EvalSymlinks(abs); err != nil {
			return nil, failure.Errorf(failure.Usage, "--allow-exec: %w", err)
		}
		if info, err := os.Stat(abs); err == nil && info.IsDir() {
			a.dirs = append(a.dirs, abs)
			continue
		}
		sum, size, err := hashFile(abs)
		if err != nil {
			return nil, failure.Errorf(failure.Usage, "--allow-exec: %w", err)
		}
		a.always[sum] = size
	}
	_, err = a.keep()
	return a, err
}

// reload takes the content of another baseline.
func (a *allowed) reload(o *integrity.Opened) error {
	content := make([]digest, 0, o.Entry.Counts.Files)
	var sizes []int64
	err := o.Reader.All(func(r *baseline.Record) error {
		if r.Content == filehash.Hashed {
			content = append(content, digest(r.Sum[:16]))
			sizes = append(sizes, r.Info.Size)
		}
		return nil
	})
	slices.SortFunc(content, func(x, y digest) int { return bytes.Compare(x[:], y[:]) })
	slices.Sort(sizes)
	a.mu.Lock()
	a.content = slices.Clip(slices.Compact(content))
	a.sizes = slices.Clip(slices.Compact(sizes))
	a.mu.Unlock()
	return err
}

// permits tells whether a content may be executed.
func (a *allowed) permits(sum digest) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if _, ok := a.always[sum]; ok {
		return true
	}
	if _, ok := a.listed[sum]; ok {
		return true
	}
	_, ok := slices.BinarySearchFunc(a.content, sum, func(x, y digest) int { return bytes.Compare(x[:], y[:]) })
	return ok
}

// mayBe tells whether anything that may be executed has this size. What has
// another one need not be read: a file can be made so large that reading it
// takes longer than an answer may.
func (a *allowed) mayBe(size int64) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if _, ok := slices.BinarySearch(a.sizes, size); ok || a.anySize && size <= maxUnsized {
		return true
	}
	for _, list := range [...]map[digest]int64{a.always, a.listed} {
		for _, s := range list {
			if s == size {
				return true
			}
		}
	}
	return false
}

// below tells whether everything in the directory of a path may be executed. The
// path must be one of this mount namespace: see itself.
func (a *allowed) below(path string) bool {
	return slices.ContainsFunc(a.dirs, func(d string) bool { return strings.HasPrefix(path, d+"/") })
}

// itself tells whether a path leads to a file here. The kernel names a file by
// the mounts of the process that opened it, and anybody can mount what he likes
// over a directory in a namespace of his own.
func itself(path string, state *fileState) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Dev == state.dev && st.Ino == state.ino
}

// learn adds a content to the list. It returns whether it was not in it.
func (a *allowed) learn(sum digest, size int64, path string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.listed[sum]; known || len(a.listed) >= maxAllowed {
		return false
	}
	a.listed[sum] = size
	a.learned = append(a.learned, fmt.Sprintf("%s %q %d\n", hex.EncodeToString(sum[:]), path, size))
	return true
}

// keep writes what was learned, and reads the list when somebody changed it. It
// reports whether what is allowed may have changed.
func (a *allowed) keep() (changed bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.learned) > 0 {
		if err := a.write(); err != nil {
			return false, err
		}
		a.learned = nil
	}
	info, err := os.Stat(a.file)
	if errors.Is(err, fs.ErrNotExist) {
		changed = len(a.listed) > 0
		clear(a.listed)
		a.anySize = false
		return changed, nil
	}
	if err != nil || info.ModTime().Equal(a.seen) {
		return false, err
	}
	f, err := os.Open(a.file)
	if err != nil {
		return false, err
	}
	defer f.Close()
	listed, err := parseAllowed(f)
	if err != nil {
		return false, fmt.Errorf("%s: %w", a.file, err)
	}
	a.listed, a.seen, a.anySize = listed, info.ModTime(), false
	for _, size := range listed {
		a.anySize = a.anySize || size == sizeUnknown
	}
	return true, nil
}

// write appends to the file. a.mu is held.
func (a *allowed) write() error {
	if err := os.MkdirAll(filepath.Dir(a.file), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(a.file, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.Join(a.learned, ""))
	return errors.Join(err, f.Sync(), f.Close())
}

// AllowError says which line of an allow-list cannot be read.
type AllowError struct {
	Line   int // from 1
	Reason string
}

func (e *AllowError) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Reason) }

// parseAllowed reads an allow-list.
func parseAllowed(r io.Reader) (map[digest]int64, error) {
	out := map[digest]int64{}
	s := bufio.NewScanner(r)
	s.Buffer(nil, 64<<10)
	line := 0
	for s.Scan() {
		line++
		text := strings.TrimSpace(s.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		word, rest, _ := strings.Cut(text, " ")
		b, err := hex.DecodeString(word)
		// Half a digest is what is learned; a whole one is what b3sum prints.
		if err != nil || len(b) != 16 && len(b) != 32 {
			return nil, &AllowError{line, "it does not begin with a BLAKE3 digest of 32 or 64 hexadecimal digits"}
		}
		if len(out) >= maxAllowed {
			return nil, &AllowError{line, "the list is too long"}
		}
		size := int64(sizeUnknown)
		if quoted, err := strconv.QuotedPrefix(strings.TrimSpace(rest)); err == nil {
			_, after, _ := strings.Cut(rest, quoted)
			if n, err := strconv.ParseUint(strings.TrimSpace(after), 10, 63); err == nil {
				size = int64(n)
			}
		}
		out[digest(b[:16])] = size
	}
	if err := s.Err(); err != nil {
		return nil, &AllowError{line + 1, err.Error()}
	}
	return out, nil
}

// hashFile reads a file.
func hashFile(path string) (digest, int64, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return digest{}, 0, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	sum, state, _, err := hashStable(fd, func() bool { return false })
	if err != nil {
		err = &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return sum, state.size, err
}

// errChanging says that a file changed each time it was read.
var errChanging = errors.New("it changed each time it was read")

// errTooLate says that nobody waits for what is read any more.
var errTooLate = errors.New("it takes too long")

// hashStable reads an open file from its beginning, again when it changed
// meanwhile, unless stop says that it is too late. stable: its state stands for its content from now on, as its inode
// did not change just before it was read.
func hashStable(fd int, stop func() bool) (sum digest, state fileState, stable bool, err error) {
	buf := make([]byte, 256<<10)
	for range 3 {
		var before, after unix.Stat_t
		started := time.Now().Unix()
		if err := unix.Fstat(fd, &before); err != nil {
			return sum, state, false, err
		}
		if before.Mode&unix.S_IFMT != unix.S_IFREG {
			return sum, state, false, errors.New("it is no regular file")
		}
		h := blake3.New()
		for off := int64(0); ; {
			if stop() {
				return sum, state, false, errTooLate
			}
			n, err := unix.Pread(fd, buf, off)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return sum, state, false, err
			}
			if n == 0 {
				break
			}
			h.Write(buf[:n])
			off += int64(n)
		}
		if err := unix.Fstat(fd, &after); err != nil {
			return sum, state, false, err
		}
		if state = stateOf(&before); state == stateOf(&after) {
			copy(sum[:], h.Sum(nil))
			changed, _ := before.Ctim.Unix()
			return sum, state, changed+racyWindow < started, nil
		}
	}
	return sum, state, false, errChanging
}
