package classify

import (
	"bytes"
	"compress/gzip"
	_ "embed" // the corpus
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Sieve tells whether a file has enough of the words of any known text.
//
// The classifier compares a file with a text only when at least threshold of the
// text's distinct words are in the file, each as often as in the text. That is
// counted here for all texts at once, by an index from words to texts. Words that
// the classifier may write in another way than seen here, such as numbers, are taken
// for present.
type Sieve struct {
	words map[string]uint32 // number of a word
	posts [][]posting       // by the number of a word
	texts []text
	pool  sync.Pool // of *counts
}

// posting says that a text has a word, at least need times.
type posting struct{ text, need uint16 }

// text is one text of the corpus.
type text struct {
	distinct int // words
	free     int // of them, those that are taken for present
}

// counts is what is counted for one file.
type counts struct {
	words   []uint16 // by the number of a word
	touched []uint32 // the words that are not 0
	hits    []uint16 // by text
	token   token
}

// corpus is the index of the classifier's texts, as TestCorpus writes it: gzip of
// varints, with the words of each text as numbers that only grow.
//
//go:embed corpus.gz
var corpus []byte

// maxCorpus is the size of the unpacked index, in bytes, far above what it is.
const maxCorpus = 16 << 20

// NewSieve unpacks the index.
func NewSieve() (*Sieve, error) {
	z, err := gzip.NewReader(bytes.NewReader(corpus))
	if err != nil {
		return nil, fmt.Errorf("index of licence texts: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(z, maxCorpus))
	if err != nil {
		return nil, fmt.Errorf("index of licence texts: %w", err)
	}
	s, err := decodeIndex(data)
	if err != nil {
		return nil, fmt.Errorf("index of licence texts: %w", err)
	}
	return s, nil
}

// index is the corpus while it is made and when it is read.
type index struct {
	words []string
	texts []indexText
}

type indexText struct {
	distinct, free int
	words          map[uint32]int // how often, by the number of a word
}

var errIndex = errors.New("damaged")

// decodeIndex reads what encodeIndex writes.
func decodeIndex(data []byte) (*Sieve, error) {
	bad := false
	next := func() int {
		v, n := binary.Uvarint(data)
		if n <= 0 || v > maxCorpus {
			bad, data = true, nil
			return 0
		}
		data = data[n:]
		return int(v)
	}
	n := next()
	if n > len(data) {
		return nil, errIndex
	}
	s := &Sieve{words: make(map[string]uint32, n), posts: make([][]posting, n)}
	for i := range n {
		size := next()
		if size > len(data) {
			return nil, errIndex
		}
		s.words[string(data[:size])] = uint32(i)
		data = data[size:]
	}
	texts := next()
	if texts > len(data) {
		return nil, errIndex
	}
	for t := range texts {
		s.texts = append(s.texts, text{distinct: next(), free: next()})
		word := 0
		for range next() {
			word += next()
			need := next()
			if bad || word >= n || need > 1<<16-1 {
				return nil, errIndex
			}
			s.posts[word] = append(s.posts[word], posting{uint16(t), uint16(need)})
		}
	}
	if bad || len(data) > 0 {
		return nil, errIndex
	}
	s.pool.New = func() any {
		return &counts{words: make([]uint16, len(s.posts)), hits: make([]uint16, len(s.texts))}
	}
	return s, nil
}

// May reports whether the classifier would compare the content with any text.
func (s *Sieve) May(content []byte) bool {
	c := s.pool.Get().(*counts)
	defer func() {
		for _, w := range c.touched {
			c.words[w] = 0
		}
		c.touched = c.touched[:0]
		clear(c.hits)
		s.pool.Put(c)
	}()
	sure := c.token.words(content, func(word []byte) {
		if w, ok := s.words[string(word)]; ok {
			if c.words[w] == 0 {
				c.touched = append(c.touched, w)
			}
			if c.words[w] < 1<<16-1 {
				c.words[w]++
			}
		}
	})
	if !sure {
		return true
	}
	for _, w := range c.touched {
		n := c.words[w]
		for _, p := range s.posts[w] {
			if n >= p.need {
				c.hits[p.text]++
			}
		}
	}
	for i, t := range s.texts {
		if float64(int(c.hits[i])+t.free)/float64(t.distinct) >= threshold {
			return true
		}
	}
	return false
}
