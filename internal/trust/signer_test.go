package trust

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
)

// writeFile writes a file of a test and returns its path.
func writeFile(t testing.TB, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// proveWithMinisign has the real tool verify a signature of s.
func proveWithMinisign(t *testing.T, s Signer) {
	t.Helper()
	const pkg = "the content of a package\n"
	path := writeFile(t, "p.tar.gz", pkg, 0o644)
	if err := os.WriteFile(SignaturePath(path), sign(t, s, pkg, release()), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "minisign", "-V", "-m", path, "-P", s.Public().String()); !strings.Contains(out, "Trusted comment: "+comment) {
		t.Errorf("minisign says %s", out)
	}
	public := writeFile(t, "key.pub", string(s.Public().File()), 0o644)
	run(t, "minisign", "-V", "-H", "-m", path, "-p", public)
	if err := os.WriteFile(path, []byte(pkg+"x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := runFails(t, "minisign", "-V", "-m", path, "-p", public); !strings.Contains(out, "verification failed") {
		t.Errorf("minisign took another content: %s", out)
	}
}

// runFails runs a program that must fail, and returns what it printed.
func runFails(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := execCommand(t, name, args...)
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("%s %s did not fail", name, strings.Join(args, " "))
	}
	return string(out)
}

func TestMinisignVerifiesOurs(t *testing.T) { proveWithMinisign(t, newSigner(t)) }

// What minisign -S signs with a comment of ours is a package like any other,
// and its keys, encrypted or not, sign here.
func TestMinisignSigns(t *testing.T) {
	dir := t.TempDir()
	secret, public := filepath.Join(dir, "team.key"), filepath.Join(dir, "team.pub")
	run(t, "minisign", "-G", "-W", "-s", secret, "-p", public)
	text, err := os.ReadFile(public)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePublicKey(text)
	if err != nil {
		t.Fatal(err)
	}
	keys := newKeys(t, key)
	pkg := writeFile(t, "p.tar.zst", "content", 0o644)
	signWith := func(args ...string) (*Verifier, error) {
		run(t, "minisign", append([]string{"-S", "-s", secret, "-m", pkg}, args...)...)
		sig, err := ReadSignature(pkg)
		if err != nil {
			t.Fatal(err)
		}
		return keys.Verifier(sig)
	}
	v, err := signWith("-t", comment)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(v, "content")
	if err := v.Verify(); err != nil || v.Release() != release() {
		t.Errorf("%+v, %v", v.Release(), err)
	}
	if _, err = signWith(); CodeOf(err) != CodeComment {
		t.Errorf("with minisign's own comment: %v", err)
	}
	if _, err = signWith("-l", "-t", comment); CodeOf(err) != CodeLegacySignature {
		t.Errorf("with the legacy algorithm: %v", err)
	}
	s, err := OpenSigner(t.Context(), secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Public().Equal(key) {
		t.Errorf("the secret key is of %s, the public one %s", s.Public(), key)
	}
	proveWithMinisign(t, s)
}

// Keys are encrypted as minisign does it, which takes 1 GiB for each try.
func TestEncryptedKey(t *testing.T) {
	if testing.Short() {
		t.Skip("*** NOT RUN: -short, and each use of an encrypted key takes a gigabyte of memory ***")
	}
	secret, public, err := SecretKeyFile([]byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	path := writeFile(t, "team.key", string(secret), 0o600)
	asked := 0
	answer := func(word string) func() ([]byte, error) {
		return func() ([]byte, error) { asked++; return []byte(word), nil }
	}
	if _, err := OpenSigner(t.Context(), path, nil); failure.KindOf(err) != failure.NotAllowed || !strings.Contains(err.Error(), "needs a password") {
		t.Errorf("with nobody to ask: %v", err)
	}
	if _, err := OpenSigner(t.Context(), path, answer("wrong")); failure.KindOf(err) != failure.NotAllowed || !strings.Contains(err.Error(), "password is wrong") {
		t.Errorf("with a wrong password: %v", err)
	}
	s, err := OpenSigner(t.Context(), path, answer("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	if !s.Public().Equal(public) || asked != 2 {
		t.Errorf("%s, asked %d times", s.Public(), asked)
	}
	pkg := writeFile(t, "p", "content", 0o644)
	cmd := execCommand(t, "minisign", "-S", "-s", path, "-m", pkg, "-t", comment)
	cmd.Stdin = strings.NewReader("correct horse\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("minisign does not read the key: %v\n%s", err, out)
	}
}

func TestKeyFileRefused(t *testing.T) {
	plain, _, err := SecretKeyFile(nil)
	if err != nil {
		t.Fatal(err)
	}
	body := strings.Split(string(plain), "\n")[1]
	halves := []byte(body)
	halves[len(halves)-60] ^= 1 // within the public half
	for name, tc := range map[string]struct {
		text string
		mode os.FileMode
		kind failure.Kind
	}{
		"for all":           {string(plain), 0o644, failure.NotAllowed},
		"for a group":       {string(plain), 0o640, failure.NotAllowed},
		"empty":             {"", 0o600, failure.Untrustworthy},
		"noise":             {"x", 0o600, failure.Untrustworthy},
		"public":            {string(newSigner(t).Public().File()), 0o600, failure.Untrustworthy},
		"large":             {strings.Repeat("x", maxKeyFile+1), 0o600, failure.Untrustworthy},
		"foreign halves":    {"untrusted comment: x\n" + string(halves) + "\n", 0o600, failure.Untrustworthy},
		"short":             {"untrusted comment: x\n" + body[:100] + "\n", 0o600, failure.Untrustworthy},
		"encrypted in PEM":  {"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", 0o600, failure.NotReady},
		"certificate":       {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0o600, failure.Untrustworthy},
		"damaged PEM":       {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600, failure.Untrustworthy},
		"key of another":    {run(t, "openssl", "genpkey", "-quiet", "-algorithm", "x25519"), 0o600, failure.Untrustworthy},
		"elliptic, but not": {run(t, "openssl", "genpkey", "-quiet", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"), 0o600, failure.Untrustworthy},
	} {
		t.Run(name, func(t *testing.T) {
			path := writeFile(t, "key", tc.text, 0o600)
			if err := os.Chmod(path, tc.mode); err != nil {
				t.Fatal(err)
			}
			s, err := OpenSigner(t.Context(), path, nil)
			if failure.KindOf(err) != tc.kind || s != nil {
				t.Errorf("%v, %v (kind %v), want kind %v", s, err, failure.KindOf(err), tc.kind)
			}
			if err != nil && strings.Contains(err.Error(), body[90:130]) {
				t.Error("the message tells of the secret")
			}
		})
	}
	if _, err := OpenSigner(t.Context(), filepath.Join(t.TempDir(), "none"), nil); failure.KindOf(err) != failure.NotReady {
		t.Errorf("no file: %v", err)
	}
	if _, err := OpenSigner(t.Context(), "", nil); failure.KindOf(err) != failure.Usage {
		t.Errorf("no key named: %v", err)
	}
}

func TestPEM(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.pem")
	run(t, "openssl", "genpkey", "-algorithm", "ed25519", "-out", path)
	s, err := OpenSigner(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The public half in PEM has the same id, so it is the same key here.
	public, err := ParsePublicKey([]byte(run(t, "openssl", "pkey", "-in", path, "-pubout")))
	if err != nil || !public.Equal(s.Public()) {
		t.Errorf("openssl has the public key %s, %v; here it is %s", public, err, s.Public())
	}
	proveWithMinisign(t, s)
	proveWithOpenSSL(t, s, []byte(`{"signed":{"_type":"timestamp"}}`))
}

// proveWithOpenSSL has openssl verify a raw signature, as repositories use them.
func proveWithOpenSSL(t *testing.T, s Signer, message []byte) {
	t.Helper()
	sig, err := s.Sign(t.Context(), message)
	if err != nil {
		t.Error(err)
		return
	}
	run(t, "openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", writeFile(t, "pub.pem", publicPEM(t, s.Public()), 0o644),
		"-in", writeFile(t, "message", string(message), 0o644), "-sigfile", writeFile(t, "signature", string(sig), 0o644))
}

// programText is a signer as an operator would write it; openssl wants a file.
const programText = `#!/bin/sh
set -eu
key=${0%/*}/key.pem
case $1 in
public) openssl pkey -in "$key" -pubout ;;
sign)
	message=$(mktemp)
	trap 'rm -f "$message"' EXIT
	cat >"$message"
	openssl pkeyutl -sign -rawin -inkey "$key" -in "$message"
	;;
esac
`

func TestProgram(t *testing.T) {
	path := writeFile(t, "signer", programText, 0o755)
	run(t, "openssl", "genpkey", "-algorithm", "ed25519", "-out", filepath.Join(filepath.Dir(path), "key.pem"))
	s, err := OpenSigner(t.Context(), "exec:"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	proveWithMinisign(t, s)
	message := make([]byte, 100_000) // longer than a pipe holds
	for i := range message {
		message[i] = byte(rand.Uint32())
	}
	proveWithOpenSSL(t, s, message)
}

func TestProgramFails(t *testing.T) {
	public := newSigner(t).Public().String()
	for name, tc := range map[string]struct {
		text string
		kind failure.Kind
		says string
	}{
		"wrong signature": {"#!/bin/sh\n[ $1 = sign ] && head -c 64 /dev/zero || echo " + public, failure.Untrustworthy, "does not verify"},
		"no signature":    {"#!/bin/sh\n[ $1 = sign ] || echo " + public, failure.Untrustworthy, "(0 bytes)"},
		"says why":        {"#!/bin/sh\n[ $1 = sign ] && { echo the vault is sealed >&2; exit 7; } || echo " + public, failure.Failed, "the vault is sealed"},
		"endless":         {"#!/bin/sh\n[ $1 = sign ] && exec cat /dev/zero || echo " + public, failure.Interrupted, ""},
		"much":            {"#!/bin/sh\nhead -c 100000 /dev/zero", failure.Failed, "more than"},
		"no key":          {"#!/bin/sh\necho hello", failure.Failed, "no public key"},
		"no program":      {"#!/nonexistent\n", failure.NotReady, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s, err := OpenSigner(ctx, "exec:"+writeFile(t, "signer", tc.text, 0o755), nil)
			if err == nil {
				if tc.kind == failure.Interrupted {
					cancel()
				}
				_, err = s.Sign(ctx, []byte("x"))
			}
			if failure.KindOf(err) != tc.kind || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v (kind %v), want %q of kind %v", err, failure.KindOf(err), tc.says, tc.kind)
			}
		})
	}
	for spec, kind := range map[string]failure.Kind{"exec:signer": failure.Usage, "exec:": failure.Usage, "exec:/nonexistent/signer": failure.NotReady} {
		if _, err := OpenSigner(t.Context(), spec, nil); failure.KindOf(err) != kind {
			t.Errorf("%s: %v (kind %v)", spec, err, failure.KindOf(err))
		}
	}
}

func TestSignPackageFails(t *testing.T) {
	s := newSigner(t)
	broken := errors.New("the stick was pulled out")
	if _, err := SignPackage(t.Context(), s, io.MultiReader(strings.NewReader("x"), failing{broken}), release(), ""); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := SignPackage(ctx, s, strings.NewReader("x"), release(), ""); failure.KindOf(err) != failure.Interrupted {
		t.Errorf("got %v", err)
	}
	for _, line := range []string{"two\nlines", "\x1b[2J", strings.Repeat("x", maxUntrusted+1)} {
		if _, err := SignPackage(t.Context(), s, strings.NewReader("x"), release(), line); failure.KindOf(err) != failure.Usage {
			t.Errorf("%.20q: %v", line, err)
		}
	}
	if _, err := SignDigest(t.Context(), s, make([]byte, 32), release(), ""); err == nil {
		t.Error("a digest of another hash was signed")
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
