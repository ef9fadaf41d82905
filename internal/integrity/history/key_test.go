package history

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aead.dev/minisign"
	"github.com/mobileops/mobileops/internal/failure"
)

// The private key is never silently replaced.
func TestKeyGone(t *testing.T) {
	b := newBench(t)
	b.append(act("default", "aaaa"))
	private, public := b.log.KeyFiles()
	kept, err := os.ReadFile(private)
	b.must(err)
	b.must(os.Remove(private))
	if _, err := b.try(act("default", "bbbb")); failure.KindOf(err) != failure.Untrustworthy || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("without the key: %v", err)
	}
	if v := b.wants(""); len(v.Warnings) != 1 || v.Records != 1 {
		t.Errorf("%+v", v)
	}
	b.must(os.Remove(public))
	if _, err := b.try(act("default", "bbbb")); failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("without both halves: %v", err)
	}
	if _, err := os.Stat(private); err == nil {
		t.Error("a new key was made")
	}
	if _, err := b.log.Rotate(t.Context(), Record{}); failure.KindOf(err) != failure.Untrustworthy || !strings.Contains(err.Error(), "--lost") {
		t.Errorf("rotate without both halves: %v", err)
	}
	b.must(os.WriteFile(private, kept, 0o600))
	b.append(act("default", "bbbb")) // the public half follows from the private one
	b.must(os.Remove(private))
	if _, err := b.log.Rotate(t.Context(), Record{}); failure.KindOf(err) != failure.NotReady {
		t.Errorf("rotate without the key: %v", err)
	}
	_, err = b.log.Rotate(t.Context(), Record{Lost: true})
	b.must(err)
	b.append(act("default", "cccc"))
	// As after a restored state.db, which comes without keys.
	b.must(os.RemoveAll(filepath.Dir(private)))
	b.wants("the public key is gone")
	_, err = b.log.Rotate(t.Context(), Record{Lost: true})
	b.must(err)
	b.append(act("default", "dddd"))
	if v := b.wants(""); len(v.Warnings) != 2 || !strings.Contains(v.Warnings[0], "record 3 replaced a key that was said to be lost") {
		t.Errorf("%q", v.Warnings)
	}
}

func TestRotate(t *testing.T) {
	b := newBench(t)
	b.append(act("default", "aaaa"))
	before := b.verify().Key
	for range 2 {
		r, err := b.log.Rotate(t.Context(), Record{Reason: "yearly"})
		b.must(err)
		if r.Kind != KeyChange || r.Signer == before || r.Key != r.Signer {
			t.Errorf("%+v", r)
		}
		b.append(act("default", "bbbb"))
		v := b.wants("")
		if v.Key == before || v.Signed != int(v.Records) {
			t.Errorf("%+v", v)
		}
		before = v.Key
	}
	if left, _ := filepath.Glob(filepath.Join(b.log.store.Dir(), "keys", "*.next")); left != nil {
		t.Errorf("left: %q", left)
	}
}

// A process that is killed between the transaction and the key's file leaves
// the work to the next one.
func TestRotateKilled(t *testing.T) {
	b := newBench(t)
	b.append(act("default", "aaaa"))
	private, public := b.log.KeyFiles()
	old, err := os.ReadFile(private)
	b.must(err)
	oldPublic, err := os.ReadFile(public)
	b.must(err)
	_, err = b.log.Rotate(t.Context(), Record{})
	b.must(err)
	next, _ := b.log.nextFiles()
	b.must(os.Rename(private, next))
	b.must(errors.Join(os.WriteFile(private, old, 0o600), os.WriteFile(public, oldPublic, 0o644)))
	b.append(act("default", "bbbb"))
	b.wants("")
	// The other way round, the transaction never was: the old key stays.
	b.must(os.WriteFile(next, old, 0o600))
	b.append(act("default", "cccc"))
	b.wants("")
}

// minisignTool returns the minisign program.
func minisignTool(t *testing.T) string {
	path, err := exec.LookPath("minisign")
	if err != nil {
		t.Skip("*** NOT RUN: the minisign program is not installed (see make test) ***")
	}
	return path
}

func run(t *testing.T, stdin, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// The real minisign verifies what we sign, and we verify what it signs.
func TestMinisign(t *testing.T) {
	tool := minisignTool(t)
	b := newBench(t)
	b.append(act("default", "aaaa"))
	dir := t.TempDir()
	file := filepath.Join(dir, "1.json")
	e := b.entry(1)
	_, public := b.log.KeyFiles()
	b.must(os.WriteFile(file, e.Body, 0o644))
	b.must(os.WriteFile(file+".minisig", e.Signature, 0o644))
	out, err := run(t, "", tool, "-Vm", file, "-p", public)
	if err != nil || !strings.Contains(out, "Signature and comment signature verified") || !strings.Contains(out, "mobileops record 1 host "+thisHost+" digest "+e.Digest.String()) {
		t.Errorf("%v\n%s", err, out)
	}
	b.must(os.WriteFile(file, append(e.Body, ' '), 0o644))
	if out, err := run(t, "", tool, "-Vm", file, "-p", public); err == nil {
		t.Errorf("an altered record verifies: %s", out)
	}
	// It reads our secret key.
	private, _ := b.log.KeyFiles()
	b.must(os.WriteFile(file, e.Body, 0o644))
	if out, err := run(t, "\n", tool, "-Sm", file, "-s", private, "-x", file+".again"); err != nil {
		t.Errorf("%v\n%s", err, out)
	} else if text, err := os.ReadFile(file + ".again"); err != nil {
		t.Error(err)
	} else if pub, err := ReadPublicKey(public); err != nil {
		t.Error(err)
	} else if err := verifyText(pub, &e.Record, e.Body, text); err != nil {
		t.Errorf("its signature by our key: %v", err)
	}

	// Signing elsewhere, with a key of its own.
	secret, pub := filepath.Join(dir, "elsewhere.key"), filepath.Join(dir, "elsewhere.pub")
	if out, err := run(t, "", tool, "-G", "-W", "-s", secret, "-p", pub); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	key, err := ReadPublicKey(pub)
	b.must(err)
	_, err = b.log.Use(t.Context(), Record{Reason: "signed in the vault"}, key)
	b.must(err)
	if _, err := os.Stat(private); err == nil {
		t.Error("the former private key is still there")
	}
	b.append(act("default", "bbbb"), act("default", "cccc"))
	v := b.wants("")
	if v.Kind() != failure.Untrustworthy || len(v.Unsigned) != 3 {
		t.Errorf("unsigned %v", v.Unsigned)
	}
	c, err := b.log.Chain(t.Context())
	b.must(err)
	list, err := b.log.ToSign(c, v)
	if err != nil || len(list) != 1 || list[0].Counter != 5 {
		t.Fatalf("to sign: %v %v", list, err)
	}
	b.must(os.WriteFile(file, list[0].Body, 0o644))
	for _, args := range [][]string{{"-t", "mobileops record 4 host x digest y"}, {"-l"}, {}} {
		os.Remove(file + ".minisig")
		if out, err := run(t, "", tool, append([]string{"-Sm", file, "-s", secret, "-W"}, args...)...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		text, err := os.ReadFile(file + ".minisig")
		b.must(err)
		if err := verifyText(key, &list[0].Record, list[0].Body, text); (err != nil) != (len(args) == 2) {
			t.Errorf("%q: %v", args, err)
		}
	}
	text, err := os.ReadFile(file + ".minisig")
	b.must(err)
	r, err := b.log.ImportSignature(t.Context(), text)
	if err != nil || r.Counter != 5 {
		t.Fatalf("import: %+v %v", r, err)
	}
	if v := b.wants(""); v.Kind() != failure.None || v.Covered != 2 {
		t.Errorf("%+v", v)
	}
	if _, err := b.log.ImportSignature(t.Context(), text); failure.KindOf(err) != failure.Busy {
		t.Errorf("imported twice: %v", err)
	}
	if _, err := b.log.ImportSignature(t.Context(), e.Signature[:50]); failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("imported a piece: %v", err)
	}

	// And with an encrypted key, by our own hand.
	if _, err := ReadPrivateKey(secret, nil); err != nil {
		t.Errorf("its secret key: %v", err)
	}
}

// The real minisign encrypts keys with a password; reading one takes scrypt
// with a gigabyte of memory.
func TestEncryptedKey(t *testing.T) {
	if testing.Short() {
		t.Skip("*** NOT RUN: -short, and reading an encrypted key takes a gigabyte of memory ***")
	}
	tool := minisignTool(t)
	dir := t.TempDir()
	secret, pub := filepath.Join(dir, "k.key"), filepath.Join(dir, "k.pub")
	if out, err := run(t, "secret word\nsecret word\n", tool, "-G", "-s", secret, "-p", pub); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var encrypted *EncryptedKeyError
	if _, err := ReadPrivateKey(secret, nil); !errors.As(err, &encrypted) {
		t.Errorf("without a password: %v", err)
	}
	if _, err := ReadPrivateKey(secret, func() (string, error) { return "wrong", nil }); failure.KindOf(err) != failure.NotAllowed {
		t.Errorf("with a wrong password: %v", err)
	}
	key, err := ReadPrivateKey(secret, func() (string, error) { return "secret word", nil })
	if err != nil {
		t.Fatal(err)
	}
	want, err := ReadPublicKey(pub)
	if err != nil || publicOf(key).String() != want.String() {
		t.Errorf("%v", err)
	}
}

// With the key of the configuration, records are to be signed elsewhere from
// the first one on.
func TestConfiguredKey(t *testing.T) {
	b := newBench(t)
	pub, key, err := minisign.GenerateKey(nil)
	b.must(err)
	path := filepath.Join(t.TempDir(), "integrity.pub")
	b.open(b.log.store.Dir(), Options{Host: thisHost, PublicKey: path})
	if _, err := b.try(act("default", "aaaa")); failure.KindOf(err) != failure.NotReady {
		t.Errorf("without the file: %v", err)
	}
	b.must(os.WriteFile(path, publicKeyFile(pub), 0o644))
	b.append(act("default", "aaaa"))
	if v := b.wants(""); len(v.Unsigned) != 1 {
		t.Errorf("%+v", v)
	}
	private, _ := b.log.KeyFiles()
	if _, err := os.Stat(private); err == nil {
		t.Error("a key was made on the host")
	}
	e := b.entry(1)
	r, text, err := SignRecord(&key, e.Body)
	if err != nil || r.Counter != 1 {
		t.Fatal(err)
	}
	_, err = b.log.ImportSignature(t.Context(), text)
	b.must(err)
	if v := b.wants(""); v.Kind() != failure.None {
		t.Errorf("%+v", v)
	}
	// Root on the host takes the configuration away and puts a key of its own
	// in place: the chain says which key it was.
	b.open(b.log.store.Dir(), Options{Host: thisHost})
	mine, myKey, err := minisign.GenerateKey(nil)
	b.must(err)
	b.must(os.MkdirAll(filepath.Dir(private), 0o700))
	b.must(b.log.writeKeys(&myKey, mine))
	b.wants("was the key, or the history, replaced?")
	if _, err := b.try(act("default", "bbbb")); err == nil {
		if v := b.verify(); v.Kind() != failure.Untrustworthy {
			t.Error("a record by a stranger is trusted")
		}
	}
	if _, err := b.log.Rotate(t.Context(), Record{Lost: true}); err == nil {
		t.Error("a key that is elsewhere can be lost here")
	}
	_, other, err := minisign.GenerateKey(nil)
	b.must(err)
	if _, _, err := SignRecord(&other, e.Body); failure.KindOf(err) != failure.Usage {
		t.Errorf("signed by another key: %v", err)
	}
}

// Signing elsewhere from the first moment on, before there is a baseline, and
// from a later one on with the same key.
func TestUse(t *testing.T) {
	b := newBench(t)
	pub, key, err := minisign.GenerateKey(nil)
	b.must(err)
	r, err := b.log.Use(t.Context(), Record{}, pub)
	if err != nil || r.Counter != 1 || !r.Elsewhere {
		t.Fatalf("%+v %v", r, err)
	}
	last := b.append(act("default", "aaaa"))
	if !last.Elsewhere || last.Signer != pub.String() {
		t.Errorf("%+v", last)
	}
	_, text, err := SignRecord(&key, b.entry(2).Body)
	b.must(err)
	_, err = b.log.ImportSignature(t.Context(), text)
	b.must(err)
	if v := b.wants(""); v.Kind() != failure.None || v.Covered != 1 {
		t.Errorf("%+v", v)
	}
	if _, err := b.log.Use(t.Context(), Record{}, pub); failure.KindOf(err) != failure.Busy {
		t.Errorf("again: %v", err)
	}

	// The key of the host is carried away.
	c := newBench(t)
	c.append(act("default", "aaaa"))
	private, public := c.log.KeyFiles()
	same, err := ReadPublicKey(public)
	c.must(err)
	carried, err := ReadPrivateKey(private, nil)
	c.must(err)
	c.must(os.Remove(private))
	_, err = c.log.Use(t.Context(), Record{}, same)
	c.must(err)
	c.append(act("default", "bbbb"))
	if v := c.wants(""); len(v.Unsigned) != 2 {
		t.Errorf("%+v", v)
	}
	_, text, err = SignRecord(carried, c.entry(3).Body)
	c.must(err)
	_, err = c.log.ImportSignature(t.Context(), text)
	c.must(err)
	if v := c.wants(""); v.Kind() != failure.None {
		t.Errorf("%+v", v)
	}
}
