package history

import (
	"crypto/ed25519"
	"fmt"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/history/anchor"
)

// Anchor returns the anchor of the last record of a verified history, signed
// when the private key is here. A history that is broken has none.
func (l *Log) Anchor(v *Verification) (anchor.Anchor, error) {
	if len(v.Problems) > 0 {
		return anchor.Anchor{}, failure.Hint(fmt.Errorf("%w: %s", ErrBroken, v.Problems[0].What), "an anchor would vouch for it; see what is wrong: mobileops integrity history")
	}
	if v.Head == nil {
		return anchor.Anchor{}, failure.Hint(failure.New(failure.NotReady, "the history has no record yet"), "take a baseline: mobileops integrity baseline")
	}
	a := anchor.Anchor{Host: v.Head.Host, Counter: v.Head.Counter, Digest: v.Head.Digest, Time: seconds(l.now())}
	k, err := l.readKeys()
	if err != nil {
		return anchor.Anchor{}, err
	}
	if k.private != nil && publicOf(k.private).String() == v.Key {
		var s minisign.Signature
		if err := s.UnmarshalText(minisign.Sign(*k.private, a.Message())); err != nil {
			return anchor.Anchor{}, err
		}
		a.Signature = s.Signature[:]
	}
	return a, nil
}

// Verdict is how an anchor relates to a history.
type Verdict string

// The verdicts.
const (
	Matches    Verdict = "matches"     // the history has the record, and it is as it was
	RolledBack Verdict = "rolled-back" // the history ends before the record
	Rewritten  Verdict = "rewritten"   // the history has another record in its place
	Forged     Verdict = "forged"      // the anchor's signature is not valid
	OtherHost  Verdict = "other-host"  // it is an anchor of another host
)

// Judge compares an anchor with a verified history, and says in words what it
// found.
func (v *Verification) Judge(a *anchor.Anchor, host string) (Verdict, string) {
	if v.Head != nil {
		host = v.Head.Host
	}
	n := uint64(len(v.digests))
	signer := v.Key
	if a.Counter <= n {
		signer = v.signers[a.Counter-1]
	}
	doubt := "" // a key that came after what is left of the history is not known here
	if a.Counter > n && a.Signature != nil && !v.signedBy(a, signer) {
		doubt = "; its signature is by a key that is not known here"
	}
	if a.Counter > n && a.Signature == nil && v.Head != nil && !v.Elsewhere {
		doubt = "; it is not signed, although the key is on this host, so whoever can write to the place may have made it up"
	}
	switch {
	case a.Host != host:
		return OtherHost, fmt.Sprintf("it is of the host %s, and this history is of %s", a.Host, host)
	case a.Counter <= n && a.Signature != nil && !v.signedBy(a, signer) && !v.signedBy(a, v.nextSigner(a.Counter)):
		return Forged, fmt.Sprintf("its signature is not by the key %s of the history", keyName(signer))
	case a.Counter > n && n == 0 && len(v.Problems) == 0:
		return RolledBack, fmt.Sprintf("it knows record %d, and there is no history here: it was removed%s", a.Counter, doubt)
	case a.Counter > n && len(v.Problems) > 0:
		return RolledBack, fmt.Sprintf("it knows record %d, and the history cannot be followed beyond record %d%s", a.Counter, n, doubt)
	case a.Counter > n:
		return RolledBack, fmt.Sprintf("it knows record %d, and the history ends with record %d: it was put back to an earlier state%s", a.Counter, n, doubt)
	case v.digests[a.Counter-1] != a.Digest:
		return Rewritten, fmt.Sprintf("its record %d is another one: the history was rewritten", a.Counter)
	}
	return Matches, ""
}

// nextSigner is the key that was in force after a record: anchors are signed
// after the record, by a key that the record may have changed.
func (v *Verification) nextSigner(counter uint64) string {
	if counter < uint64(len(v.signers)) {
		return v.signers[counter]
	}
	return v.Key
}

func (v *Verification) signedBy(a *anchor.Anchor, key string) bool {
	pub, err := ParsePublicKey(key)
	return err == nil && ed25519.Verify(publicBytes(pub), a.Message(), a.Signature)
}
