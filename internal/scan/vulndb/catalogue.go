package vulndb

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"golang.org/x/sys/unix"
)

// bucketName is the bucket of state.db: in it one bucket for each kind, with the
// generations as JSON by number (uint64, big endian), and "current".
const bucketName = "scan.vulndb"

const currentKey = "current"

// shelf is what the catalogue says of one kind.
type shelf struct {
	list    []*Generation // the newest last
	current int           // 0: none
}

func (sh *shelf) get(number int) *Generation {
	for _, g := range sh.list {
		if g.Number == number {
			return g
		}
	}
	return nil
}

// last is the greatest number ever seen here.
func (sh *shelf) last() (n int) {
	for _, g := range sh.list {
		n = max(n, g.Number)
	}
	return n
}

func numberKey(n int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

// shelf reads the catalogue of a kind.
func (s *Store) shelf(ctx context.Context, k Kind) (sh *shelf, err error) {
	err = s.opts.State.View(ctx, func(tx *state.Tx) error {
		sh, err = readShelf(tx, k)
		return err
	})
	return sh, err
}

func readShelf(tx *state.Tx, k Kind) (*shelf, error) {
	sh := &shelf{}
	b := tx.Bucket([]byte(bucketName))
	if b != nil {
		b = b.Bucket([]byte(k))
	}
	if b == nil {
		return sh, nil
	}
	if v := b.Get([]byte(currentKey)); len(v) == 8 {
		sh.current = int(binary.BigEndian.Uint64(v))
	}
	return sh, b.ForEach(func(key, value []byte) error {
		if string(key) == currentKey {
			return nil
		}
		g := &Generation{}
		if err := json.Unmarshal(value, g); err != nil || len(key) != 8 {
			return failure.Errorf(failure.Untrustworthy, "the catalogue of vulnerability databases in state.db is damaged at %x: %v", key, err)
		}
		g.Number, g.Kind = int(binary.BigEndian.Uint64(key)), k
		g.Current = g.Number == sh.current
		sh.list = append(sh.list, g)
		return nil
	})
}

// change changes the catalogue of a kind in one transaction.
func (s *Store) change(ctx context.Context, k Kind, put []*Generation, drop []int, current int) error {
	return s.opts.State.Update(ctx, func(tx *state.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucketName))
		if err == nil {
			b, err = b.CreateBucketIfNotExists([]byte(k))
		}
		if err != nil {
			return err
		}
		for _, n := range drop {
			if err := b.Delete(numberKey(n)); err != nil {
				return err
			}
		}
		for _, g := range put {
			record := *g
			record.Current = false // said once, by the key
			data, err := json.Marshal(&record)
			if err != nil {
				return err
			}
			if err := b.Put(numberKey(g.Number), data); err != nil {
				return err
			}
		}
		if current == 0 {
			return nil
		}
		return b.Put([]byte(currentKey), numberKey(current))
	})
}

// List returns every generation of a kind, the newest first.
func (s *Store) List(ctx context.Context, k Kind) ([]*Generation, error) {
	sh, err := s.shelf(ctx, k)
	if err != nil {
		return nil, err
	}
	slices.Reverse(sh.list)
	return sh.list, nil
}

// fingerprint is how a file looks from outside. Whoever changes the content
// changes the time of the last change of its inode, which no program can set.
type fingerprint struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
	Size   int64  `json:"size"`
	Mtime  int64  `json:"mtime"` // nanoseconds since 1970
	Ctime  int64  `json:"ctime"`
}

// look returns how a regular file looks.
func look(f *os.File) (fp fingerprint, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fp, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fp, fmt.Errorf("%s is not a regular file", f.Name())
	}
	return fingerprint{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, nil
}
