package intel

import (
	"encoding/binary"
	"hash/crc32"
)

// sum gives the file of a table the checksum that it should have.
func sum(data []byte) {
	binary.LittleEndian.PutUint32(data[12:], crc32.Checksum(data[16:], crc32.MakeTable(crc32.Castagnoli)))
}

func leKey(row []byte) uint64 { return binary.LittleEndian.Uint64(row) }
