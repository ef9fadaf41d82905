package block

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/zeebo/blake3"
)

// Buckets of state.db: the target of a block, or the name of a feed → its record.
const (
	blocksBucket = "network_blocks"
	feedsBucket  = "network_feeds"
)

// version is that of records. Members that are not known are passed over.
const version = 1

// maxRecord is the size of a record in bytes.
const maxRecord = 256 << 10

// catalogue is all that is blocked.
type catalogue struct {
	blocks map[string]*Block // by target
	feeds  map[string]*Feed  // by name
}

func (c *catalogue) clone() *catalogue {
	out := &catalogue{map[string]*Block{}, map[string]*Feed{}}
	for k, b := range c.blocks {
		copied := *b
		out.blocks[k] = &copied
	}
	for k, f := range c.feeds {
		copied := *f
		out.feeds[k] = &copied
	}
	return out
}

// revision tells this catalogue from others. It is in force, too, so that nobody
// takes for the old one what a process that died had put in its place.
func (c *catalogue) revision() uint32 {
	h := blake3.New()
	for _, name := range c.targets() {
		data, _ := json.Marshal(c.blocks[name])
		h.Write(data)
	}
	for _, name := range c.feedNames() {
		data, _ := json.Marshal(c.feeds[name])
		h.Write(data)
	}
	return binary.BigEndian.Uint32(h.Sum(nil)) | 1
}

// targets returns the targets of all blocks, sorted.
func (c *catalogue) targets() []string { return sortedKeys(c.blocks) }

func (c *catalogue) feedNames() []string { return sortedKeys(c.feeds) }

func sortedKeys[V any](m map[string]V) []string {
	list := make([]string, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

type storedBlock struct {
	Version int `json:"v"`
	*Block
}

type storedFeed struct {
	Version int `json:"v"`
	*Feed
}

func damaged(bucket string, key []byte, format string, args ...any) error {
	return failure.Hint(fmt.Errorf("%w: %s %q: %s", ErrDamaged, bucket, key, fmt.Sprintf(format, args...)), "look: mobileops state check")
}

// decodeRecord reads a record into one of the stored types.
func decodeRecord(bucket string, key, value []byte, into any) error {
	var head struct {
		Version int `json:"v"`
	}
	if len(value) > maxRecord {
		return damaged(bucket, key, "%d bytes", len(value))
	}
	if err := json.Unmarshal(value, &head); err != nil {
		return damaged(bucket, key, "%v", err)
	}
	if head.Version < 1 || head.Version > version {
		return damaged(bucket, key, "format %d is not known to this mobileops", head.Version)
	}
	if err := json.Unmarshal(value, into); err != nil {
		return damaged(bucket, key, "%v", err)
	}
	return nil
}

// load reads the catalogue.
func (e *Engine) load(ctx context.Context) (*catalogue, error) {
	c := &catalogue{map[string]*Block{}, map[string]*Feed{}}
	err := e.opts.Store.View(ctx, func(tx *state.Tx) error {
		if b := tx.Bucket([]byte(blocksBucket)); b != nil {
			if err := b.ForEach(func(k, v []byte) error {
				s := storedBlock{Block: new(Block)}
				if err := decodeRecord(blocksBucket, k, v, &s); err != nil {
					return err
				}
				if s.Target.String() != string(k) {
					return damaged(blocksBucket, k, "its target is %q", s.Target)
				}
				c.blocks[string(k)] = s.Block
				return nil
			}); err != nil {
				return err
			}
		}
		b := tx.Bucket([]byte(feedsBucket))
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			s := storedFeed{Feed: new(Feed)}
			if err := decodeRecord(feedsBucket, k, v, &s); err != nil {
				return err
			}
			if s.Name != string(k) || ValidName(s.Name) != nil {
				return damaged(feedsBucket, k, "its name is %q", s.Name)
			}
			c.feeds[string(k)] = s.Feed
			return nil
		})
	})
	return c, err
}

// save stores what differs between two catalogues.
func (e *Engine) save(ctx context.Context, old, now *catalogue) error {
	return e.opts.Store.Update(ctx, func(tx *state.Tx) error {
		if err := saveRecords(tx, blocksBucket, old.blocks, now.blocks, func(b *Block) any { return storedBlock{version, b} }); err != nil {
			return err
		}
		return saveRecords(tx, feedsBucket, old.feeds, now.feeds, func(f *Feed) any { return storedFeed{version, f} })
	})
}

func saveRecords[V any](tx *state.Tx, bucket string, old, now map[string]V, stored func(V) any) error {
	b, err := tx.CreateBucketIfNotExists([]byte(bucket))
	if err != nil {
		return err
	}
	for k := range old {
		if _, ok := now[k]; !ok {
			if err := b.Delete([]byte(k)); err != nil {
				return err
			}
		}
	}
	for k, v := range now {
		data, err := json.Marshal(stored(v))
		if err != nil {
			return err
		}
		if len(data) > maxRecord {
			return failure.Errorf(failure.Failed, "the record of %s has %d bytes", k, len(data))
		}
		if string(b.Get([]byte(k))) != string(data) {
			if err := b.Put([]byte(k), data); err != nil {
				return err
			}
		}
	}
	return nil
}

// maxName is the length of the name of a feed: with what is added to it, it is
// the name of a set.
const maxName = 48

// ValidName reports what is wrong with the name of a feed.
func ValidName(name string) error {
	ok := name != "" && len(name) <= maxName && name[0] != '-' && name[0] != '.'
	ok = ok && !strings.ContainsFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r))
	})
	if !ok {
		return failure.Errorf(failure.Usage, "%q is not a name for a feed: 1 to %d of a-z 0-9 - _ . that begin with a letter or digit", name, maxName)
	}
	return nil
}
