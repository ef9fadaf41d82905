package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"
	"github.com/mobileops/mobileops/internal/failure"
)

// ageKeys returns a fresh age key pair.
func ageKeys(t testing.TB) ([]Recipient, []Identity) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	to, err := ParseRecipients(strings.NewReader("# a comment\n\n" + id.Recipient().String() + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	ids, err := ParseIdentities(strings.NewReader("# created: never\n" + id.String() + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return to, ids
}

func TestEveryKeyOpens(t *testing.T) {
	k, l := key(t, 1), key(t, 2)
	to, ids := ageKeys(t)
	_, ids2 := ageKeys(t)
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	b := sealed(t, []byte("content"), testContext, k, to[0], ageRecipient{hybrid.Recipient()}, l)
	for _, id := range []Identity{k, l, ids[0], ageIdentity{hybrid}} {
		if got, err := content(b, testContext, ids2[0], id); err != nil || string(got) != "content" {
			t.Errorf("%T: %q, %v", id, got, err)
		}
	}
	_, err = open(b, testContext, ids2[0], key(t, 3))
	if !errors.Is(err, ErrNoKey) || failure.KindOf(err) != failure.NotAllowed {
		t.Fatalf("a stranger: %v", err)
	}
	want := fmt.Sprintf("no key opens it: it is sealed for key file %s, key file %s, 2 age recipients", k.ID(), l.ID())
	if err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	if _, err := open(b, testContext); failure.KindOf(err) != failure.NotReady {
		t.Errorf("no key given: %v", err)
	}
}

// TestAgeOpensTheDataKey unwraps the data key with age itself, from where
// docs/formats/seal.md says that it is, and makes a key pair with age-keygen.
func TestAgeOpensTheDataKey(t *testing.T) {
	for _, tool := range []string{"age", "age-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("age is not installed: that it opens what is wrapped for its recipients is not tested (apt-get install age)")
		}
	}
	dir := t.TempDir()
	keyPath := filepath.Join(dir, "key.txt")
	if out, err := exec.Command("age-keygen", "-o", keyPath).CombinedOutput(); err != nil {
		t.Fatalf("age-keygen: %v\n%s", err, out)
	}
	public, err := exec.Command("age-keygen", "-y", keyPath).Output()
	if err != nil {
		t.Fatal(err)
	}
	to, err := ParseRecipients(bytes.NewReader(public))
	if err != nil {
		t.Fatal(err)
	}
	b := sealed(t, []byte("content"), testContext, key(t, 1), to[0])
	ids, err := IdentityFile(keyPath)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := content(b, testContext, ids...); err != nil || string(got) != "content" {
		t.Errorf("the identity of age-keygen: %q, %v", got, err)
	}
	p, err := parsePreamble(b)
	if err != nil {
		t.Fatal(err)
	}
	// Behind the head of the slot there is the stanza of the key file, with 4
	// and 68 bytes, and 4 bytes of the next.
	at := 4096 + 24 + 4 + 68 + 4
	blob := b[at : at+int(b[at-2])<<8+int(b[at-1])]
	cmd := exec.Command("age", "--decrypt", "--identity", keyPath)
	cmd.Stdin = bytes.NewReader(blob)
	cmd.Stderr = t.Output()
	dataKey, err := cmd.Output()
	if err != nil {
		t.Fatalf("age does not open it: %v", err)
	}
	want, err := unwrap([]stanza{{kindAge, blob}}, p, 0, ids)
	if err != nil || !bytes.Equal(dataKey, want) || len(dataKey) != 32 {
		t.Errorf("age finds %d bytes that are not the data key; %v", len(dataKey), err)
	}
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "logs.key")
	k, err := GenerateKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 || st.Size() != 32 {
		t.Fatalf("%v, %v", st, err)
	}
	if _, err := GenerateKeyFile(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("GenerateKeyFile over a key: %v", err)
	}
	read, err := KeyFile(path)
	if err != nil || read.ID() != k.ID() || *read != *k {
		t.Fatalf("KeyFile: %v", err)
	}
	if other, err := GenerateKeyFile(path + "2"); err != nil || other.ID() == k.ID() {
		t.Errorf("two keys have one id; %v", err)
	}
	b := sealed(t, []byte("content"), testContext, k)
	ids, err := IdentityFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := content(b, testContext, ids...); err != nil || string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
	secret, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(format, k); s != "key file "+k.ID() || strings.Contains(s, string(secret)) {
			t.Errorf("%s prints %q", format, s)
		}
	}
}

func TestKeyFilesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, content string, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := string(random(32, 9))
	type refused struct {
		path, says string
		kind       failure.Kind
	}
	cases := []refused{
		{write("group", good, 0o640), "chmod 600", failure.NotAllowed},
		{write("world", good, 0o604), "chmod 600", failure.NotAllowed},
		{write("writable", good, 0o602), "chmod 600", failure.NotAllowed},
		{write("identity", id.String(), 0o644), "chmod 600", failure.NotAllowed},
		{write("short", good[:31], 0o600), "31 bytes", failure.NotReady},
		{write("long", good+"x", 0o600), "33 bytes", failure.NotReady},
		{write("empty", "", 0o600), "0 bytes", failure.NotReady},
		{write("zeros", string(make([]byte, 32)), 0o600), "not random", failure.NotReady},
		{write("text", "correct horse battery staple...\n", 0o600), "passphrase", failure.NotReady},
		{dir, "not a regular file", failure.NotReady},
		{filepath.Join(dir, "missing"), "no such file", failure.NotReady},
		{write("huge", strings.Repeat("#\n", maxIdentityFile), 0o600), "too long", failure.NotReady},
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	cases = append(cases, refused{fifo, "not a regular file", failure.NotReady})
	if os.Geteuid() == 0 {
		foreign := write("foreign", good, 0o600)
		if err := os.Chown(foreign, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, refused{foreign, "chown 0", failure.NotAllowed})
	} else {
		t.Log("not root: that the key of another user is refused is not tested")
	}
	for _, tc := range cases {
		_, err := KeyFile(tc.path)
		if err == nil || !strings.Contains(err.Error(), tc.says) || failure.KindOf(err) != tc.kind {
			t.Errorf("%s: %v; want kind %d and %q", filepath.Base(tc.path), err, tc.kind, tc.says)
		}
		if err != nil && strings.Contains(err.Error(), good[:8]) {
			t.Errorf("%s: the error tells the key", filepath.Base(tc.path))
		}
	}
	if _, err := IdentityFile(write("other", id.String()+"\n", 0o640)); failure.KindOf(err) != failure.NotAllowed {
		t.Errorf("an identity that the group may read: %v", err)
	}
	if ids, err := IdentityFile(write("fine", "# comment\n"+id.String()+"\n", 0o400)); err != nil || len(ids) != 1 {
		t.Errorf("an identity: %v", err)
	}
	for name, text := range map[string]string{
		"recipient":      id.Recipient().String(),
		"nothing":        "# nothing\n",
		"with an error":  id.String()[:40],
		"ssh":            "-----BEGIN OPENSSH PRIVATE KEY-----\n",
		"with two lines": id.String() + "\nrubbish\n",
	} {
		if _, err := ParseIdentities(strings.NewReader(text)); err == nil || strings.Contains(err.Error(), id.String()[16:40]) {
			t.Errorf("identities, %s: %v", name, err)
		}
	}
	for name, text := range map[string]string{"identity": id.String(), "nothing": "\n", "ssh": "ssh-ed25519 AAAA\n"} {
		if _, err := ParseRecipients(strings.NewReader(text)); failure.KindOf(err) != failure.Usage || strings.Contains(err.Error(), id.String()[16:40]) {
			t.Errorf("recipients, %s: %v", name, err)
		}
	}
}
