package plugin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/plugin/host"
	"github.com/mobileops/mobileops/internal/plugin/pack"
	"github.com/mobileops/mobileops/internal/plugin/sandbox"
	"github.com/mobileops/mobileops/internal/state"
	"github.com/mobileops/mobileops/internal/trust"
)

// world is a host with an engine, an author's key, and a place for sources.
type world struct {
	*testing.T
	*Engine
	dir    string
	signer trust.Signer
	key    trust.PublicKey
	now    time.Time
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if s := sandbox.Detect(); s.Landlock < 3 || !s.Seccomp || !s.Held {
		t.Skipf("NOT RUN: this host cannot confine plugins: %+v", s)
	}
	dir, err := os.MkdirTemp("", "plugins") // which accounts of plugins can go through, unlike t.TempDir
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := &world{T: t, dir: dir, now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}
	secret, public, err := trust.SecretKeyFile(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.key = public
	w.write("author.key", string(secret), 0o600)
	if w.signer, err = trust.OpenSigner(t.Context(), filepath.Join(dir, "author.key"), nil); err != nil {
		t.Fatal(err)
	}
	w.Engine = New(Options{
		State: state.New(filepath.Join(dir, "state"), state.Options{}), Dir: filepath.Join(dir, "plugins"), ConfigDir: filepath.Join(dir, "config"),
		KeysDir: filepath.Join(dir, "keys"), RunDir: filepath.Join(dir, "run"), Bundled: []string{"comes-along"}, Product: "1.0.0", HostID: "test", Reserved: []string{"network", "plugin"}, from: accountsOf(dir), Now: func() time.Time { return w.now },
	})
	w.trust(public)
	return w
}

// accountsOf is the first account of the plugins of a world: a few of its own.
func accountsOf(dir string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(dir))
	return firstAccount + h.Sum32()%250
}

func (w *world) trust(key trust.PublicKey) {
	w.Helper()
	keys, err := trust.OpenKeys(filepath.Join(w.dir, "keys"))
	if err == nil {
		_, err = keys.Add(key, trust.Scope{})
	}
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) write(name, content string, mode os.FileMode) string {
	w.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		w.Fatal(err)
	}
	return path
}

// pack makes a package of a shell script, and returns its path.
func (w *world) pack(name, version string, sequence uint64, manifest, script string) string {
	w.Helper()
	src := fmt.Sprintf("src/%s-%d", name, sequence)
	w.write(src+"/plugin.yaml", fmt.Sprintf("schema: mobileops.plugin/v1\nname: %s\nversion: %s\nsummary: A plugin for a test\nlicence: Apache-2.0\ncommands: [{name: \"\", summary: Do it, args: {}}]\n%s", name, version, manifest), 0o644)
	w.write(src+"/mobileops-"+name, "#!/bin/sh\n"+script, 0o755)
	var out bytes.Buffer
	_, err := pack.Build(w.Context(), filepath.Join(w.dir, src), &out, pack.BuildOptions{Signer: w.signer, Sequence: sequence, Expires: w.now.AddDate(1, 0, 0)})
	if err != nil {
		w.Fatal(err)
	}
	return w.write(fmt.Sprintf("%s-%s-%d.tar.zst", name, version, sequence), out.String(), 0o644)
}

// try inspects and installs a package.
func (w *world) try(path string, c Consent) (*Record, *Plan, error) {
	w.Helper()
	p, err := pack.Open(path)
	if err != nil {
		return nil, nil, err
	}
	plan, err := w.Inspect(w.Context(), p, Source{Text: path})
	if err != nil {
		p.Close()
		return nil, nil, err
	}
	defer plan.Close()
	r, err := w.Install(w.Context(), plan, c)
	return r, plan, err
}

func (w *world) install(path string) *Record {
	w.Helper()
	r, _, err := w.try(path, Consent{Permissions: true, By: "test"})
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// run runs a plugin as a command, and returns its status and what it printed.
func (w *world) run(name string, args ...string) (int, string, error) {
	w.Helper()
	return w.call(name, Call{Role: host.RoleCommand, Args: args})
}

func (w *world) call(name string, c Call) (int, string, error) {
	w.Helper()
	r, out, err := os.Pipe()
	if err != nil {
		w.Fatal(err)
	}
	defer r.Close()
	c.Stdout, c.Stderr = out, out
	run, err := w.Start(w.Context(), name, c)
	out.Close()
	if err != nil {
		return 0, "", err
	}
	text := make(chan string)
	go func() { b, _ := io.ReadAll(r); text <- string(b) }()
	status, err := run.Wait()
	return status, <-text, err
}

// fails checks the kind and the text of an error.
func (w *world) fails(err error, kind failure.Kind, text string) {
	w.Helper()
	if err == nil || failure.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
		w.Errorf("%v (kind %d); want kind %d, %q", err, failure.KindOf(err), kind, text)
	}
}

const echo = `echo "$MOBILEOPS_PLUGIN $MOBILEOPS_PLUGIN_VERSION $MOBILEOPS_PLUGIN_ROLE $*"; read hello <&3; echo "$hello"; pwd`

func TestInstallAndRun(t *testing.T) {
	w := newWorld(t)
	w.fails(func() error { _, _, err := w.run("hello"); return err }(), failure.No, `"hello"`)
	r := w.install(w.pack("hello", "1.0.0", 1, "", echo))
	if r.Version != "1.0.0" || r.Sequence != 1 || !r.Enabled || r.KeyID != w.key.ID() || r.Previous != nil {
		t.Errorf("%+v", r)
	}
	if os.Geteuid() == 0 && (r.Account < firstAccount || r.Account > lastAccount) {
		t.Errorf("account %d", r.Account)
	}
	status, out, err := w.run("hello", "one", "two three")
	lines := strings.Split(out, "\n")
	if err != nil || status != 0 || lines[0] != "hello 1.0.0 command one two three" ||
		!strings.Contains(lines[1], `"protocol":"mobileops.plugin/v1"`) || lines[2] != w.DataDir("hello") {
		t.Errorf("%d, %q, %v", status, out, err)
	}
	if _, err := w.Verify(t.Context(), "hello"); err != nil {
		t.Error(err)
	}
	x, err := ReadIndex(w.opts.Dir)
	if err != nil || x.Find("hello") == nil || x.Find("hello").Version != "1.0.0" {
		t.Errorf("%+v, %v", x, err)
	}

	if _, err := w.Enable(t.Context(), "hello", false); err != nil {
		t.Fatal(err)
	}
	_, _, err = w.run("hello")
	w.fails(err, failure.NotReady, "disabled")
	_, err = w.Enable(t.Context(), "hello", false)
	w.fails(err, failure.Busy, "already")
	if x, err := ReadIndex(w.opts.Dir); err != nil || x.Find("hello") != nil {
		t.Errorf("disabled, and in the index: %v", err)
	}

	kept := filepath.Join(w.DataDir("hello"), "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Uninstall(t.Context(), "hello", false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Error("data went without being asked for:", err)
	}
	if _, err := os.Stat(w.installedDir("hello")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something is left: %v", err)
	}
	again := w.install(w.pack("hello", "1.0.1", 2, "", echo))
	if again.Account != r.Account {
		t.Errorf("its data belongs to %d, and it is %d", r.Account, again.Account)
	}
	if _, err := w.Uninstall(t.Context(), "hello", true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(w.DataDir("hello")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("data is left: %v", err)
	}
}

// TestRefused goes through packages that are not installed, and looks that
// nothing of them is left.
func TestRefused(t *testing.T) {
	w := newWorld(t)
	good := w.pack("hello", "1.0.0", 5, "", echo)
	stranger, strange, err := trust.SecretKeyFile(nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = strange
	author := w.signer
	w.signer, err = trust.OpenSigner(t.Context(), w.write("stranger.key", string(stranger), 0o600), nil)
	if err != nil {
		t.Fatal(err)
	}
	foreign := w.pack("foreign", "1.0.0", 1, "", echo)
	w.signer = author
	damaged := []byte(readFile(t, good))
	damaged[len(damaged)/2] ^= 1
	yes := Consent{Permissions: true}
	for name, c := range map[string]struct {
		path string
		kind failure.Kind
		says string
	}{
		"another key":        {foreign, failure.Untrustworthy, "not trusted"},
		"damaged":            {w.write("damaged.tar.zst", string(damaged), 0o644), failure.Untrustworthy, ""},
		"a noun":             {w.pack("network", "1.0.0", 1, "", echo), failure.Untrustworthy, "network"},
		"writes to the keys": {w.pack("greedy", "1.0.0", 1, "permissions: {write: ["+filepath.Join(w.dir, "keys", "x")+"]}\n", echo), failure.Untrustworthy, "let itself do anything"},
		"writes to sockets":  {w.pack("impostor", "1.0.0", 1, "permissions: {write: ["+filepath.Join(w.dir, "run")+"]}\n", echo), failure.Untrustworthy, "let itself do anything"},
		"writes above all":   {w.pack("greedier", "1.0.0", 1, "permissions: {write: [/tmp]}\n", echo), failure.Untrustworthy, "let itself do anything"},
		"a name of ours":     {w.pack("comes-along", "1.0.0", 1, "", echo), failure.Untrustworthy, "comes with mobileops"},
		"talks to us":        {w.pack("chatty", "1.0.0", 1, "permissions: {unix: ["+filepath.Join(w.dir, "run", "plugins.sock")+"]}\n", echo), failure.Untrustworthy, "socket of mobileops itself"},
		"a newer product":    {w.pack("newer", "1.0.0", 1, "min_version: 9.0.0\n", echo), failure.NotReady, "9.0.0"},
		"no package at all":  {w.write("text", "hello", 0o644), failure.Untrustworthy, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := w.try(c.path, yes)
			w.fails(err, c.kind, c.says)
		})
	}
	late := w.pack("late", "1.0.0", 1, "", echo)
	w.now = w.now.AddDate(2, 0, 0)
	_, _, err = w.try(late, yes)
	w.fails(err, failure.Untrustworthy, "expired")
	w.now = w.now.AddDate(-2, 0, 0)
	_, _, err = w.try(good, Consent{})
	w.fails(err, failure.Usage, "--accept-permissions")
	list, err := w.List(t.Context())
	left, _ := filepath.Glob(filepath.Join(w.opts.Dir, "installed", "*"))
	if err != nil || len(list) != 0 || len(left) != 0 {
		t.Errorf("%v, %v, left %q", list, err, left)
	}

	w.install(good)
	_, _, err = w.try(good, yes)
	w.fails(err, failure.Busy, "installed already")
	_, _, err = w.try(w.pack("hello", "1.0.0", 5, "", echo+"\nexit 0"), yes)
	w.fails(err, failure.Untrustworthy, "two packages")
	older := w.pack("hello", "0.9.0", 4, "", echo)
	_, _, err = w.try(older, yes)
	w.fails(err, failure.Untrustworthy, "--allow-downgrade")
	if _, err := w.Uninstall(t.Context(), "hello", true); err != nil {
		t.Fatal(err)
	}
	_, _, err = w.try(older, yes)
	w.fails(err, failure.Untrustworthy, "--allow-downgrade")
	if _, _, err = w.try(older, Consent{Permissions: true, Downgrade: true}); err != nil {
		t.Error(err)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestTampered changes what is installed, by every way that root has.
func TestTampered(t *testing.T) {
	w := newWorld(t)
	path := w.pack("hello", "1.0.0", 1, "", echo)
	for name, tamper := range map[string]func(dir string) error{
		"the program": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "mobileops-hello"), []byte("#!/bin/sh\necho owned\n"), 0o755)
		},
		"the manifest": func(dir string) error {
			data, err := os.ReadFile(filepath.Join(dir, "plugin.yaml"))
			return errors.Join(err, os.WriteFile(filepath.Join(dir, "plugin.yaml"), bytes.Replace(data, []byte("A plugin"), []byte("X plugin"), 1), 0o644))
		},
		"a file more":  func(dir string) error { return os.WriteFile(filepath.Join(dir, "extra"), nil, 0o644) },
		"no signature": func(dir string) error { return os.Remove(filepath.Join(dir, "plugin.yaml.minisig")) },
		"no program":   func(dir string) error { return os.Remove(filepath.Join(dir, "mobileops-hello")) },
		"a link": func(dir string) error {
			p := filepath.Join(dir, "mobileops-hello")
			return errors.Join(os.Remove(p), os.Symlink("/bin/sh", p))
		},
		"open to all":   func(dir string) error { return os.Chmod(filepath.Join(dir, "mobileops-hello"), 0o777) },
		"nothing there": os.RemoveAll,
	} {
		t.Run(name, func(t *testing.T) {
			r := w.install(path)
			if err := tamper(w.packageDir("hello", &r.Release)); err != nil {
				t.Fatal(err)
			}
			_, out, err := w.run("hello")
			w.fails(err, failure.Untrustworthy, "")
			if out != "" {
				t.Errorf("it ran: %q", out)
			}
			if _, err := w.Verify(t.Context(), "hello"); failure.KindOf(err) != failure.Untrustworthy {
				t.Errorf("verify: %v", err)
			}
			if _, err := w.Uninstall(t.Context(), "hello", true); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("its key is not trusted any more", func(t *testing.T) {
		w.install(path)
		keys, err := trust.OpenKeys(w.opts.KeysDir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keys.Remove(w.key.ID()); err != nil {
			t.Fatal(err)
		}
		_, _, err = w.run("hello")
		w.fails(err, failure.NotReady, "no key is trusted")
	})
}

// TestUpgrade asks again for what grew, and goes back.
func TestUpgrade(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("hello", "1.0.0", 1, "permissions: {read: [/etc/hostname]}\n", "echo first"))
	less := w.pack("hello", "1.1.0", 2, "", "echo second")
	if _, plan, err := w.try(less, Consent{}); err != nil || len(plan.Grew) != 0 {
		t.Errorf("%v", err)
	}
	more := w.pack("hello", "1.2.0", 3, "permissions: {read: [/etc]}\n", "echo third")
	_, plan, err := w.try(more, Consent{})
	w.fails(err, failure.Usage, "/etc")
	if plan == nil || len(plan.Grew) != 1 || plan.Grew[0].Kind != "read" {
		t.Errorf("%+v", plan)
	}
	if _, out, err := w.run("hello"); err != nil || out != "second\n" {
		t.Errorf("%q, %v", out, err)
	}
	w.install(more)
	if _, out, err := w.run("hello"); err != nil || out != "third\n" {
		t.Errorf("%q, %v", out, err)
	}
	left, _ := os.ReadDir(w.installedDir("hello"))
	if len(left) != 2 {
		t.Errorf("kept: %v", left)
	}
	for _, want := range []string{"second\n", "third\n"} {
		if _, err := w.Rollback(t.Context(), "hello"); err != nil {
			t.Fatal(err)
		}
		if _, out, err := w.run("hello"); err != nil || out != want {
			t.Errorf("%q, %v; want %q", out, err, want)
		}
	}
	if _, err := w.Rollback(t.Context(), "hello"); err != nil {
		t.Fatal(err)
	}
	// From what it went back to, the newer one is an upgrade again.
	w.install(more)
	if _, out, err := w.run("hello"); err != nil || out != "third\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestFiles lets a plugin read what was named to it, for one call.
func TestFiles(t *testing.T) {
	w := newWorld(t)
	secret := w.write("report", "of root alone\n", 0o600)
	w.install(w.pack("reader", "1.0.0", 1, "permissions: {exec: [/bin/cat]}\n", `cat "$1"`))
	if status, out, err := w.run("reader", secret); err != nil || status == 0 {
		t.Errorf("not named, and read: %q, %v", out, err)
	}
	if status, out, err := w.call("reader", Call{Role: host.RoleCommand, Args: []string{secret}, Files: []string{secret}}); err != nil || status != 0 || out != "of root alone\n" {
		t.Errorf("%d, %q, %v", status, out, err)
	}
}

// TestConfiguration starts nothing with a configuration that is wrong.
func TestConfiguration(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("hello", "1.0.0", 1, `config:
  where: {type: string, required: true}
  token: {type: string, secret: true}
permissions: {network: ["config:where"]}
`, `read hello <&3; echo '{"id":1,"method":"config.get"}' >&3; read answer <&3; echo "$answer"
echo '{"id":2,"method":"secret.get","params":{"name":"token"}}' >&3; read answer <&3; echo "$answer"`))
	_, _, err := w.run("hello")
	w.fails(err, failure.NotReady, "not configured")
	w.write("config/hello.yaml", "token: x\n", 0o600)
	_, _, err = w.run("hello")
	w.fails(err, failure.Usage, "where")
	token := w.write("token", "s3cret\n", 0o600)
	w.write("config/hello.yaml", "where: siem.example:6514\ntoken: {file: "+token+"}\n", 0o600)
	_, out, err := w.run("hello")
	if err != nil || !strings.Contains(out, `"where":"siem.example:6514"`) || !strings.Contains(out, `"value":"s3cret"`) || strings.Count(out, "s3cret") != 1 {
		t.Errorf("%q, %v", out, err)
	}
	if err := os.Chmod(token, 0o666); err != nil {
		t.Fatal(err)
	}
	_, _, err = w.run("hello")
	w.fails(err, failure.NotReady, "can be changed by others")
	w.write("config/hello.yaml", "where: siem.example:6514\ntokne: x\n", 0o600)
	_, _, err = w.run("hello")
	w.fails(err, failure.Usage, "tokne")
}

func TestEnds(t *testing.T) {
	w := newWorld(t)
	w.install(w.pack("hello", "1.0.0", 1, "", `case $1 in status) exit 6;; killed) kill -9 $$;; broken) echo nonsense >&3; while :; do :; done;; esac`))
	if status, _, err := w.run("hello", "status"); err != nil || status != 6 {
		t.Errorf("%d, %v", status, err)
	}
	if status, _, err := w.run("hello", "killed"); err != nil || status != 128+9 {
		t.Errorf("%d, %v", status, err)
	}
	if status, _, err := w.run("hello", "broken"); err == nil || status != 128+9 {
		t.Errorf("%d, %v", status, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Start(ctx, "hello", Call{Role: host.RoleCommand}); !errors.Is(err, context.Canceled) {
		t.Errorf("started after the end: %v", err)
	}
}
