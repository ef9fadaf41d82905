package source

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/mobileops/mobileops/internal/failure"
)

// ErrCursor is the kind of error for a cursor that cannot be one.
var ErrCursor = failure.New(failure.Untrustworthy, "the position in a log is damaged")

const (
	maxCursor     = 1 << 20 // bytes
	cursorVersion = 1
)

// fileCursor is how far a file was read, and how to know the file again.
type fileCursor struct {
	Version int    `json:"v"`
	Path    string `json:"path"` // where it was last
	PathB64 []byte `json:"path_b64,omitempty"`
	Dev     uint64 `json:"dev"`
	Ino     uint64 `json:"ino"`
	Born    int64  `json:"born,omitempty"` // nanoseconds since 1970

	Head   fingerprint `json:"head"`   // of its beginning
	Tail   fingerprint `json:"tail"`   // of the bytes before Offset
	Offset int64       `json:"offset"` // of the first byte that was not taken, uncompressed
	Marks  []mark      `json:"marks,omitempty"`

	Size int64 `json:"size"` // of the file when it was last seen
	Mod  int64 `json:"mod"`  // its last change then, in nanoseconds since 1970

	Packed string `json:"packed,omitempty"` // how it is compressed
	Done   bool   `json:"done,omitempty"`   // a compressed file was read to its end
	Cut    bool   `json:"cut,omitempty"`    // the last record ended without a newline

	Format string `json:"format,omitempty"`
	State  []byte `json:"state,omitempty"` // of the reader of the format

	Since    int64 `json:"since,omitempty"`    // older records are left out until the end was reached once
	Detached bool  `json:"detached,omitempty"` // the inode holds something else now
	Copy     bool  `json:"copy,omitempty"`     // of another file; nothing was read from it
	Gone     int64 `json:"gone,omitempty"`     // since when the file is not to be found, in seconds since 1970
	Lost     bool  `json:"lost,omitempty"`     // that its rest is gone was reported
}

const fileKey = "file:"

// newFileKey returns the key of the cursor of a file that was not known.
func newFileKey() string {
	var b [12]byte
	rand.Read(b[:]) // never fails: crypto/rand.Read
	return fileKey + hex.EncodeToString(b[:])
}

func encodeCursor(c any) []byte {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // plain structs of numbers and strings only
	}
	return b
}

func (c *fileCursor) encode() []byte {
	d := *c
	d.Version = cursorVersion
	d.PathB64 = nil
	if !utf8.ValidString(d.Path) {
		d.PathB64 = []byte(d.Path)
	}
	return encodeCursor(&d)
}

// decodeFileCursor reads what encode wrote. Errors are ErrCursor.
func decodeFileCursor(b []byte) (*fileCursor, error) {
	c := new(fileCursor)
	if err := decodeCursor(b, c); err != nil {
		return nil, err
	}
	if c.PathB64 != nil {
		c.Path, c.PathB64 = string(c.PathB64), nil
	}
	var reason string
	switch {
	case c.Version != cursorVersion:
		reason = fmt.Sprintf("it is of version %d, and this program knows version %d", c.Version, cursorVersion)
	case c.Offset < 0 || c.Size < 0:
		reason = "a negative position"
	case !c.Head.sound() || !c.Tail.sound():
		reason = "no fingerprint"
	case int64(c.Tail.Len) > c.Offset:
		reason = "a fingerprint of more than there is"
	case !soundMarks(c.Marks, c.Offset):
		reason = "marks that are none"
	case c.Path == "":
		reason = "no path"
	default:
		return c, nil
	}
	return nil, fmt.Errorf("%w: %s", ErrCursor, reason)
}

func (f fingerprint) sound() bool {
	if f.Len < 0 || f.Len > printBytes {
		return false
	}
	sum, err := hex.DecodeString(f.Hash)
	return err == nil && (len(sum) == 16 || len(sum) == 0 && f.Len == 0)
}

func decodeCursor(b []byte, c any) error {
	if len(b) > maxCursor {
		return fmt.Errorf("%w: it is larger than %d bytes", ErrCursor, maxCursor)
	}
	if err := json.Unmarshal(b, c); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return fmt.Errorf("%w: at byte %d: %v", ErrCursor, syntax.Offset, err)
		}
		return fmt.Errorf("%w: %v", ErrCursor, err)
	}
	return nil
}
