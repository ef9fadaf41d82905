package scaffold

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin"
	"github.com/mobileops/mobileops/internal/plugin/host"
	"github.com/mobileops/mobileops/internal/plugin/manifest"
	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/pkg/pluginsdk"
	"github.com/mobileops/mobileops/pkg/pluginsdk/conformance"
)

// repository is the root of the checkout that this test is in.
func repository(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return root
}

func scaffolded(t *testing.T, name, lang string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	names, err := Write(dir, name, lang)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		found = append(found, e.Name())
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if left := regexp.MustCompile(`@[A-Z]+@`).Find(data); left != nil {
			t.Errorf("%s has %s in it", e.Name(), left)
		}
	}
	if !slices.Equal(found, names) {
		t.Errorf("Write says %v, and made %v", names, found)
	}
	return dir
}

// command runs a program in a directory, without a network. What the module
// needs is in the cache, since mobileops needs it, too; go mod tidy would look
// for more than that (what tests of mobileops import, which it replaces).
func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOSUMDB=off", "GOWORK=off", "GOFLAGS=-mod=mod", "CGO_ENABLED=0")
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// packed signs the directory with a fresh key, and takes it as a host does.
func packed(t *testing.T, dir string) (*manifest.Manifest, []byte, trust.PublicKey) {
	t.Helper()
	secret, public, err := trust.SecretKeyFile(nil)
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "vendor.key")
	if err := os.WriteFile(key, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := trust.OpenSigner(t.Context(), key, nil)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	opts := pack.BuildOptions{Signer: signer, Sequence: 1000, Expires: time.Now().AddDate(1, 0, 0).Truncate(time.Second), Level: 1}
	if _, err := pack.Build(t.Context(), dir, &archive, opts); err != nil {
		t.Fatal(err)
	}
	p, err := pack.OpenReader(bytes.NewReader(archive.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "installed")
	if err := errors.Join(p.Verify(trust.Pinned(public), time.Now()), p.Unpack(t.Context(), dst), p.Close(), pack.VerifyDir(t.Context(), dst, p.Manifest)); err != nil {
		t.Fatal(err)
	}
	return p.Manifest, archive.Bytes(), public
}

func fileNames(m *manifest.Manifest) (names []string) {
	for name := range m.Files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func TestGo(t *testing.T) {
	dir := scaffolded(t, "disk-watch", Go)
	// What the comment in go.mod says.
	path := filepath.Join(dir, "go.mod")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	hint := "// replace github.com/mobileops/mobileops => ../mobileops"
	if !strings.Contains(string(data), hint) {
		t.Fatalf("no %q in\n%s", hint, data)
	}
	data = []byte(strings.Replace(string(data), hint, "replace github.com/mobileops/mobileops => "+repository(t), 1))
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if out := command(t, dir, "gofmt", "-l", "."); out != "" {
		t.Errorf("not formatted: %s", out)
	}
	command(t, dir, "make", "build")
	command(t, dir, "make", "test")
	m, archive, key := packed(t, dir)
	if got, want := fileNames(m), []string{"LICENSE", "README.md", "mobileops-disk-watch"}; !slices.Equal(got, want) {
		t.Errorf("the package has %v", got)
	}
	if m.Name != "disk-watch" || m.Service == nil || len(m.Commands) != 2 {
		t.Errorf("%+v", m)
	}
	h := install(t, archive, key)
	if out := h.call(plugin.Call{Role: host.RoleCommand, Args: []string{"count"}}); !strings.Contains(out, "critical  0\n") {
		t.Errorf("count says %q", out)
	}
	if out := h.call(plugin.Call{Role: host.RoleCommand, Args: []string{"show", "--min-severity=high"}}); out != "" {
		t.Errorf("show says %q", out)
	}
	h.serve("serve")
}

func TestShell(t *testing.T) {
	for _, need := range []string{"dash", "make"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("%s is not installed", need)
		}
	}
	dir := scaffolded(t, "disk-watch", Shell)
	for _, shell := range []string{"dash", "bash", "busybox sh", "mksh"} {
		words := strings.Fields(shell)
		if _, err := exec.LookPath(words[0]); err != nil {
			t.Logf("%s is not installed, and not tried", words[0])
			continue
		}
		if len(words) > 1 { // one word is wanted
			own := filepath.Join(t.TempDir(), words[0])
			if err := os.WriteFile(own, []byte("#!/bin/sh\nexec "+shell+" \"$@\"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			shell = own
		}
		out := command(t, dir, "make", "test", "SHELL_TO_TEST="+shell)
		if n := strings.Count(out, "\nok "); n != 10 {
			t.Errorf("%s: %d checks are ok:\n%s", shell, n, out)
		}
	}
	program := filepath.Join(dir, "mobileops-disk-watch")
	if info, err := os.Stat(program); err != nil || info.Mode().Perm()&0o111 == 0 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	// The tests of the plugin fail when it does not do what it should.
	good, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	for _, spoil := range []string{`text heading "$answer"`, `>>"$notes"`, `fail 3 "$1: $value"`, `continue ;;`} {
		if !strings.Contains(string(good), spoil) {
			t.Fatalf("no %q in the script", spoil)
		}
		bad := strings.Replace(string(good), spoil, strings.Repeat(" ", strings.Count(spoil, " "))+":"+strings.Repeat(" ;;", strings.Count(spoil, ";;")), 1)
		if err := os.WriteFile(program, []byte(bad), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "./test.sh")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err == nil {
			t.Errorf("without %q all is well:\n%s", spoil, out)
		}
	}
	if err := os.WriteFile(program, good, 0o755); err != nil {
		t.Fatal(err)
	}
	m, archive, key := packed(t, dir)
	if got, want := fileNames(m), []string{"LICENSE", "README.md", "mobileops-disk-watch"}; !slices.Equal(got, want) {
		t.Errorf("the package has %v", got)
	}
	// And the real protocol, over one descriptor.
	values := map[string]any{"heading": "Noted"}
	conformance.Test(t, conformance.Options{Program: program, Args: []string{"show"}, Role: pluginsdk.RoleCommand, Config: values})
	conformance.Test(t, conformance.Options{Program: program, Args: []string{"hook"}, Role: pluginsdk.RoleHook, Config: values})

	h := install(t, archive, key)
	event := `{"id":"f-7","type":"finding","time":"2026-03-04T05:06:07Z","change":"opened","finding":{"severity":"high","title":"x"}}` + "\n"
	in := filepath.Join(t.TempDir(), "events")
	if err := os.WriteFile(in, []byte(event), 0o644); err != nil {
		t.Fatal(err)
	}
	stdin, err := os.Open(in)
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if out := h.call(plugin.Call{Role: host.RoleHook, Args: []string{"hook"}, Stdin: stdin}); out != "" {
		t.Errorf("hook says %q", out)
	}
	if out, want := h.call(plugin.Call{Role: host.RoleCommand, Args: []string{"show"}}), "Noted\n2026-03-04T05:06:07Z opened high f-7\n"; out != want {
		t.Errorf("show says %q", out)
	}
}

// TestMakefilesCallMobileops stands a script in for mobileops.
func TestMakefilesCallMobileops(t *testing.T) {
	for _, lang := range Languages() {
		dir := scaffolded(t, "disk-watch", lang)
		yaml := filepath.Join(dir, "plugin.yaml")
		data, err := os.ReadFile(yaml)
		if err != nil {
			t.Fatal(err)
		}
		data = bytes.Replace(data, []byte("version: 0.1.0"), []byte("version: 2.13.4-rc.1    # a comment"), 1)
		if err := os.WriteFile(yaml, data, 0o644); err != nil {
			t.Fatal(err)
		}
		log := filepath.Join(t.TempDir(), "log")
		fake := filepath.Join(t.TempDir(), "mobileops")
		if err := os.WriteFile(fake, []byte("#!/bin/sh\necho \"$@\" >>'"+log+"'\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		command(t, dir, "make", "install", "--old-file=build", "MOBILEOPS="+fake, "KEY=/k/vendor.key")
		got, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		want := "plugin pack --key /k/vendor.key --sequence 2013004 .\n" +
			"plugin verify ./disk-watch-2.13.4-rc.1.plugin.tar.zst\n" +
			"plugin install ./disk-watch-2.13.4-rc.1.plugin.tar.zst\n"
		if string(got) != want {
			t.Errorf("%s:\n%s", lang, got)
		}
	}
}

func TestManifests(t *testing.T) {
	for _, lang := range Languages() {
		for version, want := range map[string]string{
			"1.2.3": "1.2.3", "v1.2.3": "1.2.3", "2.0.0-rc.1": "2.0.0-rc.1", "devel": "", "": "",
			"v0.0.0-20260101120000-0123456789ab+dirty": "", "v1.2.4-0.20260101120000-0123456789ab": "",
		} {
			files, err := render("disk-watch", lang, version)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if f.name != manifest.FileName {
					continue
				}
				m, err := manifest.Parse(f.content)
				if err != nil {
					t.Fatal(err)
				}
				if m.MinVersion != want {
					t.Errorf("%s, %q: min_version is %q", lang, version, m.MinVersion)
				}
				if _, err := m.Config.Validate(nil); err != nil {
					t.Errorf("%s: without a configuration: %v", lang, err)
				}
			}
		}
	}
	for version, want := range map[string]string{
		"1.2.3": "v1.2.3", "v1.2.3": "v1.2.3", "devel": "v0.0.0", "weird": "v0.0.0",
		"v0.0.0-20260101120000-0123456789ab+dirty": "v0.0.0-20260101120000-0123456789ab",
	} {
		if got := moduleVersion(version); got != want {
			t.Errorf("%q: %s", version, got)
		}
	}
	data, err := os.ReadFile(filepath.Join(repository(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(data), "\ngo "+goVersion+"\n") {
		t.Errorf("go.mod of mobileops does not say go %s", goVersion)
	}
}

func TestNamesAndLanguages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "x")
	for _, c := range [][2]string{
		{"", Go}, {"a", Go}, {"Disk", Go}, {"disk_watch", Shell}, {"disk-", Go}, {"../disk", Go}, {"disk\nname: other", Shell},
		{"disk: x", Go}, {strings.Repeat("a", 49), Go}, {"disk # x", Shell}, {"disk-watch", ""}, {"disk-watch", "perl"}, {"disk-watch", "../go"},
	} {
		if names, err := Write(dir, c[0], c[1]); failure.KindOf(err) != failure.Usage {
			t.Errorf("%q in %q: %v, %v", c[0], c[1], names, err)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the directory was made")
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	for _, lang := range Languages() {
		files, err := render("disk-watch", lang, "devel")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			dir := t.TempDir()
			mine := filepath.Join(dir, f.name)
			if err := os.Symlink(filepath.Join(dir, "elsewhere"), mine); err != nil {
				t.Fatal(err)
			}
			if _, err := Write(dir, "disk-watch", lang); failure.KindOf(err) != failure.Usage || !strings.Contains(err.Error(), f.name) {
				t.Errorf("%s: %v", f.name, err)
			}
			if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
				t.Errorf("%s: %v, %v", f.name, entries, err)
			}
		}
	}
	// What else is in the directory is no trouble.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "notes"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(dir, "disk-watch", Go); err != nil {
		t.Error(err)
	}
	if _, err := Write(filepath.Join(dir, "notes"), "disk-watch", Go); failure.KindOf(err) != failure.Usage {
		t.Error(err)
	}
	if _, err := Write(filepath.Join(dir, "no", "such"), "disk-watch", Go); failure.KindOf(err) != failure.NotReady {
		t.Error(err)
	}
}
