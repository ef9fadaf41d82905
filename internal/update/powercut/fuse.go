package powercut

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Of the protocol of /dev/fuse (include/uapi/linux/fuse.h, version 7) a single
// file needs little: its root is no directory but the file itself.
const (
	opForget      = 2
	opGetattr     = 3
	opOpen        = 14
	opRead        = 15
	opWrite       = 16
	opStatfs      = 17
	opRelease     = 18
	opFsync       = 20
	opSetxattr    = 21
	opInit        = 26
	opInterrupt   = 36
	opDestroy     = 38
	opBatchForget = 42
	opFallocate   = 43

	headerIn  = 40 // fuse_in_header, and fuse_write_in behind it
	headerOut = 16 // fuse_out_header

	// minor is the newest version of which all is known here.
	minor = 31
	// bigWrites (FUSE_BIG_WRITES) and maxPages (FUSE_MAX_PAGES) allow writes
	// of up to maxWrite bytes.
	bigWrites = 1 << 5
	maxPages  = 1 << 22
	maxWrite  = 1 << 20
	// directIO (FOPEN_DIRECT_IO) keeps the page cache out of the way: what the
	// loop device writes arrives here at once and as it is, and what it reads
	// is not kept twice. Caching of writes (FUSE_WRITEBACK_CACHE) is never asked
	// for: it would hold them back, and put them in another order.
	directIO = 1 << 0

	markAttribute = "user.mark"
)

var order = binary.NativeEndian

// server answers for the file, one request after the other: so the log has
// them in an order that was really there.
type server struct {
	dev     int
	size    int64
	content *os.File
	log     *log
	in, out []byte
}

// run answers until the file is unmounted.
func (s *server) run() error {
	// Should this process need memory while memory is short, the kernel must
	// not wait for the filesystem on this very disk to make some.
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0)
	s.in = make([]byte, maxWrite+8192)
	s.out = make([]byte, headerOut+maxWrite)
	for {
		n, err := unix.Read(s.dev, s.in)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOENT): // ENOENT: it was interrupted
			continue
		case errors.Is(err, unix.ENODEV):
			return nil
		case err != nil:
			return fmt.Errorf("read /dev/fuse: %w", err)
		case n < headerIn:
			return fmt.Errorf("read /dev/fuse: %d bytes", n)
		}
		op, unique := order.Uint32(s.in[4:]), order.Uint64(s.in[8:])
		switch op {
		case opForget, opBatchForget, opInterrupt:
			continue // these have no answer
		}
		length, errno := s.answer(op, s.in[headerIn:n])
		if errno != 0 {
			length = 0
		}
		reply := s.out[:headerOut+length]
		order.PutUint32(reply, uint32(len(reply)))
		order.PutUint32(reply[4:], uint32(-int32(errno)))
		order.PutUint64(reply[8:], unique)
		if _, err := unix.Write(s.dev, reply); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("answer %d: %w", op, err)
		}
	}
}

// answer does what a request asks for. What it has to say is left in s.out
// behind the header, length bytes.
func (s *server) answer(op uint32, args []byte) (length int, errno unix.Errno) {
	body := s.out[headerOut:]
	zeroed := func(n int) []byte { clear(body[:n]); return body[:n] }
	switch op {
	case opInit: // fuse_init_out
		b := zeroed(64)
		order.PutUint32(b[0:], 7)
		order.PutUint32(b[4:], minor)
		order.PutUint32(b[12:], bigWrites|maxPages)
		order.PutUint16(b[16:], 16) // max_background
		order.PutUint16(b[18:], 12) // congestion_threshold
		order.PutUint32(b[20:], maxWrite)
		order.PutUint32(b[24:], 1)
		order.PutUint16(b[28:], maxWrite/4096)
		return len(b), 0
	case opGetattr: // fuse_attr_out
		b := zeroed(16 + 88)
		order.PutUint64(b[0:], 3600) // seconds for which the kernel may believe it
		attr := b[16:]
		order.PutUint64(attr[0:], 1) // the root
		order.PutUint64(attr[8:], uint64(s.size))
		order.PutUint64(attr[16:], uint64(s.size/512))
		order.PutUint32(attr[60:], unix.S_IFREG|0o600)
		order.PutUint32(attr[64:], 1) // links
		order.PutUint32(attr[80:], 4096)
		return len(b), 0
	case opOpen: // fuse_open_out
		b := zeroed(16)
		order.PutUint32(b[8:], directIO)
		return len(b), 0
	case opStatfs: // fuse_statfs_out
		b := zeroed(80)
		order.PutUint32(b[40:], 4096)
		order.PutUint32(b[44:], 255)
		order.PutUint32(b[48:], 4096)
		return len(b), 0
	case opRead: // fuse_read_in
		offset, size := int64(order.Uint64(args[8:])), int64(order.Uint32(args[16:]))
		size = max(0, min(size, s.size-offset, int64(len(body))))
		if n, err := s.content.ReadAt(body[:size], offset); int64(n) != size {
			fmt.Fprintf(os.Stderr, "reading %d bytes at %d: %v\n", size, offset, err)
			return 0, unix.EIO
		}
		return int(size), 0
	case opWrite: // fuse_write_in
		offset, size := int64(order.Uint64(args[8:])), int(order.Uint32(args[16:]))
		if offset+int64(size) > s.size || len(args) < headerIn+size {
			return 0, unix.EINVAL
		}
		// The log first: what can be read has been recorded. The header of the
		// record takes the place of those of the request.
		record := s.in[2*headerIn-recordHeader : 2*headerIn+size]
		if errno := s.record(Write, offset, int64(size), record); errno != 0 {
			return 0, errno
		}
		if _, err := s.content.WriteAt(args[headerIn:headerIn+size], offset); err != nil {
			return s.fail(err)
		}
		b := zeroed(8)
		order.PutUint32(b, uint32(size))
		return len(b), 0
	case opFallocate: // fuse_fallocate_in: a range that is to read as zero
		offset, size := int64(order.Uint64(args[8:])), int64(order.Uint64(args[16:]))
		if offset < 0 || size <= 0 || offset+size > s.size {
			return 0, unix.EINVAL
		}
		if errno := s.record(Zero, offset, size, make([]byte, recordHeader)); errno != 0 {
			return 0, errno
		}
		if err := punch(s.content, offset, size); err != nil {
			return s.fail(err)
		}
		return 0, 0
	case opFsync:
		return 0, s.record(Flush, 0, 0, make([]byte, recordHeader))
	case opSetxattr: // fuse_setxattr_in, name, value
		size := int(order.Uint32(args))
		name, value, ok := cutZero(args[8:])
		if !ok || name != markAttribute || len(value) < size {
			return 0, unix.ENOTSUP
		}
		record := append(make([]byte, recordHeader), value[:size]...)
		return 0, s.record(Marked, 0, int64(size), record)
	case opRelease, opDestroy:
		return 0, 0
	}
	return 0, unix.ENOSYS // the kernel does without, and asks no more
}

// record appends to the log. A disk that cannot remember is broken.
func (s *server) record(kind Kind, offset, size int64, record []byte) unix.Errno {
	if err := s.log.append(kind, offset, size, record); err != nil {
		_, errno := s.fail(err)
		return errno
	}
	return 0
}

// fail says what went wrong to the test, which fails by it.
func (s *server) fail(err error) (int, unix.Errno) {
	fmt.Fprintln(os.Stderr, err)
	return 0, unix.EIO
}

// cutZero cuts a string that ends with a zero byte off.
func cutZero(b []byte) (name string, rest []byte, ok bool) {
	for i, c := range b {
		if c == 0 {
			return string(b[:i]), b[i+1:], true
		}
	}
	return "", nil, false
}
