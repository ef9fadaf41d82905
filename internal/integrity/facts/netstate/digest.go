package netstate

import (
	"encoding/binary"
	"encoding/hex"

	"github.com/zeebo/blake3"
)

// digest is how content that is too long to be shown is compared.
func digest(b []byte) string {
	sum := blake3.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// put appends an attribute with its length, so that no two lists are written
// alike.
func put(b []byte, typ uint16, value []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint32(b, uint32(len(value)))
	return append(b, value...)
}
