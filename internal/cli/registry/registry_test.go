package registry

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mobileops/mobileops/internal/failure"
)

// written writes a file of passwords.
func written(t testing.TB, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPasswordsAreThoseOfTheHost(t *testing.T) {
	const text = `{"auths": {
		"registry.example:5000": {"auth": "b3BzOnNlYzpyZXQ="},
		"https://Old.example/v1/": {"username": "ops", "password": "secret"},
		"token.example": {"registrytoken": "abc", "auth": "eDp5"},
		"helped.example": {},
		"empty.example": {}
	}, "credHelpers": {"helped.example": "pass"}, "HttpHeaders": {"User-Agent": "x"}}`
	lookup := Credentials[Credential](written(t, text, 0o600), "plugin.credentials")
	for host, want := range map[string]Credential{
		"registry.example:5000": {Username: "ops", Password: "sec:ret"},
		"REGISTRY.example:5000": {Username: "ops", Password: "sec:ret"},
		"registry.example":      {}, // another port is another server
		"old.example":           {Username: "ops", Password: "secret"},
		"token.example":         {Token: "abc"},
		"empty.example":         {},
		"elsewhere.example":     {},
	} {
		if got, err := lookup(context.Background(), host); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", host, got, err, want)
		}
	}
	if _, err := lookup(context.Background(), "helped.example"); failure.KindOf(err) != failure.NotReady || !strings.Contains(err.Error(), "credential helper") {
		t.Errorf("a helper: %v", err)
	}
	if Credentials[Credential]("", "plugin.credentials") != nil {
		t.Error("without a file something is looked up")
	}
}

func TestPasswordsThatOthersReadAreNotUsed(t *testing.T) {
	for mode, want := range map[os.FileMode]failure.Kind{0o600: failure.None, 0o400: failure.None, 0o640: failure.NotAllowed, 0o604: failure.NotAllowed, 0o620: failure.NotAllowed} {
		if err := Check(written(t, `{}`, mode), "plugin.credentials"); failure.KindOf(err) != want {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	if err := Check(filepath.Join(t.TempDir(), "none"), "plugin.credentials"); failure.KindOf(err) != failure.NotReady {
		t.Errorf("no file: %v", err)
	}
	if err := Check(t.TempDir(), "plugin.credentials"); failure.KindOf(err) != failure.NotAllowed {
		t.Errorf("a directory: %v", err)
	}
}

func TestBadPasswordsAreNotQuoted(t *testing.T) {
	for _, text := range []string{
		`{"auths": {"h": {"auth": 7, "x": "hunter2"}}}`, `hunter2`, `{"auths": {"h": {"auth": "hunter2!"}}}`, `{"auths": {"h": {"auth": "aHVudGVyMg=="}}}`,
		strings.Repeat(" ", maxCredentials+1),
	} {
		_, err := Credentials[Credential](written(t, text, 0o600), "plugin.credentials")(context.Background(), "h")
		if failure.KindOf(err) != failure.NotReady || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aHVudGVyMg") {
			t.Errorf("%.60s: %v", text, err)
		}
	}
}

func FuzzCredentials(f *testing.F) {
	f.Add(`{"auths": {"registry.example:5000": {"auth": "b3BzOnNlY3JldA=="}}}`, "registry.example:5000")
	f.Add(`{"auths": {"https://h/v1/": {}}, "credsStore": "x"}`, "h")
	f.Add(`{"auths": null}`, "")
	f.Fuzz(func(t *testing.T, text, host string) {
		path := written(t, text, 0o600)
		got, err := Credentials[Credential](path, "plugin.credentials")(context.Background(), host)
		if err != nil && got != (Credential{}) {
			t.Errorf("both %+v and %v", got, err)
		}
	})
}
