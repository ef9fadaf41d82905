package integrity

import (
	"encoding/binary"
	"os"
	"time"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/zeebo/blake3"
)

// reads remembers when the content of each record of a baseline was last
// really read and found as recorded. The baseline itself never changes, so
// this lies beside it: 40 bytes of head, a uint32 of seconds since 1970 for
// each record, and a BLAKE3 digest of all before it. It only ever makes a
// check skip a file whose inode is unchanged; when it is missing or damaged,
// the time at which the baseline was taken stands for all.
type reads struct {
	at      []uint32
	changed bool
}

const readsMagic = "mobileops-reads1"

// readsFile is the path of the reads of a baseline.
func (e *Engine) readsFile(c Entry) string { return e.path(c.ID + ".reads") }

func (e *Engine) loadReads(c Entry) *reads {
	r := &reads{at: make([]uint32, c.Entries)}
	for i := range r.at {
		r.at[i] = uint32(c.Started.Unix())
	}
	b, err := os.ReadFile(e.readsFile(c))
	head := readsHead(c)
	if err != nil || len(b) != len(head)+4*len(r.at)+32 || string(b[:len(head)]) != string(head) {
		return r
	}
	body, sum := b[:len(b)-32], b[len(b)-32:]
	if blake3.Sum256(body) != [32]byte(sum) {
		return r
	}
	for i := range r.at {
		r.at[i] = binary.BigEndian.Uint32(body[len(head)+4*i:])
	}
	return r
}

// readsHead ties the reads to their baseline.
func readsHead(c Entry) []byte {
	return append([]byte(readsMagic), c.Root[:24]...)
}

func (e *Engine) saveReads(c Entry, r *reads) error {
	if !r.changed {
		return nil
	}
	b := readsHead(c)
	for _, t := range r.at {
		b = binary.BigEndian.AppendUint32(b, t)
	}
	sum := blake3.Sum256(b)
	if err := durable.Clean(e.readsFile(c)); err != nil {
		return err
	}
	return durable.WriteFile(e.readsFile(c), append(b, sum[:]...), 0o600)
}

// set notes that record n was read at t. Different records may be set at once.
func (r *reads) set(n int, t time.Time) {
	r.at[n] = uint32(t.Unix())
	r.changed = true
}
