package store

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"sync"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/seal"
)

// Each generation of an encrypted write-ahead log has a data key of its own,
// drawn at random, that is sealed in its header for those who can read the
// segments.

const walKeySize = 32

// errLocked is for a generation that this host cannot read, and never could but
// in the process that wrote it.
var errLocked = failure.New(failure.NotReady, "the write-ahead log is encrypted, and there is no key to open it")

// writesOnly says that what is collected here is for readers elsewhere. A
// generation of a collector that was killed is one that nobody here can read;
// waiting for a key would end collecting for good.
func (s *Store) writesOnly() bool {
	return len(s.opts.Recipients) > 0 && len(s.opts.Identities) == 0
}

func (p place) sealContext() string {
	return fmt.Sprintf("mobileops logs wal %d of store %s", p.generation, p.store)
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// newWALKey draws a data key; without recipients there is none.
func (s *Store) newWALKey(p place) (cipher.AEAD, []byte, error) {
	if len(s.opts.Recipients) == 0 {
		return nil, nil, nil
	}
	key := make([]byte, walKeySize)
	rand.Read(key) // never fails: crypto/rand.Read
	defer clear(key)
	var sealed bytes.Buffer
	w, err := seal.NewWriter(&sealed, p.sealContext(), s.opts.Recipients, seal.Options{Workers: 1})
	if err != nil {
		return nil, nil, err
	}
	if _, err := w.Write(key); err != nil {
		w.Abort()
		return nil, nil, err
	}
	if err := w.Close(); err != nil {
		return nil, nil, err
	}
	aead, err := newAEAD(key)
	return aead, sealed.Bytes(), err
}

// walKeys are the data keys of the generations that this process made. It can
// have no other way to them: whoever collects may not be able to read.
type walKeys struct {
	mu    sync.Mutex
	aeads map[place]cipher.AEAD
}

func (k *walKeys) get(p place) cipher.AEAD {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.aeads[p]
}

func (k *walKeys) put(p place, aead cipher.AEAD) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.aeads == nil {
		k.aeads = map[place]cipher.AEAD{}
	}
	k.aeads[p] = aead
}

// forget drops the keys up to a generation.
func (k *walKeys) forget(upTo uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	maps.DeleteFunc(k.aeads, func(p place, _ cipher.AEAD) bool { return p.generation <= upTo })
}

// openWALKey opens the data key in the header of a generation.
func (s *Store) openWALKey(p place, sealed []byte) (cipher.AEAD, error) {
	if aead := s.keys.get(p); aead != nil {
		return aead, nil
	}
	if len(s.opts.Identities) == 0 {
		return nil, failure.Hint(errLocked,
			"name a key file: logs.identities in the configuration")
	}
	o, err := seal.Open(bytes.NewReader(sealed), int64(len(sealed)), p.sealContext(), s.opts.Identities)
	if err != nil {
		return nil, err
	}
	if o.Size() != walKeySize {
		return nil, failure.New(failure.Untrustworthy, "the key of the write-ahead log is not one")
	}
	key := make([]byte, walKeySize)
	defer clear(key)
	if _, err := o.ReadAt(key, 0); err != nil {
		return nil, err
	}
	return newAEAD(key)
}

// generation is a generation of the write-ahead log that is appended to.
type generation struct {
	place
	file *os.File
	aead cipher.AEAD // nil: not encrypted
	end  int64       // behind the last whole frame
}

// createGeneration makes a generation without frames.
func (s *Store) createGeneration(store storeID, n uint64) (*generation, error) {
	p := place{store, n}
	aead, sealed, err := s.newWALKey(p)
	if err != nil {
		return nil, err
	}
	f, end, err := createWAL(s.walDir(), p, s.opts.Now(), sealed)
	if err != nil {
		return nil, access(err)
	}
	if aead != nil {
		s.keys.put(p, aead)
	}
	return &generation{place: p, file: f, aead: aead, end: end}, nil
}

// readGeneration opens a generation for reading, with its key.
func (s *Store) readGeneration(store storeID, n uint64) (*walReader, error) {
	p := place{store, n}
	return openWAL(walPath(s, n), p, func(sealed []byte) (cipher.AEAD, error) { return s.openWALKey(p, sealed) })
}
