package grep

import (
	"bytes"
	"io"

	"github.com/mobileops/mobileops/internal/logs/packed"
)

// headBytes is how much of a file decides about what it holds.
const headBytes = 64 << 10

// maxDictionary is the memory that a compressed file may ask for: xz -9 asks
// for 64 MiB.
const maxDictionary = 64 << 20

// binary reports whether a file whose first bytes these are holds no text: there
// is a NUL.
func binary(head []byte) bool { return bytes.IndexByte(head[:min(len(head), headBytes)], 0) >= 0 }

// Beginning returns the first bytes of a file, n at most; of a compressed one,
// of its text. Of a pipe it is what comes at once. What cannot be read is left
// out: whoever searches the file says so.
func Beginning(r io.Reader, n int) []byte {
	head := make([]byte, headBytes)
	k, _ := fill(r, head, packed.Sniffed)
	head = head[:k]
	how := packed.How(head)
	if how == "" {
		return head[:min(n, k)]
	}
	unpacked, err := packed.Open(io.MultiReader(bytes.NewReader(head), r), how, maxDictionary)
	if err != nil {
		return nil
	}
	defer unpacked.Close()
	text := make([]byte, n)
	k, _ = io.ReadFull(unpacked, text)
	return text[:k]
}
