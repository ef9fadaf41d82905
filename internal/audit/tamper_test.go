package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// tamper changes the chain as somebody who can write state.db would.
type tamper func(tx *state.Tx) error

func get(tx *state.Tx, seq uint64) []byte {
	return bytes.Clone(tx.Bucket(recordBucket()).Get(sequenceKey(seq)))
}

func put(tx *state.Tx, seq uint64, v []byte) error {
	return tx.Bucket(recordBucket()).Put(sequenceKey(seq), v)
}

// rewrite replaces the record from on with an innocent act, and makes the chain
// after it right again, up to its noted head.
func rewrite(tx *state.Tx, from uint64) error {
	var prev Hash
	if from > 1 {
		copy(prev[:], get(tx, from-1))
	}
	for seq := from; ; seq++ {
		v := get(tx, seq)
		if v == nil {
			return tx.Bucket(headBucket()).Put(headKey(), append(sequenceKey(seq-1), prev[:]...))
		}
		body := v[32:]
		if seq == from {
			_, a, err := decode(body)
			if err != nil {
				return err
			}
			a.Actor.User = "nobody"
			body = encode(seq, a)
		}
		prev = chain(prev, body)
		if err := put(tx, seq, append(prev[:len(prev):len(prev)], body...)); err != nil {
			return err
		}
	}
}

// cutAfter removes what follows a record, and its traces in the state.
func cutAfter(tx *state.Tx, last uint64) error {
	for _, name := range [][]byte{recordBucket(), signedBucket()} {
		b := tx.Bucket(name)
		for k, _ := b.Cursor().Last(); k != nil && bytes.Compare(k, sequenceKey(last)) > 0; k, _ = b.Cursor().Last() {
			if err := b.Delete(k); err != nil {
				return err
			}
		}
	}
	return tx.Bucket(headBucket()).Put(headKey(), append(sequenceKey(last), get(tx, last)[:32]...))
}

func TestTampering(t *testing.T) {
	for name, tc := range map[string]struct {
		do   tamper
		kind string
		seq  uint64
		what string
	}{
		"record changed": {func(tx *state.Tx) error {
			v := get(tx, 40)
			return put(tx, 40, bytes.Replace(v, []byte("ada"), []byte("eve"), 1))
		}, BadHash, 40, "its hash does not follow"},
		"record changed with its own hash": {func(tx *state.Tx) error {
			v := bytes.Replace(get(tx, 40), []byte("ada"), []byte("eve"), 1)
			var prev Hash
			copy(prev[:], get(tx, 39))
			h := chain(prev, v[32:])
			return put(tx, 40, append(h[:], v[32:]...))
		}, BadHash, 41, "one of the two was changed"},
		"everything after it made right": {func(tx *state.Tx) error { return rewrite(tx, 40) }, BadSignature, 65, "a record up to this one was replaced"},
		"after the last signature": {func(tx *state.Tx) error {
			return put(tx, 120, bytes.Replace(get(tx, 120), []byte("ada"), []byte("eve"), 1))
		}, BadHash, 120, ""},
		"removed in the middle":    {func(tx *state.Tx) error { return tx.Bucket(recordBucket()).Delete(sequenceKey(41)) }, BadGap, 41, "record 42 follows record 40"},
		"removed at the beginning": {func(tx *state.Tx) error { return tx.Bucket(recordBucket()).Delete(sequenceKey(1)) }, BadGap, 1, "record 2 follows record 0"},
		"reordered": {func(tx *state.Tx) error {
			a, b := get(tx, 40), get(tx, 41)
			return errors.Join(put(tx, 40, b), put(tx, 41, a))
		}, BadRecord, 40, "record 40 says it is record 41"},
		"record cut off":   {func(tx *state.Tx) error { return put(tx, 40, get(tx, 40)[:60]) }, BadRecord, 40, "is cut off at byte"},
		"not even a hash":  {func(tx *state.Tx) error { return put(tx, 40, []byte("x")) }, BadRecord, 40, "record 40 is cut off"},
		"foreign key":      {func(tx *state.Tx) error { return tx.Bucket(recordBucket()).Put([]byte("\x00\x01"), []byte("x")) }, BadRecord, 121, "no sequence number"},
		"last record gone": {func(tx *state.Tx) error { return tx.Bucket(recordBucket()).Delete(sequenceKey(120)) }, BadTail, 119, "the head in the state says 120 records, the chain ends at 119"},
		"record appended":  {func(tx *state.Tx) error { return put(tx, 121, get(tx, 120)) }, BadRecord, 121, "says it is record 120"},
		"tail cut":         {func(tx *state.Tx) error { return cutAfter(tx, 50) }, BadTail, 50, "says 65 records, the chain ends at 50"},
		"everything removed": {func(tx *state.Tx) error {
			return errors.Join(tx.DeleteBucket(recordBucket()), tx.DeleteBucket(headBucket()), tx.DeleteBucket(signedBucket()))
		}, BadTail, 0, "says 65 records, the chain ends at 0"},
		"head changed": {func(tx *state.Tx) error {
			return tx.Bucket(headBucket()).Put(headKey(), append(sequenceKey(120), make([]byte, 32)...))
		}, BadHead, 120, "not the hash of its last record"},
		"signature forged": {func(tx *state.Tx) error {
			h, err := lastSigned(tx)
			if err != nil {
				return err
			}
			_, key, err := ed25519.GenerateKey(nil)
			if err != nil {
				return err
			}
			h.Signature = base64.StdEncoding.EncodeToString(ed25519.Sign(key, h.message()))
			h.PublicKey = base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
			return tx.Bucket(signedBucket()).Put(sequenceKey(h.Sequence), h.encode())
		}, BadSignature, 65, "its signature is not valid under the key"},
		"signature moved": {func(tx *state.Tx) error {
			h, err := lastSigned(tx)
			if err != nil {
				return err
			}
			return tx.Bucket(signedBucket()).Put(sequenceKey(66), h.encode())
		}, BadSignature, 66, "it is of record 65"},
	} {
		t.Run(name, func(t *testing.T) {
			l, s := newLog(t.TempDir())
			grow(t, l, 120)
			if err := s.Update(ctx, tc.do); err != nil {
				t.Fatal(err)
			}
			v, err := l.Verify(ctx, VerifyOptions{})
			b := v.Breach
			if b == nil || !errors.Is(err, ErrBroken) || failure.KindOf(err) != failure.Untrustworthy {
				t.Fatalf("%+v, %v; want a breach", v, err)
			}
			if b.Kind != tc.kind || b.Sequence != tc.seq || !strings.Contains(b.What, tc.what) {
				t.Errorf("%s at %d: %s; want %s at %d: …%s…", b.Kind, b.Sequence, b.What, tc.kind, tc.seq, tc.what)
			}
		})
	}
}

func TestAppendRepairsNothing(t *testing.T) {
	for name, do := range map[string]tamper{
		"last record gone":    func(tx *state.Tx) error { return tx.Bucket(recordBucket()).Delete(sequenceKey(10)) },
		"last record changed": func(tx *state.Tx) error { return put(tx, 10, append(make([]byte, 32), get(tx, 10)[32:]...)) },
		"head gone":           func(tx *state.Tx) error { return tx.Bucket(headBucket()).Delete(headKey()) },
		"head cut off":        func(tx *state.Tx) error { return tx.Bucket(headBucket()).Put(headKey(), []byte("x")) },
	} {
		t.Run(name, func(t *testing.T) {
			l, s := newLog(t.TempDir())
			grow(t, l, 10)
			if err := s.Update(ctx, do); err != nil {
				t.Fatal(err)
			}
			before := everything(t, s)
			if seq, err := l.Append(ctx, act(0)); seq != 0 || !errors.Is(err, ErrBroken) {
				t.Errorf("%d, %v; want ErrBroken", seq, err)
			}
			if _, _, err := l.Sign(ctx, true); !errors.Is(err, ErrBroken) {
				t.Errorf("Sign: %v; want ErrBroken", err)
			}
			if everything(t, s) != before {
				t.Error("something was changed")
			}
		})
	}
}

func everything(t *testing.T, s *state.Store) string {
	t.Helper()
	var b strings.Builder
	err := s.View(ctx, func(tx *state.Tx) error {
		for _, name := range [][]byte{recordBucket(), headBucket(), signedBucket()} {
			if err := tx.Bucket(name).ForEach(func(k, v []byte) error {
				b.WriteString(string(k) + "=" + string(v) + "\n")
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A head file that speaks of more than the chain has is evidence.
func TestHeadFileIsKeptWhileItAccuses(t *testing.T) {
	l, s := newLog(t.TempDir())
	grow(t, l, 120)
	if err := s.Update(ctx, func(tx *state.Tx) error { return cutAfter(tx, 50) }); err != nil {
		t.Fatal(err)
	}
	evidence, err := os.ReadFile(l.HeadFile())
	if err != nil {
		t.Fatal(err)
	}
	var refused error
	for i := range 100 { // also when the chain has grown past it again
		seq, err := l.Append(ctx, act(i))
		if seq != uint64(51+i) {
			t.Fatalf("act %d became record %d, %v", i, seq, err)
		}
		refused = errors.Join(refused, err)
	}
	if !errors.Is(refused, ErrBroken) {
		t.Errorf("signing went on: %v", refused)
	}
	if now, _ := os.ReadFile(l.HeadFile()); !bytes.Equal(now, evidence) {
		t.Error("the head file was overwritten")
	}
	if v, err := l.Verify(ctx, VerifyOptions{}); v.Breach == nil || v.Breach.Sequence != 65 {
		t.Errorf("%+v, %v; want a breach at 65", v.Breach, err)
	}
	if _, _, err := l.Sign(ctx, false); !errors.Is(err, ErrBroken) {
		t.Errorf("Sign: %v; want ErrBroken", err)
	}
	h, kept, err := l.Sign(ctx, true)
	if err != nil || h.Sequence != 150 {
		t.Fatalf("Sign with force: %+v, %v", h, err)
	}
	if b, err := os.ReadFile(kept); err != nil || !bytes.Equal(b, evidence) {
		t.Errorf("the evidence was not kept: %v", err)
	}
	if _, err := l.Verify(ctx, VerifyOptions{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if v, err := l.Verify(ctx, VerifyOptions{HeadFile: kept}); v.Breach == nil {
		t.Errorf("with the evidence: %v; want a breach", err)
	}
}

func TestHeadFileAndKeyThatAreWrong(t *testing.T) {
	dir := t.TempDir()
	l, _ := newLog(dir)
	grow(t, l, 5)
	other, _ := newLog(t.TempDir())
	grow(t, other, 5)
	_, otherKey := other.KeyFiles()
	head, err := os.ReadFile(l.HeadFile())
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) string {
		path := dir + "/" + name
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, tc := range map[string]struct {
		opts VerifyOptions
		kind failure.Kind
		what string
	}{
		"another host's head": {VerifyOptions{HeadFile: other.HeadFile()}, failure.Untrustworthy, "is not valid under the key"},
		"another key":         {VerifyOptions{PublicKey: otherKey}, failure.Untrustworthy, "is not valid under the key"},
		"no such head":        {VerifyOptions{HeadFile: dir + "/none"}, failure.Failed, "no such file"},
		"no such key":         {VerifyOptions{PublicKey: dir + "/none"}, failure.Failed, "no such file"},
		"not a key":           {VerifyOptions{PublicKey: write("text", "hello")}, failure.Untrustworthy, "not a PEM file"},
		"private key":         {VerifyOptions{PublicKey: dir + "/state/keys/audit.key"}, failure.Untrustworthy, "not a PEM file with a PUBLIC KEY"},
		"not a head":          {VerifyOptions{HeadFile: write("h1", "{}")}, failure.Untrustworthy, "not a signed head"},
		"changed head":        {VerifyOptions{HeadFile: write("h2", strings.Replace(string(head), `"sequence": 1`, `"sequence": 4`, 1))}, failure.Untrustworthy, "is not valid under the key"},
		"huge head":           {VerifyOptions{HeadFile: write("h3", strings.Repeat(" ", maxHeadFile+1))}, failure.Untrustworthy, "larger than"},
	} {
		if _, err := l.Verify(ctx, tc.opts); failure.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.what) {
			t.Errorf("%s: %v; want %q", name, err, tc.what)
		}
	}
	if err := os.Remove(l.HeadFile()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Verify(ctx, VerifyOptions{}); failure.KindOf(err) != failure.Incomplete || !strings.Contains(err.Error(), "would not be noticed") {
		t.Errorf("no head file: %v; want Incomplete", err)
	}
}
