// Package baseline is the file in which the integrity engine remembers a tree:
// one immutable bbolt file for each baseline, written once, in the order of a
// filehash walk, and read in that order.
//
// Records are kept in blocks of up to 4,096, as columns: names with their
// common prefix left out, numbers as differences from the record before, all
// of that compressed with zstd, and behind it the digests, which do not
// compress. That is under 60 bytes a file for /usr. A block says which key it
// begins with, so that a record is found without reading the others.
//
// Every block is a leaf of a Merkle tree as in RFC 6962 section 2.1 (with
// BLAKE3), the header being leaf 0. Its root stands for the whole baseline: it
// is kept in the catalogue in state.db, and Open compares.
//
// docs/formats/baseline.md describes the file for readers in other languages.
package baseline

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/pkg/filehash"
)

// Schema is the format's name and version.
const Schema = "mobileops.integrity.baseline/v1"

// Ext is the extension of a baseline's file.
const Ext = ".baseline"

// ErrDamaged is wrapped by every error about a baseline that is not what was
// written: truncated, altered, or no baseline at all.
var ErrDamaged = failure.New(failure.Untrustworthy, "baseline is damaged or foreign")

// CorruptError says where in a baseline something is wrong.
type CorruptError struct {
	Block  int // number of the block from 0; -1: outside of the blocks
	Offset int // in the uncompressed block; -1: unknown
	Reason string
}

func (e *CorruptError) Error() string {
	switch {
	case e.Block < 0:
		return e.Reason
	case e.Offset < 0:
		return fmt.Sprintf("block %d: %s", e.Block, e.Reason)
	}
	return fmt.Sprintf("block %d, offset %d: %s", e.Block, e.Offset, e.Reason)
}

func (e *CorruptError) Unwrap() error { return ErrDamaged }

// Header is what a baseline says of itself.
type Header struct {
	Schema       string    `json:"schema"`
	ID           string    `json:"id"`               // 16 hexadecimal digits, random
	Parent       string    `json:"parent,omitempty"` // id of the baseline it was made of, by accepting changes
	Name         string    `json:"name"`
	Started      time.Time `json:"started"` // content was read from here on
	Finished     time.Time `json:"finished"`
	Host         string    `json:"host"`       // host name
	MachineID    string    `json:"machine_id"` // machine-id(5); empty when there is none
	Tree         string    `json:"tree"`       // the directory that stood for "/"
	Tool         string    `json:"tool"`       // "mobileops 1.0.0"
	UID          int       `json:"uid"`        // who took it: not everything is readable to everyone
	PolicyName   string    `json:"policy_name"`
	PolicyDigest Hash      `json:"policy_digest"`
	// Unread are the directories that could not be listed to their end, up to
	// MaxUnread of them and MaxUnreadBytes in all: nothing is known of what
	// was in them.
	Unread [][]byte `json:"unread,omitempty"`
	Counts
}

// MaxUnread and MaxUnreadBytes bound Header.Unread, which is in the catalogue
// in state.db, too, and so read by every command.
const (
	MaxUnread      = 1000
	MaxUnreadBytes = 256 << 10 // of all paths together
)

// Counts say how much a baseline covers.
type Counts struct {
	Entries    int64 `json:"entries"` // files, directories, links, devices
	Files      int64 `json:"files"`   // regular files whose content was read
	Bytes      int64 `json:"bytes"`   // of their content
	Unreadable int64 `json:"unreadable"`
	Unstable   int64 `json:"unstable"`
	Blocks     int64 `json:"blocks"`
}

// Hash is a BLAKE3 digest that is written as hexadecimal digits.
type Hash [32]byte

// String returns 64 hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalJSON writes h as a string of hexadecimal digits.
func (h Hash) MarshalJSON() ([]byte, error) { return json.Marshal(h.String()) }

// UnmarshalJSON reads what MarshalJSON wrote.
func (h *Hash) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	d, err := hex.DecodeString(s)
	if err != nil || len(d) != len(h) {
		return fmt.Errorf("not a digest: %q", s)
	}
	copy(h[:], d)
	return nil
}

// Record is what a baseline knows of one entry.
type Record struct {
	Dir     []byte // as filehash.Batch.Dir
	Name    []byte
	Info    filehash.Info
	Content filehash.Content // NoContent, Hashed, Unreadable or Unstable
	Sum     filehash.Sum     // when Hashed
	Target  []byte           // of a symbolic link
	Xattrs  []filehash.Xattr
}

// Path returns the record's path below the tree.
func (r *Record) Path() []byte { return JoinPath(r.Dir, r.Name) }

// Clone returns a copy that shares nothing with r.
func (r *Record) Clone() Record {
	c := *r
	c.Dir, c.Name, c.Target = bytes.Clone(r.Dir), bytes.Clone(r.Name), bytes.Clone(r.Target)
	c.Xattrs = nil
	for _, x := range r.Xattrs {
		c.Xattrs = append(c.Xattrs, filehash.Xattr{Name: x.Name, Value: bytes.Clone(x.Value)})
	}
	return c
}

// JoinPath joins a directory of a walk and a name in it.
func JoinPath(dir, name []byte) []byte {
	p := make([]byte, 0, len(dir)+1+len(name))
	p = append(p, dir...)
	if len(dir) > 1 {
		p = append(p, '/')
	}
	return append(p, name...)
}
