package update

import (
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"sync"

	"crypto/sha256"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/trust"
)

// proof is what vouches for a package: its own signature, or the metadata of a
// repository. The bytes of the package are written to it.
type proof interface {
	io.Writer
	Release() trust.Release
	Verify() error
	Digest() string // BLAKE2b-512 of what was written
	by() string     // the key
}

// signed is the proof by a signature of its own.
type signed struct{ *trust.Verifier }

func (s signed) by() string { return s.Key().ID() }

// Listed says what the verified metadata of a repository has about a package.
type Listed struct {
	Release trust.Release
	SHA256  []byte
	Length  int64
	Source  string // the repository
}

// listed is the proof by that metadata.
type listed struct {
	Listed
	sha, blake hash.Hash
	n          int64
}

func newListed(l Listed) *listed {
	return &listed{Listed: l, sha: sha256.New(), blake: trust.NewDigest()}
}

func (l *listed) Write(p []byte) (int, error) {
	l.sha.Write(p)
	l.blake.Write(p)
	l.n += int64(len(p))
	return len(p), nil
}

func (l *listed) Release() trust.Release { return l.Listed.Release }
func (l *listed) Digest() string         { return hex.EncodeToString(l.blake.Sum(nil)) }
func (l *listed) by() string             { return "" }

func (l *listed) Verify() error {
	if l.n != l.Length || string(l.sha.Sum(nil)) != string(l.SHA256) {
		return failure.Hint(failure.Errorf(failure.Untrustworthy, "it is not the package that the repository lists"), "download it again: mobileops update download")
	}
	return nil
}

// beside is a reader that shows everything that is read through it to a proof,
// which computes its digests on another processor meanwhile.
type beside struct {
	io.Reader
	work chan []byte
	free chan []byte
	done sync.WaitGroup
}

const besideChunk = 256 << 10

func newBeside(r io.Reader, w io.Writer) *beside {
	b := &beside{Reader: r, work: make(chan []byte, 4), free: make(chan []byte, 4)}
	for range cap(b.free) {
		b.free <- make([]byte, 0, besideChunk)
	}
	b.done.Go(func() {
		for p := range b.work {
			w.Write(p) // digests do not fail
			b.free <- p[:0]
		}
	})
	return b
}

func (b *beside) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p[:min(len(p), besideChunk)])
	if n > 0 {
		b.work <- append(<-b.free, p[:n]...)
	}
	return n, err
}

// wait returns when the proof has seen everything. Nothing is to be read
// afterwards.
func (b *beside) wait() {
	close(b.work)
	b.done.Wait()
}

// described is what a package says of itself, in a few words.
func described(r trust.Release) string { return fmt.Sprintf("%s %s", r.Name, r.Version) }
