package trust

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
)

// release is the one that most tests sign.
func release() Release {
	return Release{Name: "platform", Version: "2.4.1", Sequence: 17, Channel: "stable", Expires: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)}
}

const comment = "name=platform version=2.4.1 sequence=17 channel=stable expires=2027-01-01T00:00:00Z"

// newSigner makes a key without a password and opens its file.
func newSigner(t testing.TB) Signer {
	t.Helper()
	secret, public, err := SecretKeyFile(nil)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "team.key")
	if err := os.WriteFile(path, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenSigner(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Public().Equal(public) {
		t.Fatalf("the file has the key %s, and %s was made", s.Public(), public)
	}
	return s
}

// newKeys returns a directory in which the keys are trusted for everything.
func newKeys(t testing.TB, keys ...PublicKey) *Keys {
	t.Helper()
	k, err := OpenKeys(filepath.Join(t.TempDir(), "update-keys"))
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if _, err := k.Add(key, Scope{}); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func sign(t testing.TB, s Signer, pkg string, r Release) []byte {
	t.Helper()
	sig, err := SignPackage(t.Context(), s, strings.NewReader(pkg), r, "")
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

// wantCode fails unless err has the code and the exit status 5.
func wantCode(t *testing.T, err error, code Code) {
	t.Helper()
	if CodeOf(err) != code || failure.KindOf(err) != failure.Untrustworthy {
		t.Errorf("got %q (code %q, %v), want code %q and status 5", err, CodeOf(err), failure.KindOf(err).Status(), code)
	}
}

// tool returns the path of a program that a test runs.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("*** NOT RUN: %s is not installed (see make test) ***", name)
	}
	return path
}

// run runs a program and returns what it printed.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(tool(t, name), args...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

func TestVerifier(t *testing.T) {
	s := newSigner(t)
	keys := newKeys(t, newSigner(t).Public(), s.Public())
	const pkg = "the content of a package"
	v, err := keys.Verifier(sign(t, s, pkg, release()))
	if err != nil {
		t.Fatal(err)
	}
	if v.Release() != release() || !v.Key().Equal(s.Public()) {
		t.Errorf("the signature is of %+v by %s", v.Release(), v.Key().ID())
	}
	wantCode(t, v.Verify(), CodeBadSignature) // nothing was written yet
	for _, b := range []byte(pkg) {
		v.Write([]byte{b})
	}
	if err := v.Verify(); err != nil {
		t.Error(err)
	}
	whole := NewDigest()
	whole.Write([]byte(pkg))
	if want := whole.Sum(nil); v.Digest() != hex.EncodeToString(want) {
		t.Errorf("the digest is %s, want %x", v.Digest(), want)
	}
	v.Write([]byte("x"))
	wantCode(t, v.Verify(), CodeBadSignature)
}

// What an attacker can do with the files of others.
func TestRefused(t *testing.T) {
	s, stranger := newSigner(t), newSigner(t)
	keys := newKeys(t, s.Public())
	sig := string(sign(t, s, "one", release()))
	other := string(sign(t, s, "two", Release{"platform", "2.4.0", 16, "stable", release().Expires}))
	line := func(text string, n int) string { return strings.Split(text, "\n")[n] }
	for name, tc := range map[string]struct {
		text string
		code Code
	}{
		"none":             {"", CodeUnsigned},
		"stranger":         {string(sign(t, stranger, "one", release())), CodeWrongKey},
		"comment changed":  {strings.Replace(sig, "sequence=17", "sequence=18", 1), CodeBadSignature},
		"comment swapped":  {strings.Join([]string{line(sig, 0), line(sig, 1), line(other, 2), line(other, 3)}, "\n"), CodeBadSignature},
		"signature moved":  {strings.Join([]string{line(sig, 0), line(other, 1), line(sig, 2), line(sig, 3)}, "\n"), CodeBadSignature},
		"trailing":         {sig + "x", CodeMalformedSignature},
		"trailing line":    {sig + "\n", CodeMalformedSignature},
		"three lines":      {sig[:strings.LastIndex(strings.TrimSpace(sig), "\n")], CodeMalformedSignature},
		"no comment":       {strings.TrimPrefix(sig, "untrusted "), CodeMalformedSignature},
		"base64 in lines":  {strings.Replace(sig, line(sig, 3), line(sig, 3)[:20]+"\r"+line(sig, 3)[20:], 1), CodeMalformedSignature},
		"base64 long":      {strings.Replace(sig, line(sig, 1), line(sig, 1)+"AAAA", 1), CodeMalformedSignature},
		"binary":           {"\x00\xff\n\n\n\n", CodeMalformedSignature},
		"long":             {sig + strings.Repeat("\n", maxSignature), CodeMalformedSignature},
		"another comment":  {string(signComment(t, s, "timestamp:1700000000\tfile:x.tar.gz\thashed")), CodeComment},
		"trailing comment": {string(signComment(t, s, comment+" ")), CodeComment},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := keys.Verifier([]byte(tc.text))
			if v != nil {
				t.Error("there is a Verifier all the same")
			}
			wantCode(t, err, tc.code)
		})
	}
	// Line ends of a Windows editor change nothing that is signed.
	if _, err := keys.Verifier([]byte(strings.ReplaceAll(sig, "\n", "\r\n"))); err != nil {
		t.Error(err)
	}
	// What is not signed may be changed.
	if _, err := keys.Verifier([]byte(strings.Replace(sig, line(sig, 0), "untrusted comment: me", 1))); err != nil {
		t.Error(err)
	}
	_, err := newKeys(t).Verifier([]byte(sig))
	if CodeOf(err) != CodeNoKeys || failure.KindOf(err) != failure.NotReady {
		t.Errorf("without keys: %v", err)
	}
	if err := About("a.tar.zst", err); !strings.HasPrefix(err.Error(), "a.tar.zst: no key is trusted here") || CodeOf(err) != CodeNoKeys {
		t.Errorf("got %v", err)
	}
	if plain := errors.New("x"); About("p", plain) != plain || About("p", nil) != nil {
		t.Error("About changed an error that is not its own")
	}
}

// signComment makes a valid signature of "one" with any comment.
func signComment(t *testing.T, s Signer, comment string) []byte {
	t.Helper()
	h := NewDigest()
	h.Write([]byte("one"))
	sig, err := s.Sign(t.Context(), h.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	over, err := s.Sign(t.Context(), append(bytes.Clone(sig), comment...))
	if err != nil {
		t.Fatal(err)
	}
	return signatureFile(s.Public(), sig, over, comment, "x")
}

func TestReadSignature(t *testing.T) {
	pkg := filepath.Join(t.TempDir(), "p.tar.gz")
	_, err := ReadSignature(pkg)
	wantCode(t, err, CodeUnsigned)
	if err := os.Mkdir(SignaturePath(pkg), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = ReadSignature(pkg)
	wantCode(t, err, CodeMalformedSignature)
	os.Remove(SignaturePath(pkg))
	if err := os.WriteFile(SignaturePath(pkg), make([]byte, maxSignature+1), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err = ReadSignature(pkg)
	wantCode(t, err, CodeMalformedSignature)
}

// The verifier must keep up with what is unpacked beside it.
func BenchmarkVerifier(b *testing.B) {
	s := newSigner(b)
	v, err := newKeys(b, s.Public()).Verifier(sign(b, s, "x", release()))
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 256<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		v.Write(buf)
	}
}
