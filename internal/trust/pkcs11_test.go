package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
)

func execCommand(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	return exec.Command(tool(t, name), args...)
}

func publicPEM(t testing.TB, key PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// newToken makes a token of SoftHSM2 with the key update-key (id 01 and 02) and
// returns the path of a file with its PIN.
func newToken(t *testing.T) (pinFile string) {
	t.Helper()
	tool(t, "pkcs11-tool")
	if _, err := os.Stat(softHSM); err != nil {
		t.Skip("*** NOT RUN: softhsm2 is not installed (see make test) ***")
	}
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", writeFile(t, "softhsm2.conf", "directories.tokendir = "+tokens+"\nobjectstore.backend = file\nlog.level = ERROR\n", 0o600))
	run(t, "softhsm2-util", "--init-token", "--free", "--label", "ops team", "--pin", "1234", "--so-pin", "5678")
	for id, label := range map[string]string{"01": "update-key", "a025": "other"} {
		run(t, "pkcs11-tool", "--module", softHSM, "--token-label", "ops team", "--login", "--pin", "1234",
			"--keypairgen", "--key-type", "EC:edwards25519", "--label", label, "--id", id)
	}
	return writeFile(t, "pin", "1234\n", 0o600)
}

func TestToken(t *testing.T) {
	pin := newToken(t)
	uri := "pkcs11:token=ops%20team;object=update-key;type=private?module-path=" + softHSM
	s, err := OpenSigner(t.Context(), uri+"&pin-source="+pin, nil)
	if err != nil {
		t.Fatal(err)
	}
	proveWithMinisign(t, s)
	proveWithOpenSSL(t, s, bytes.Repeat([]byte("m"), maxToolMessage))
	v, err := newKeys(t, s.Public()).Verifier(sign(t, s, "content", release()))
	if err != nil {
		t.Fatal(err)
	}
	v.Write([]byte("content"))
	if err := v.Verify(); err != nil {
		t.Error(err)
	}

	asked := 0
	answer := func(pin string) func() ([]byte, error) {
		return func() ([]byte, error) { asked++; return []byte(pin), nil }
	}
	byID, err := OpenSigner(t.Context(), "pkcs11:token=ops%20team;id=%a0%25?module-path="+softHSM+"&pin-source=file:"+pin, nil)
	if err != nil || byID.Public().Equal(s.Public()) {
		t.Fatalf("by its id: %v, %v", byID, err)
	}
	proveWithMinisign(t, byID)
	typed, err := OpenSigner(t.Context(), uri, answer("1234"))
	if err != nil {
		t.Fatal(err)
	}
	sign(t, typed, "content", release())
	if asked != 1 {
		t.Errorf("the PIN was asked for %d times", asked)
	}

	wrong, err := OpenSigner(t.Context(), uri, answer("4321"))
	if err == nil {
		_, err = wrong.Sign(t.Context(), []byte("x"))
	}
	if failure.KindOf(err) != failure.NotAllowed || !strings.Contains(err.Error(), "CKR_PIN_INCORRECT") || strings.Contains(err.Error(), "4321") {
		t.Errorf("with a wrong PIN: %v", err)
	}
	for change, kind := range map[[2]string]failure.Kind{
		{"object=update-key", "object=none"}:         failure.NotReady,
		{"token=ops%20team", "token=none"}:           failure.NotReady,
		{softHSM, "/nonexistent.so"}:                 failure.NotReady,
		{"object=update-key", "object=-h"}:           failure.NotReady,
		{"token=ops%20team", "token=ops%20team;x=y"}: failure.Usage,
	} {
		spec := strings.Replace(uri, change[0], change[1], 1)
		_, err := OpenSigner(t.Context(), spec, answer("1234"))
		if failure.KindOf(err) != kind {
			t.Errorf("%s: %v (kind %v)", spec, err, failure.KindOf(err))
		}
	}
	if _, err := OpenSigner(t.Context(), uri, nil); failure.KindOf(err) != failure.NotAllowed {
		t.Errorf("with nobody to ask for the PIN: %v", err)
	}
	os.Chmod(pin, 0o644)
	if _, err := OpenSigner(t.Context(), uri+"&pin-source="+pin, nil); failure.KindOf(err) != failure.NotAllowed {
		t.Errorf("with a PIN that all can read: %v", err)
	}
}

// pkcs11-tool of Debian 12 cannot have more signed than one buffer. When this
// fails because a newer one can, only maxToolMessage is to be corrected.
func TestTokenLongMessage(t *testing.T) {
	pin := newToken(t)
	s, err := OpenSigner(t.Context(), "pkcs11:object=update-key?module-path="+softHSM+"&pin-source="+pin, nil)
	if err != nil {
		t.Fatal(err)
	}
	long := bytes.Repeat([]byte("m"), maxToolMessage+1)
	sig, err := s.Sign(t.Context(), long)
	if err != nil && !strings.Contains(err.Error(), "let a program sign") {
		t.Errorf("the message does not say what to do: %v", err)
	}
	if err == nil && !s.Public().verify(long, sig) {
		t.Error("a signature came that is wrong")
	}
}

// The program in the documentation signs what pkcs11-tool cannot.
func TestDocumentedProgram(t *testing.T) {
	pin := newToken(t)
	const python = "/usr/bin/python3" // for which Debian has the module
	if out, err := exec.Command(python, "-c", "import PyKCS11").CombinedOutput(); err != nil {
		t.Skipf("*** NOT RUN: python3-pykcs11 is not installed (see make test): %v %s ***", err, out)
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "formats", "release.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, program, found := strings.Cut(string(text), "```python\n")
	program, _, ended := strings.Cut(program, "```")
	if !found || !ended {
		t.Fatal("there is no program in docs/formats/release.md")
	}
	program = strings.NewReplacer(`"ops"`, `"ops team"`, "/etc/mobileops/token-pin", pin).Replace(program)
	s, err := OpenSigner(t.Context(), "exec:"+writeFile(t, "signer", program, 0o755), nil)
	if err != nil {
		t.Fatal(err)
	}
	proveWithMinisign(t, s)
	proveWithOpenSSL(t, s, bytes.Repeat([]byte("m"), 50_000))
	same, err := OpenSigner(t.Context(), "pkcs11:object=update-key?module-path="+softHSM+"&pin-source="+pin, nil)
	if err != nil || !same.Public().Equal(s.Public()) {
		t.Errorf("pkcs11-tool has another key: %v, %v", same, err)
	}
}

// While a token signs, its PIN is not among the arguments of any process.
func TestTokenPINStaysSecret(t *testing.T) {
	u, err := parseTokenURI("pkcs11:token=a;object=b?module-path=/m.so&pin-source=/p")
	if err != nil {
		t.Fatal(err)
	}
	seen := filepath.Join(t.TempDir(), "seen")
	s := &tokenSigner{uri: u, pin: []byte("1234"),
		tool: writeFile(t, "tool", fmt.Sprintf("#!/bin/sh\necho \"$*\" >%s\necho \"$MOBILEOPS_TOKEN_PIN\" >>%s\n", seen, seen), 0o755)}
	s.run(t.Context(), true, []byte("x"), "--sign")
	text, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	args, pin, _ := strings.Cut(string(text), "\n")
	if strings.Contains(args, "1234") || pin != "1234\n" || !strings.Contains(args, "--module /m.so --token-label a --sign") {
		t.Errorf("the arguments are %s, the variable %s", args, pin)
	}
}

// Of two keys with one label none is chosen by chance.
func TestTokenAmbiguous(t *testing.T) {
	pin := newToken(t)
	run(t, "pkcs11-tool", "--module", softHSM, "--token-label", "ops team", "--login", "--pin", "1234",
		"--keypairgen", "--key-type", "EC:edwards25519", "--label", "update-key", "--id", "03")
	run(t, "pkcs11-tool", "--module", softHSM, "--token-label", "ops team", "--login", "--pin", "1234",
		"--keypairgen", "--key-type", "EC:edwards25519", "--label", "nameless")
	rest := "?module-path=" + softHSM + "&pin-source=" + pin
	if _, err := OpenSigner(t.Context(), "pkcs11:object=update-key"+rest, nil); failure.KindOf(err) != failure.Usage || !strings.Contains(err.Error(), "2 keys") {
		t.Errorf("two of one label: %v", err)
	}
	if _, err := OpenSigner(t.Context(), "pkcs11:object=nameless"+rest, nil); failure.KindOf(err) != failure.NotReady || !strings.Contains(err.Error(), "no CKA_ID") {
		t.Errorf("one without an id: %v", err)
	}
	if _, err := OpenSigner(t.Context(), "pkcs11:object=update-key;id=%a0%25"+rest, nil); failure.KindOf(err) != failure.NotReady {
		t.Errorf("the id of another: %v", err)
	}
	s, err := OpenSigner(t.Context(), "pkcs11:object=update-key;id=%03"+rest, nil)
	if err != nil {
		t.Fatal(err)
	}
	sign(t, s, "content", release())
}

func TestTokenURI(t *testing.T) {
	for spec, want := range map[string][]string{
		"pkcs11:object=k":                        {},
		"pkcs11:id=%01%ff":                       {},
		"pkcs11:token=a%3bb;object=k;slot-id=3":  {"--token-label", "a;b", "--slot", "3"},
		"pkcs11:object=k?module-path=/x%20y.so":  {"--module", "/x y.so"},
		"pkcs11:object=k;type=private?":          {},
		"pkcs11:object=k?pin-source=file:/a/pin": {},
	} {
		u, err := parseTokenURI(spec)
		if err != nil || !slices.Equal(u.args(), want) {
			t.Errorf("%s: %v, %v", spec, u, err)
		}
	}
	for _, spec := range []string{
		"pkcs11:", "pkcs11:token=a", "pkcs11:object=", "pkcs11:object=a;object=b", "pkcs11:object=%zz", "pkcs11:object=a%00b",
		"pkcs11:object=a;type=cert", "pkcs11:object=a;serial=1", "pkcs11:object=a?module-path=x.so", "pkcs11:object=a?module-name=x",
		"pkcs11:object=a?pin-source=|cat", "pkcs11:object=a?pin-source=file:pin", "pkcs11:object=a?pin-value=987",
		"pkcs11:object=a?pin-value=987%zz", "pkcs11:object=a;", "pkcs11:object=" + strings.Repeat("a", maxTokenURI),
	} {
		if u, err := parseTokenURI(spec); failure.KindOf(err) != failure.Usage || strings.Contains(err.Error(), "987") {
			t.Errorf("%.80s: %v, %v", spec, u, err)
		}
	}
}

func FuzzTokenURI(f *testing.F) {
	f.Add("pkcs11:token=ops;object=update-key?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/path")
	f.Add("pkcs11:id=%01%02;slot-id=1?pin-value=1")
	f.Fuzz(func(t *testing.T, spec string) {
		u, err := parseTokenURI(spec)
		if err != nil {
			if failure.KindOf(err) != failure.Usage {
				t.Fatalf("%q: %v", spec, err)
			}
			return
		}
		if u.object == "" && len(u.id) == 0 || slices.ContainsFunc(u.args(), func(a string) bool { return a == "" || strings.ContainsRune(a, 0) }) {
			t.Fatalf("%q: %q", spec, u.args())
		}
	})
}
