package dns

import (
	"container/list"
	"encoding/binary"
	"sync"
	"time"
)

// maxCacheBytes bounds the answers, whatever their number.
const maxCacheBytes = 16 << 20

// stored is an answer without OPT, as it is sent: the number, the letters of the
// name and the times are put in for each client.
type stored struct {
	key    string
	data   []byte
	places []uint16 // of the TTLs
	end    int      // of the question
	from   time.Time
	until  time.Time
}

// cache remembers answers, those that were asked for last.
type cache struct {
	max int

	mu    sync.Mutex
	byKey map[string]*list.Element
	order *list.List // the newest first
	bytes int
}

func newCache(max int) *cache {
	return &cache{max: max, byKey: map[string]*list.Element{}, order: list.New()}
}

// get returns an answer whose time has not passed.
func (c *cache) get(key []byte, now time.Time) *stored {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[string(key)]
	if e == nil {
		return nil
	}
	s := e.Value.(*stored)
	if !now.Before(s.until) || now.Before(s.from) {
		c.remove(e)
		return nil
	}
	c.order.MoveToFront(e)
	return s
}

// put remembers an answer. What it holds must not be changed any more.
func (c *cache) put(s *stored) {
	if c.max <= 0 || len(s.data) > 4096 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byKey[s.key]; e != nil {
		c.remove(e)
	}
	c.byKey[s.key] = c.order.PushFront(s)
	c.bytes += s.size()
	for len(c.byKey) > c.max || c.bytes > maxCacheBytes {
		c.remove(c.order.Back())
	}
}

func (c *cache) remove(e *list.Element) {
	s := e.Value.(*stored)
	c.order.Remove(e)
	delete(c.byKey, s.key)
	c.bytes -= s.size()
}

func (s *stored) size() int { return len(s.data) + len(s.key) + 2*len(s.places) + 200 }

func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.byKey)
}

// appendFor appends the answer for one client. Limit is how many bytes it takes;
// when there are more, the answer says to ask by TCP.
func (s *stored) appendFor(b, request []byte, q *question, now time.Time, limit int) []byte {
	extra := 0
	if q.edns {
		extra = 11
	}
	if len(s.data)+extra > limit {
		return appendError(b, request, q, int(s.data[3]&15), flagTruncated)
	}
	at := len(b)
	b = append(b, s.data...)
	m := b[at:]
	be := binary.BigEndian
	be.PutUint16(m, q.id)
	flags := be.Uint16(m[2:])&^uint16(flagRecurse|flagUnchecked) | q.flags&(flagRecurse|flagUnchecked)
	be.PutUint16(m[2:], flags)
	copy(m[headerSize:s.end], request[headerSize:q.end])
	age := uint32(now.Sub(s.from) / time.Second)
	for _, p := range s.places {
		ttl := be.Uint32(m[p:])
		be.PutUint32(m[p:], ttl-min(ttl, age))
	}
	return appendOPT(b, at, q, 0)
}
