package history

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/audit"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/integrity/history/anchor"
	"github.com/mobileops/mobileops/internal/state"
)

const (
	thisHost  = "00112233445566778899aabbccddeeff"
	otherHost = "ffeeddccbbaa99887766554433221100"
)

// bench is a history in a state directory of its own.
type bench struct {
	*testing.T
	log *Log
	at  time.Time // what its clock says
}

func newBench(t *testing.T) *bench {
	b := &bench{T: t, at: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	b.open(t.TempDir(), Options{Tool: "test", Host: thisHost})
	return b
}

func (b *bench) open(dir string, o Options) {
	b.log = New(state.New(dir, state.Options{}), o)
	b.log.now = func() time.Time { return b.at }
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// act is a record of a baseline called name.
func act(name, id string) Record {
	r := Record{Kind: Baseline, Actor: audit.Actor{UID: 0, User: "root", LoginUID: 1000}, Name: name, ID: id, Policy: "system", Reason: "a <b> & ü"}
	r.Root[0], r.PolicyDigest[0] = id[0], 7
	return r
}

// append appends records as an engine does, an hour apart.
func (b *bench) append(records ...Record) (out Record) {
	b.Helper()
	out, err := b.try(records...)
	b.must(err)
	return out
}

func (b *bench) try(records ...Record) (out Record, err error) {
	for _, r := range records {
		b.at = b.at.Add(time.Hour)
		pen, err := b.log.Pen(context.Background())
		if err != nil {
			return out, err
		}
		err = b.log.store.Update(context.Background(), func(tx *state.Tx) (err error) {
			out, err = pen.Append(tx, r)
			return err
		})
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

func (b *bench) verify() *Verification {
	b.Helper()
	v, err := b.log.Verify(context.Background())
	b.must(err)
	return v
}

// wants verifies and wants one problem that says text; "" wants none.
func (b *bench) wants(text string) *Verification {
	b.Helper()
	v := b.verify()
	switch {
	case text == "" && len(v.Problems) > 0:
		b.Errorf("problems: %+v", v.Problems)
	case text != "" && (len(v.Problems) == 0 || !strings.Contains(v.Problems[0].What, text)):
		b.Errorf("problems %+v, want %q", v.Problems, text)
	case text != "" && v.Kind() != failure.Untrustworthy:
		b.Errorf("kind %v", v.Kind())
	}
	return v
}

// entry returns a record as it is kept.
func (b *bench) entry(n uint64) *Entry {
	b.Helper()
	c, err := b.log.Chain(context.Background())
	b.must(err)
	e, err := c.Record(n)
	b.must(err)
	return e
}

// tamper changes the bucket as somebody would who can write state.db.
func (b *bench) tamper(fn func(bucket *boltBucket)) {
	b.Helper()
	b.must(b.log.store.Update(context.Background(), func(tx *state.Tx) error {
		fn(tx.Bucket(recordBucket()))
		return nil
	}))
}

func TestChain(t *testing.T) {
	b := newBench(t)
	if v := b.wants(""); v.Records != 0 || v.Head != nil {
		t.Errorf("empty: %+v", v)
	}
	b.append(act("default", "aaaa"), act("app", "bbbb"))
	last := b.append(act("default", "cccc"))
	if last.Counter != 3 || last.Host != thisHost || last.Boot == "" || !last.Time.Equal(b.at) {
		t.Errorf("record %+v", last)
	}
	v := b.wants("")
	if v.Records != 3 || v.Signed != 3 || v.Head.Counter != 3 || v.Kind() != failure.None {
		t.Errorf("verification %+v", v)
	}
	if v.Current("default").ID != "cccc" || v.Current("app").ID != "bbbb" || v.Known("aaaa").Counter != 1 {
		t.Errorf("current baselines are not those of the last records")
	}
	gone := act("app", "bbbb")
	gone.Kind = Removal
	b.append(gone)
	if v := b.wants(""); v.Current("app") != nil || v.Known("bbbb") != nil {
		t.Error("a removed baseline is still known")
	}
	private, public := b.log.KeyFiles()
	for path, mode := range map[string]os.FileMode{private: 0o600, public: 0o644} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%s: %v %v", path, st, err)
		}
	}
}

// What somebody can do who writes state.db, and cannot sign.
func TestAttacksOnTheChain(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(b *bench)
		want string
	}{
		"altered": {func(b *bench) {
			e := b.entry(2)
			body := bytes.Replace(e.Body, []byte(`"policy":"system"`), []byte(`"policy":"slack!"`), 1)
			b.tamper(func(k *boltBucket) { k.Put(counterKey(2), encodeEntry(body, e.Signature)) })
		}, "record 2: its signature is not valid"},
		"removed from the middle": {func(b *bench) {
			b.tamper(func(k *boltBucket) { k.Delete(counterKey(2)) })
		}, "record 2 is missing: the next one is 3"},
		"removed from the beginning": {func(b *bench) {
			b.tamper(func(k *boltBucket) { k.Delete(counterKey(1)) })
		}, "record 1 is missing: the next one is 2"},
		"cut at the tail": {func(b *bench) {
			b.tamper(func(k *boltBucket) { k.Delete(counterKey(4)) })
		}, "4 records were written, and the last one is 3"},
		"all removed": {func(b *bench) {
			b.tamper(func(k *boltBucket) {
				for n := range uint64(4) {
					k.Delete(counterKey(n + 1))
				}
			})
		}, "all of its records are gone"},
		"bucket removed": {func(b *bench) {
			b.must(b.log.store.Update(b.Context(), func(tx *state.Tx) error {
				return errors.Join(tx.DeleteBucket(recordBucket()), tx.DeleteBucket(metaBucket()))
			}))
		}, "all of its records are gone"},
		"signatures swapped": {func(b *bench) {
			two, three := b.entry(2), b.entry(3)
			b.tamper(func(k *boltBucket) {
				k.Put(counterKey(2), encodeEntry(two.Body, three.Signature))
				k.Put(counterKey(3), encodeEntry(three.Body, two.Signature))
			})
		}, "record 2: its signature is not valid"},
		"signature removed": {func(b *bench) {
			e := b.entry(2)
			b.tamper(func(k *boltBucket) { k.Put(counterKey(2), encodeEntry(e.Body, nil)) })
		}, "record 2 is not signed"},
		"records swapped": {func(b *bench) {
			two, three := b.entry(2), b.entry(3)
			b.tamper(func(k *boltBucket) {
				k.Put(counterKey(2), encodeEntry(three.Body, three.Signature))
				k.Put(counterKey(3), encodeEntry(two.Body, two.Signature))
			})
		}, "record 2 cannot be read: it says that it is record 3"},
		"cut short": {func(b *bench) {
			e := b.entry(2)
			b.tamper(func(k *boltBucket) { k.Put(counterKey(2), encodeEntry(e.Body, nil)[:100]) })
		}, "record 2 cannot be read: it is cut off"},
		"a record by another key": {func(b *bench) {
			_, key, err := minisign.GenerateKey(nil)
			b.must(err)
			e := b.entry(4)
			r := e.Record
			r.Signer = publicOf(&key).String()
			body, err := r.encode()
			b.must(err)
			b.tamper(func(k *boltBucket) { k.Put(counterKey(4), encodeEntry(body, signRecord(key, &r, body))) })
		}, "was in force"},
		"key replaced": {func(b *bench) {
			pub, key, err := minisign.GenerateKey(nil)
			b.must(err)
			b.must(b.log.writeKeys(&key, pub))
		}, "was the key, or the history, replaced?"},
		"all signed anew by another key": {func(b *bench) {
			// Everything fits together again: an anchor shows it, see TestAnchors.
			resign(b)
		}, ""},
		"public key removed": {func(b *bench) {
			private, public := b.log.KeyFiles()
			b.must(errors.Join(os.Remove(private), os.Remove(public)))
		}, "the public key is gone"},
		"readable key": {func(b *bench) {
			private, _ := b.log.KeyFiles()
			b.must(os.Chmod(private, 0o640))
		}, "others than its owner can read the signing key"},
		"a FIFO for a key": {func(b *bench) {
			private, _ := b.log.KeyFiles()
			b.must(errors.Join(os.Remove(private), syscall.Mkfifo(private, 0o600)))
		}, "is not a regular file"},
		"key of another user": {func(b *bench) {
			if os.Geteuid() != 0 {
				b.Skip("giving a file to another user wants root")
			}
			private, _ := b.log.KeyFiles()
			b.must(os.Chown(private, 65534, 65534))
		}, "belongs to another user (uid 65534), who can read and replace it"},
		"another host": {func(b *bench) {
			b.open(b.log.store.Dir(), Options{Host: otherHost})
		}, "this state directory is a copy"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.append(act("default", "aaaa"), act("default", "bbbb"), act("default", "cccc"), act("default", "dddd"))
			b.wants("")
			c.do(b)
			b.wants(c.want)
		})
	}
}

// resign replaces the key and signs a history with other roots, as root can
// who has all of the state directory.
func resign(b *bench) {
	b.Helper()
	pub, key, err := minisign.GenerateKey(nil)
	b.must(err)
	var list []Record
	for n := range uint64(4) {
		r := b.entry(n + 1).Record
		r.Signer, r.Root[1] = pub.String(), 66
		list = append(list, r)
	}
	b.tamper(func(k *boltBucket) {
		var before Digest
		for i := range list {
			list[i].Previous = before
			body, err := list[i].encode()
			b.must(err)
			before = digestOf(body)
			b.must(k.Put(counterKey(list[i].Counter), encodeEntry(body, signRecord(key, &list[i], body))))
		}
	})
	b.must(b.log.writeKeys(&key, pub))
}

func TestClock(t *testing.T) {
	b := newBench(t)
	b.append(act("default", "aaaa"))
	b.at = b.at.Add(-48 * time.Hour)
	b.append(act("default", "bbbb"))
	v := b.wants("")
	if len(v.Warnings) != 1 || v.Warnings[0] != "the clock was set back by 47h0m0s between record 1 and 2" || v.Kind() != failure.None {
		t.Errorf("%q", v.Warnings)
	}
	b.at = b.at.Add(-time.Hour)
	if v := b.wants(""); len(v.Warnings) != 2 || v.Warnings[1] != "record 2 is 1h0m0s ahead of the clock: was the clock set back?" {
		t.Errorf("%q", v.Warnings)
	}
}

// A state directory that came to another host is refused until somebody looks
// at that host afresh; the history says so for good.
func TestHostChanged(t *testing.T) {
	b := newBench(t)
	b.append(act("default", "aaaa"))
	b.open(b.log.store.Dir(), Options{Host: otherHost})
	accepted := act("default", "bbbb")
	accepted.Kind = Acceptance
	if _, err := b.try(accepted); !errors.Is(err, ErrBroken) {
		t.Errorf("accepted on another host: %v", err)
	}
	b.append(act("default", "cccc"))
	if v := b.wants(""); len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0], "between record 1 and 2") {
		t.Errorf("%q", v.Warnings)
	}
}

func TestAnchors(t *testing.T) {
	b := newBench(t)
	b.append(act("default", "aaaa"), act("default", "bbbb"))
	anchorOf := func() anchor.Anchor {
		a, err := b.log.Anchor(b.verify())
		b.must(err)
		return a
	}
	judge := func(a anchor.Anchor, want Verdict) {
		t.Helper()
		if got, why := b.verify().Judge(&a, thisHost); got != want {
			t.Errorf("%s (%s), want %s", got, why, want)
		}
	}
	two := anchorOf()
	judge(two, Matches)
	// A whole copy of the state directory, which is put back later.
	copied := t.TempDir()
	b.must(os.CopyFS(filepath.Join(copied, "state"), os.DirFS(b.log.store.Dir())))
	b.append(act("default", "cccc"), act("default", "dddd"))
	four := anchorOf()
	judge(two, Matches)
	judge(four, Matches)
	_, err := b.log.Rotate(t.Context(), Record{})
	b.must(err)
	six := anchorOf()
	judge(two, Matches)
	judge(six, Matches)

	forged := four
	forged.Digest[0] ^= 1
	judge(forged, Forged)
	forged.Signature = nil
	judge(forged, Rewritten)
	forged.Counter = 99
	if got, why := b.verify().Judge(&forged, thisHost); got != RolledBack || !strings.Contains(why, "may have made it up") {
		t.Errorf("an unsigned anchor of a record that never was: %s, %s", got, why)
	}
	other := four
	other.Host = otherHost
	judge(other, OtherHost)

	b.open(filepath.Join(copied, "state"), Options{Host: thisHost})
	b.must(os.Chmod(filepath.Join(copied, "state"), 0o700))
	private, _ := b.log.KeyFiles()
	b.must(os.Chmod(private, 0o600)) // os.CopyFS sets its own
	b.wants("")                      // it is a valid history
	judge(two, Matches)
	judge(four, RolledBack)
	judge(six, RolledBack)
	b.append(act("default", "eeee"), act("default", "ffff"))
	judge(four, Rewritten)
	resign(b)
	b.wants("")
	judge(four, Forged)
	four.Signature = nil
	judge(four, Rewritten)
}

// A check verifies the last signature only; that is as good, but for
// signatures that prove nothing more.
func TestQuick(t *testing.T) {
	b := newBench(t)
	b.append(act("default", "aaaa"), act("default", "bbbb"))
	_, err := b.log.Rotate(t.Context(), Record{})
	b.must(err)
	b.append(act("default", "cccc"), act("default", "dddd"))
	quick := func() *Verification {
		c, err := b.log.Chain(t.Context())
		b.must(err)
		v, err := b.log.VerifyChain(c, true)
		b.must(err)
		return v
	}
	if v := quick(); v.Kind() != failure.None || v.Signed != 2 || v.Covered != 4 {
		t.Errorf("%+v", v)
	}
	one, six := b.entry(1), b.entry(6)
	b.tamper(func(k *boltBucket) { k.Put(counterKey(1), encodeEntry(one.Body, six.Signature)) })
	if v := quick(); v.Kind() != failure.None {
		t.Errorf("%+v", v)
	}
	b.wants("record 1: it is signed by the key")
	b.tamper(func(k *boltBucket) {
		k.Put(counterKey(1), encodeEntry(one.Body, one.Signature))
		k.Put(counterKey(6), encodeEntry(six.Body, one.Signature))
	})
	if v := quick(); len(v.Problems) != 1 || v.Problems[0].Counter != 6 {
		t.Errorf("%+v", v)
	}
	b.wants("record 6: it is signed by the key")
	body := bytes.Replace(b.entry(2).Body, []byte(`"policy":"system"`), []byte(`"policy":"slack!"`), 1)
	b.tamper(func(k *boltBucket) {
		k.Put(counterKey(2), encodeEntry(body, nil))
		k.Put(counterKey(6), encodeEntry(six.Body, six.Signature))
	})
	if v := quick(); len(v.Problems) == 0 {
		t.Errorf("%+v", v)
	}
}
