package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"github.com/mobileops/mobileops/internal/durable"
	"golang.org/x/sys/unix"
)

// The Merkle log is the file merkle.log, to which is only appended:
//
//	header  magic 8 bytes, id of the store 16, CRC-32C of both
//	frames  length of the body uint32, number of the first leaf uint64, root of
//	        the tree before it 32 bytes, body (see operation), CRC-32C of all
//	        of it before
//
// all little endian.
const (
	merkleMagic      = "MOPSMRK\x01"
	merkleHeaderSize = 8 + 16 + 4
	merkleFrameHead  = 4 + 8 + 32
	maxMerkleFrame   = 64 << 20 // bytes of a body
)

func merkleHeader(id storeID) []byte {
	b := append([]byte(merkleMagic), id[:]...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
}

// createMerkleLog makes the file without frames.
func createMerkleLog(path string, id storeID) error {
	return durable.WriteFile(path, merkleHeader(id), 0o600)
}

func merkleFrame(t *tree, body []byte) []byte {
	le := binary.LittleEndian
	root := t.root()
	b := le.AppendUint32(nil, uint32(len(body)))
	b = le.AppendUint64(b, t.size)
	b = append(b, root[:]...)
	b = append(b, body...)
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli()))
}

// appendMerkle appends a frame at the offset at which the log ended, and
// returns once it is durable. On an error the log ends there again.
func appendMerkle(path string, at int64, frame []byte) error {
	f, err := openFile(path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() != at {
		return fmt.Errorf("%s has %d bytes, and not the %d that it had a moment ago", path, st.Size(), at)
	}
	if _, err = f.WriteAt(frame, at); err == nil {
		err = unix.Fdatasync(int(f.Fd()))
	}
	if err != nil {
		err = access(fmt.Errorf("append to %s: %w", path, err))
		return errors.Join(err, f.Truncate(at))
	}
	return nil
}

// merkleReader reads operations from a Merkle log.
type merkleReader struct {
	w    window
	at   int64
	tree tree // before the frame at at
}

// openMerkle opens the log for reading from a place in it, up to end, or to
// the end of the file when end is negative. The file must be closed.
func openMerkle(path string, id storeID, from int64, t tree, end int64) (*merkleReader, *os.File, error) {
	f, err := openFile(path, os.O_RDONLY)
	if err != nil {
		return nil, nil, err
	}
	r, err := func() (*merkleReader, error) {
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if end < 0 || end > st.Size() {
			end = st.Size()
		}
		return newMerkleReader(f, end, id, from, t)
	}()
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return r, f, nil
}

func newMerkleReader(f io.ReaderAt, size int64, id storeID, from int64, t tree) (*merkleReader, error) {
	r := &merkleReader{w: window{f: f, size: size}, at: from, tree: t}
	head, err := r.w.at(0, merkleHeaderSize)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(head, merkleHeader(id)) {
		return nil, &FormatError{What: "Merkle log", Reason: "it does not begin as that of this store"}
	}
	if from == 0 {
		r.at = merkleHeaderSize
	}
	return r, nil
}

// errTorn is what next returns for a last frame that is not whole.
var errTorn = errors.New("the last frame is not whole")

// next returns the next operation and steps behind it, or io.EOF. A last frame
// of a write that did not come to its end is errTorn; anything else that does
// not fit is a *FormatError.
func (r *merkleReader) next(ctx context.Context) (*operation, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	left := r.w.size - r.at
	if left == 0 {
		return nil, io.EOF
	}
	wrong := func(reason string) error {
		return &FormatError{What: "Merkle log", Offset: r.at, Reason: reason}
	}
	if left < merkleFrameHead+4 {
		return nil, errTorn
	}
	head, err := r.w.at(r.at, merkleFrameHead)
	if head == nil {
		return nil, errors.Join(err, errTorn)
	}
	le := binary.LittleEndian
	n := int64(le.Uint32(head))
	first := le.Uint64(head[4:])
	root := Hash(head[12:])
	if n > maxMerkleFrame || first != r.tree.size || root != r.tree.root() {
		if bytes.Count(head, []byte{0}) == len(head) {
			return nil, errTorn // a power cut leaves zeros
		}
		return nil, wrong("the frame does not continue the one before")
	}
	all := merkleFrameHead + n + 4
	if all > left {
		return nil, errTorn
	}
	b, err := r.w.at(r.at, int(all))
	if b == nil {
		return nil, errors.Join(err, errTorn)
	}
	body := b[:len(b)-4]
	if crc32.Checksum(body, castagnoli()) != le.Uint32(b[len(body):]) {
		if all == left {
			return nil, errTorn
		}
		return nil, wrong("the frame is damaged")
	}
	// The records outlive the window.
	op, err := decodeOperation(append([]byte(nil), body[merkleFrameHead:]...))
	if err != nil {
		var f *FormatError
		if errors.As(err, &f) {
			f.Offset += r.at + merkleFrameHead
		}
		return nil, err
	}
	for _, l := range op.leaves {
		r.tree.add(leafHash(l))
	}
	r.at += all
	return op, nil
}

// truncate cuts a file that only an interrupted write made longer.
func truncate(path string, size int64) error {
	f, err := openFile(path, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return access(err)
	}
	return f.Sync()
}
