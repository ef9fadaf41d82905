package vulndb

import (
	"bytes"
	"encoding/binary"
	"io"

	"github.com/mobileops/mobileops/internal/failure"
)

// inspectJava proves what can be proved of a file of SQLite without SQLite: that
// it is one, that all of its pages are there, and that it has the tables of
// Trivy's Java database. Source: sqlite.org/fileformat2.html, section 1.3.
func inspectJava(f io.ReaderAt, size int64) error {
	var h [100]byte
	if _, err := f.ReadAt(h[:], 0); err != nil && err != io.EOF {
		return err
	}
	if !bytes.HasPrefix(h[:], []byte("SQLite format 3\x00")) {
		return failure.Errorf(failure.Untrustworthy, "this is no Java database: it is no file of SQLite")
	}
	pageSize := int64(binary.BigEndian.Uint16(h[16:]))
	if pageSize == 1 {
		pageSize = 65536
	}
	if pageSize < 512 || pageSize&(pageSize-1) != 0 {
		return &DamageError{-1, "its header gives a page size that there is not"}
	}
	pages := int64(binary.BigEndian.Uint32(h[28:]))
	valid := binary.BigEndian.Uint32(h[24:]) == binary.BigEndian.Uint32(h[92:])
	if size%pageSize != 0 || valid && pages*pageSize != size {
		return &DamageError{-1, "it is cut off, or something follows it"}
	}
	first := make([]byte, min(pageSize, size))
	if _, err := f.ReadAt(first, 0); err != nil {
		return err
	}
	if t := first[100]; t != 0x0d && t != 0x05 {
		return damaged(1, "is not the list of tables")
	}
	for _, table := range []string{"artifacts", "indices"} {
		if first[100] == 0x0d && !bytes.Contains(first, []byte(table)) {
			return failure.Errorf(failure.Untrustworthy, "this is no Java database: it has no table %s", table)
		}
	}
	return nil
}
