package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
)

func TestKeysAddAndRemove(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc", "update-keys")
	a, b := newSigner(t), newSigner(t)
	k, err := OpenKeys(dir)
	if err != nil || len(k.List()) != 0 {
		t.Fatalf("of nothing: %v, %v", k, err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("looking made the directory")
	}
	key, err := k.Add(a.Public(), Scope{})
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(dir, a.Public().ID()+".pub"); key.Path != want {
		t.Errorf("it is in %s, want %s", key.Path, want)
	}
	if _, err := k.Add(a.Public(), Scope{Names: []string{"x"}}); !errors.Is(err, ErrTrusted) {
		t.Errorf("a second time: %v", err)
	}
	scope := Scope{Names: []string{"platform", "tools"}, Channels: []string{"beta"}}
	if _, err := k.Add(b.Public(), scope); err != nil {
		t.Fatal(err)
	}
	again, err := OpenKeys(dir)
	if err != nil || len(again.List()) != 2 {
		t.Fatalf("read again: %v, %v", again, err)
	}
	for _, key := range again.List() {
		if key.Equal(b.Public()) != (fmt.Sprint(key.Scope) == fmt.Sprint(scope)) || key.Equal(a.Public()) != key.Scope.All() {
			t.Errorf("%s is limited to %+v", key.ID(), key.Scope)
		}
	}
	if _, err := again.Remove("0123456789ABCDEF"); !errors.Is(err, ErrNoKey) || failure.KindOf(err) != failure.No {
		t.Errorf("an unknown one: %v", err)
	}
	for _, s := range []Signer{b, a} {
		if _, err := again.Remove(strings.ToLower(s.Public().ID())); err != nil {
			t.Error(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 || len(again.List()) != 0 {
		t.Errorf("left: %v, %v, %v", entries, again.List(), err)
	}
}

func TestScope(t *testing.T) {
	s := newSigner(t)
	k := newKeys(t)
	if _, err := k.Add(s.Public(), Scope{Names: []string{"platform"}, Channels: []string{"stable", "beta"}}); err != nil {
		t.Fatal(err)
	}
	k, err := OpenKeys(k.Dir())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, channel string
		code          Code
	}{
		{"platform", "stable", ""}, {"platform", "beta", ""},
		{"other", "stable", CodeKeyScope}, {"platform", "nightly", CodeKeyScope}, {"platform2", "stable", CodeKeyScope},
	} {
		r := release()
		r.Name, r.Channel = tc.name, tc.channel
		_, err := k.Verifier(sign(t, s, "x", r))
		if CodeOf(err) != tc.code {
			t.Errorf("%s in %s: %v", tc.name, tc.channel, err)
		}
	}
	for _, bad := range []Scope{{Names: []string{"A"}}, {Channels: []string{""}}, {Names: make([]string, maxScope+1)}} {
		if _, err := newKeys(t).Add(s.Public(), bad); failure.KindOf(err) != failure.Usage {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// A file that limits a key and cannot be read must not make it unlimited.
func TestScopeFileRefused(t *testing.T) {
	for _, text := range []string{
		"", "names: [platform]\n", "schema: mobileops.update-key/v2\nnames: [platform]\n",
		"schema: mobileops.update-key/v1\n", "schema: mobileops.update-key/v1\nname: platform\n",
		"schema: mobileops.update-key/v1\nnames: [Platform]\n", "schema: mobileops.update-key/v1\nnames: platform\n",
		"schema: mobileops.update-key/v1\nnames: [platform]\n---\nnames: []\n",
		"schema: mobileops.update-key/v1\nnames: [platform]\nnames: [other]\n",
		"schema: mobileops.update-key/v1\nnames: [platform]\n#" + strings.Repeat("x", maxKeyFile),
		"\x00",
	} {
		s := newSigner(t)
		k := newKeys(t, s.Public())
		if err := os.WriteFile(k.List()[0].limits(), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := OpenKeys(k.Dir())
		if CodeOf(err) != CodeUnsafeKeys || failure.KindOf(err) != failure.Untrustworthy {
			t.Errorf("%.80q: %v", text, err)
		}
	}
}

func TestUnsafeKeys(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("*** NOT RUN: only root can give files to other users ***")
	}
	stranger := newSigner(t).Public()
	for name, tc := range map[string]struct {
		spoil func(dir, key string) error
		says  string
	}{
		"directory of another": {func(dir, _ string) error { return os.Chown(dir, 1234, 0) }, "belongs to user 1234"},
		"directory for all":    {func(dir, _ string) error { return os.Chmod(dir, 0o777) }, "others can replace"},
		"sticky is not enough": {func(dir, _ string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, "others can replace"},
		"directory of a group": {func(dir, _ string) error { return errors.Join(os.Chown(dir, 0, 1234), os.Chmod(dir, 0o775)) }, "others can replace"},
		"key of another":       {func(_, key string) error { return os.Chown(key, 1234, 0) }, "belongs to user 1234"},
		"key for all":          {func(_, key string) error { return os.Chmod(key, 0o666) }, "others can replace"},
		"parent for all":       {func(dir, _ string) error { return os.Chmod(filepath.Dir(dir), 0o777) }, "others can replace"},
		"limits for all":       {func(_, key string) error { return loose(strings.TrimSuffix(key, ".pub") + ".yaml") }, "others can replace"},
		"link":                 {func(dir, key string) error { return os.Symlink(key, filepath.Join(dir, "x.pub")) }, "not a regular file"},
		"directory named so":   {func(dir, _ string) error { return os.Mkdir(filepath.Join(dir, "x.pub"), 0o755) }, "not a regular file"},
		"not a key":            {func(dir, _ string) error { return os.WriteFile(filepath.Join(dir, "x.pub"), []byte("x\n"), 0o644) }, "is not a public key"},
		"empty":                {func(dir, _ string) error { return os.WriteFile(filepath.Join(dir, "x.pub"), nil, 0o644) }, "is not a public key"},
		"too large": {func(dir, _ string) error {
			return os.WriteFile(filepath.Join(dir, "x.pub"), make([]byte, maxKeyFile+1), 0o644)
		}, "too large"},
		"twice":                  {func(dir, key string) error { return copyFile(key, filepath.Join(dir, "copy.pub")) }, "are the same key"},
		"a file for a directory": {func(dir, _ string) error { return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o644)) }, "is not a directory"},
		"too many": {func(dir, _ string) error {
			var errs []error
			for i := range maxKeys {
				key := stranger
				key.Number = uint64(i)
				errs = append(errs, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.pub", i)), key.File(), 0o644))
			}
			return errors.Join(errs...)
		}, "more than 64 keys"},
		"too many files": {func(dir, _ string) error {
			var errs []error
			for i := range maxEntries {
				errs = append(errs, os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.old", i)), nil, 0o644))
			}
			return errors.Join(errs...)
		}, "more than 1024 files"},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeys(t, newSigner(t).Public())
			if err := tc.spoil(k.Dir(), k.List()[0].Path); err != nil {
				t.Fatal(err)
			}
			_, err := OpenKeys(k.Dir())
			wantCode(t, err, CodeUnsafeKeys)
			if err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v does not say %q", err, tc.says)
			}
		})
	}
}

func loose(path string) error {
	text, err := Scope{Names: []string{"x"}}.file()
	return errors.Join(err, os.WriteFile(path, text, 0o644), os.Chmod(path, 0o666))
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	return errors.Join(err, os.WriteFile(to, b, 0o644))
}

// What is usual in such directories is no reason to refuse them.
func TestKeysAsFound(t *testing.T) {
	s := newSigner(t)
	dir := filepath.Join(t.TempDir(), "real")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	crlf := bytes.ReplaceAll(s.Public().File(), []byte("\n"), []byte("\r\n"))
	for name, text := range map[string][]byte{"team.pub": crlf, "README": []byte("keys\n"), ".hidden.pub": nil, "team.pub~": nil, "orphan.yaml": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(filepath.Dir(dir), "link")
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	k, err := OpenKeys(link)
	if err != nil || len(k.List()) != 1 || !k.List()[0].Equal(s.Public()) {
		t.Errorf("got %v, %v", k, err)
	}
}

// For keys of a small order a signature can be made without any secret; here it
// is made, and they are refused.
func TestSmallOrder(t *testing.T) {
	identity := append([]byte{1}, make([]byte, 31)...)
	forged := append(bytes.Clone(identity), make([]byte, 32)...) // R is the neutral point, S is 0
	found := 0
	for _, text := range smallOrder() {
		for _, sign := range []byte{0, 0x80} {
			key, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			key[31] |= sign
			for i := range 200 {
				if ed25519.Verify(key, []byte{byte(i)}, forged) {
					found++
					break
				}
			}
			if _, err := NewPublicKey(key); err == nil {
				t.Errorf("%x was taken", key)
			}
			if _, err := ParsePublicKey(PublicKey{1, key}.File()); err == nil {
				t.Errorf("%x was taken from a file", key)
			}
		}
	}
	if found < 7 {
		t.Errorf("only for %d of them a signature was forged: the list is wrong", found)
	}
}

func TestParsePublicKeyRefuses(t *testing.T) {
	good := newSigner(t).Public()
	for _, text := range []string{
		"", "\n", "untrusted comment: x\n", good.String()[:50], good.String() + "AAAA", good.String() + "\n" + good.String(),
		string(good.File()) + good.String(), "RW" + strings.Repeat("A", 54), strings.ToLower(good.String()),
		"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
	} {
		if k, err := ParsePublicKey([]byte(text)); err == nil {
			t.Errorf("%q was read as %v", text, k)
		}
	}
	for _, text := range []string{good.String(), good.String() + "\n", string(good.File())} {
		if k, err := ParsePublicKey([]byte(text)); err != nil || !k.Equal(good) {
			t.Errorf("%q: %v, %v", text, k, err)
		}
	}
}

func FuzzPublicKey(f *testing.F) {
	good := newSigner(f).Public()
	f.Add(good.File())
	f.Add([]byte(good.String()))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA0WU8cAfea7SJSTKDWlisotRa0wp1JQFTkXKLDUOP4fw=\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		k, err := ParsePublicKey(text)
		if err != nil {
			return
		}
		if back, err := ParsePublicKey(k.File()); err != nil || !back.Equal(k) {
			t.Fatalf("%q was read as %v, and its file as %v, %v", text, k, back, err)
		}
	})
}

func FuzzScope(f *testing.F) {
	f.Add([]byte("schema: mobileops.update-key/v1\nnames: [platform]\nchannels: [stable, beta]\n"))
	f.Add([]byte("schema: mobileops.update-key/v1\nnames: &a [x, *a]\n"))
	f.Add([]byte("{schema: mobileops.update-key/v1, names: [a], channels: []}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > maxKeyFile {
			return
		}
		s, err := parseScope(text)
		if err != nil {
			return
		}
		if s.All() || s.Check() != nil {
			t.Fatalf("%q was read as %+v", text, s)
		}
		again, err := s.file()
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseScope(again); err != nil || fmt.Sprint(back) != fmt.Sprint(s) {
			t.Fatalf("%q was read as %+v, and %q as %+v, %v", text, s, again, back, err)
		}
	})
}
