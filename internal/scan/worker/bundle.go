package worker

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

// The files of a worker that comes within mobileops.
const (
	AboutName   = "worker.json"
	ArchiveName = "worker.zst"
)

// About says what a packed worker is. It is a part of mobileops, so who trusts one
// trusts the other.
type About struct {
	Digest string `json:"digest"` // BLAKE3 of the executable, hex
	Size   int64  `json:"size"`   // bytes of the executable
}

// mostWorker bounds what is unpacked.
const mostWorker = 2 << 30

// bundle is a packed worker.
type bundle struct {
	About
	archive func() (fs.File, error)
}

func readBundle(about []byte, open func() (fs.File, error)) (*bundle, error) {
	b := &bundle{archive: open}
	if err := json.Unmarshal(about, &b.About); err != nil {
		return nil, fmt.Errorf("%s: %w", AboutName, err)
	}
	if sum, err := hex.DecodeString(b.Digest); err != nil || len(sum) != 32 || b.Size <= 0 || b.Size > mostWorker {
		return nil, fmt.Errorf("%s: no digest of 32 bytes, or no size", AboutName)
	}
	return b, nil
}

// Pack writes an executable as ArchiveName is, and returns what AboutName has.
func Pack(program io.Reader, archive io.Writer, level zstd.EncoderLevel) (a About, err error) {
	packed, err := zstd.NewWriter(archive, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return a, err
	}
	h := blake3.New()
	a.Size, err = io.Copy(io.MultiWriter(packed, h), program)
	if err = errors.Join(err, packed.Close()); err != nil {
		return a, err
	}
	a.Digest = hex.EncodeToString(h.Sum(nil))
	return a, nil
}

// unpack makes DIR/DIGEST/mobileops-scan, unless it is there, and returns its path.
// It removes what other versions left there and nobody uses. What is there is proven
// when it is opened to be run.
func (b *bundle) unpack(dir string) (string, error) {
	path := filepath.Join(dir, b.Digest, Name)
	there := func() (bool, error) {
		f, err := openOwn(path)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return true, f.Close()
	}
	if ok, err := there(); ok || err != nil {
		return path, err
	}
	if err := durable.MkdirAll(filepath.Join(dir, b.Digest), 0o700); err != nil {
		return "", fmt.Errorf("unpack %s: %w", Name, err)
	}
	// Whoever comes second would only do it again. He doesn't wait for ever: it does
	// no harm if two do it.
	unlock := lockFor(filepath.Join(dir, "lock"), 30*time.Second)
	defer unlock()
	if ok, err := there(); ok || err != nil {
		return path, err
	}
	if err := b.write(path); err != nil {
		return "", fmt.Errorf("unpack %s: %w", Name, err)
	}
	removeOthers(dir, b.Digest)
	return path, nil
}

// write unpacks the executable to path, which has it whole or not at all.
func (b *bundle) write(path string) error {
	_ = durable.Clean(path) // what a killed process left
	in, err := b.archive()
	if err != nil {
		return err
	}
	defer in.Close()
	plain, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		return err
	}
	defer plain.Close()
	out, err := durable.Create(path, 0o755)
	if err != nil {
		return err
	}
	defer out.Abort()
	h := blake3.New()
	n, err := io.Copy(io.MultiWriter(out, h), io.LimitReader(plain, b.Size+1))
	if err != nil {
		return err
	}
	if n != b.Size || hex.EncodeToString(h.Sum(nil)) != b.Digest {
		return failure.New(failure.Untrustworthy, "what comes within this mobileops is damaged: its digest is another one")
	}
	return out.Commit()
}

// open opens the unpacked executable, and proves that nobody else can write to it
// and that it is the one that was packed, by all of its content. While it is open,
// other versions of mobileops let it be.
func (b *bundle) open(path string) (*os.File, error) {
	f, err := openOwn(path)
	if err != nil {
		return nil, err
	}
	_ = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	h := blake3.New()
	n, err := io.Copy(h, io.LimitReader(f, b.Size+1))
	if err == nil && (n != b.Size || hex.EncodeToString(h.Sum(nil)) != b.Digest) {
		err = failure.Hint(failure.Errorf(failure.Untrustworthy, "%s is not what was unpacked: its digest is another one", path), "find out who changed it, and remove it: it is unpacked again")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// openOwn opens a file that we made. Who isn't root may keep his state where his
// group may write: the file itself is his alone, and its content is proven.
func openOwn(path string) (*os.File, error) {
	uid := os.Geteuid()
	if uid == 0 {
		return openTrusted(path, nil)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(f.Fd()), &st); err == nil {
		err = trusted(path, &st, []uint32{uint32(uid)})
	}
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// lockFor takes the lock of a file, or gives up after a while.
func lockFor(path string, patience time.Duration) (unlock func()) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return func() {}
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return func() { f.Close() }
}

// removeOthers removes executables of other versions that nobody is about to run or
// runs: those hold a lock. It doesn't matter when it fails.
func removeOthers(dir, digest string) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return
	}
	for _, e := range entries {
		if sum, err := hex.DecodeString(e.Name()); err != nil || len(sum) != 32 || e.Name() == digest || !e.IsDir() {
			continue
		}
		f, err := root.Open(filepath.Join(e.Name(), Name))
		if err == nil {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		}
		// One that is just being unpacked has no executable yet.
		if st, statErr := root.Stat(e.Name()); err == nil || errors.Is(err, fs.ErrNotExist) && statErr == nil && time.Since(st.ModTime()) > time.Hour {
			_ = root.RemoveAll(e.Name())
		}
		if f != nil {
			f.Close()
		}
	}
}
