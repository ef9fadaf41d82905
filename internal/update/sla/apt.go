package sla

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Apt reads which security updates of the distribution are pending, from the
// package lists that apt has: no network is used, nothing is written, and no
// rights are needed.
//
// What apt would install is the wrong question: packages that are held, pinned,
// phased or kept back do not show in a simulated upgrade, and still are not
// secure. So the version that is here is compared with every version that a
// security archive offers (apt-cache policy), whatever keeps it away.
type Apt struct {
	// Root is the tree to look at; "" or "/": this host. The configuration of apt
	// in another tree is not read, since it can name programs to run.
	Root string
	// MaxAge is how old the answer of a security archive may be. The moment
	// that counts is the Date of its Release file: that of the last apt-get
	// update is nowhere kept. 0: any age.
	MaxAge time.Duration
	// Severity is that of every update: package lists do not say. Debian brings
	// what it does not think urgent with point releases instead.
	Severity Severity
}

// Limits of what programs may say.
const (
	maxOutput   = 256 << 20 // bytes, of apt-cache policy: a host with all of Debian has 40 MB
	maxMessages = 64 << 10  // bytes of standard error
	aptTime     = 5 * time.Minute
	batch       = 2000 // packages in one call
)

// Survey looks at the packages that are installed and at the package lists.
func (a *Apt) Survey(ctx context.Context, now time.Time) Survey {
	s := Survey{Source: SourceApt}
	if err := a.survey(ctx, &s, now); err != nil {
		s.Problems = append(s.Problems, err.Error())
	}
	return s
}

// tools are the programs that are asked.
type tools struct{ query, get, cache string }

func (a *Apt) survey(ctx context.Context, s *Survey, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, aptTime)
	defer cancel()
	status := filepath.Join(a.root(), "var/lib/dpkg/status")
	if _, err := os.Stat(status); errors.Is(err, fs.ErrNotExist) {
		s.Skipped = "no packages of dpkg are installed here"
		return nil
	}
	var t tools
	for _, p := range []struct {
		path *string
		name string
	}{{&t.query, "dpkg-query"}, {&t.get, "apt-get"}, {&t.cache, "apt-cache"}} {
		if *p.path = program(p.name); *p.path == "" {
			return fmt.Errorf("packages of dpkg are installed, but %s is not: their security updates cannot be known", p.name)
		}
	}
	out, err := run(ctx, nil, t.query, "--admindir="+filepath.Join(a.root(), "var/lib/dpkg"), "--show", "--showformat="+queryFormat)
	if err != nil {
		return err
	}
	packages, err := parseInstalled(out)
	if err != nil {
		return err
	}
	native := nativeArchitecture(packages)
	s.Installed = make(map[string]string, len(packages))
	for i := range packages {
		packages[i].qualify(native)
		s.Installed[packages[i].name] = packages[i].version
	}
	conf, err := a.configuration(packages, native)
	if err != nil {
		return err
	}
	archives, err := a.archives(ctx, s, conf, &t, now)
	if err != nil || len(archives) == 0 {
		return err
	}
	return a.pending(ctx, s, conf, &t, packages, archives)
}

func (a *Apt) root() string {
	if a.Root == "" {
		return "/"
	}
	return a.Root
}

// program finds a program where the system has them: a PATH could name others.
func program(name string) string {
	for _, dir := range []string{"/usr/bin", "/bin", "/usr/sbin", "/sbin"} {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// nativeArchitecture is that of the package dpkg itself, or else of most packages,
// or else of this program.
func nativeArchitecture(packages []installed) string {
	count := map[string]int{}
	best := ""
	for _, p := range packages {
		if p.arch == "all" {
			continue
		}
		if p.name == "dpkg" {
			return p.arch
		}
		if count[p.arch]++; best == "" || count[p.arch] > count[best] {
			best = p.arch
		}
	}
	if best != "" {
		return best
	}
	if name, ok := map[string]string{"386": "i386", "arm": "armhf", "ppc64le": "ppc64el", "mipsle": "mipsel"}[runtime.GOARCH]; ok {
		return name
	}
	return runtime.GOARCH
}

// configuration is an apt.conf(5) for another tree; "" for this host.
func (a *Apt) configuration(packages []installed, native string) (string, error) {
	if a.root() == "/" {
		return "", nil
	}
	if strings.ContainsAny(a.Root, "\"\n\r\x00;{}") {
		return "", fmt.Errorf("%q is no name of a directory that apt could be given", a.Root)
	}
	architectures := []string{native}
	for _, p := range packages {
		if p.arch != "all" && !slices.Contains(architectures, p.arch) {
			architectures = append(architectures, p.arch)
		}
	}
	var b strings.Builder
	dir := strings.TrimSuffix(a.Root, "/")
	fmt.Fprintf(&b, "Dir \"%s/\";\nDir::State::status \"%s/var/lib/dpkg/status\";\n", dir, dir)
	fmt.Fprintf(&b, "Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n")
	fmt.Fprintf(&b, "APT::Architecture \"%s\";\nAPT::Architectures { \"%s\"; };\n", native, strings.Join(architectures, "\"; \""))
	return b.String(), nil
}

// apt runs apt-get or apt-cache so that they read and nothing else: with no cache
// of their own, which they would write, and no locks.
func (a *Apt) apt(ctx context.Context, conf, program string, args ...string) ([]byte, error) {
	var files []*os.File
	if conf != "" {
		fd, err := unix.MemfdCreate("apt.conf", unix.MFD_CLOEXEC)
		if err != nil {
			return nil, os.NewSyscallError("memfd_create", err)
		}
		f := os.NewFile(uintptr(fd), "apt.conf")
		defer f.Close()
		if _, err := f.WriteString(conf); err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return run(ctx, files, program, append([]string{
		"-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=", "-o", "Debug::NoLocking=1", "-o", "APT::Color=0", "-o", "APT::Cmd::Disable-Script-Warning=1",
	}, args...)...)
}

// run runs a program in the C locale and returns what it printed. The first of
// files, if there is one, is its apt.conf.
func run(ctx context.Context, files []*os.File, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "LANGUAGE=C"}
	if len(files) > 0 {
		cmd.Env = append(cmd.Env, "APT_CONFIG=/proc/self/fd/3")
	}
	cmd.ExtraFiles = files
	out, messages := &limited{most: maxOutput}, &limited{most: maxMessages, quietly: true}
	cmd.Stdout, cmd.Stderr = out, messages
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(program), context.Cause(ctx))
	}
	if err == nil {
		return out.Bytes(), nil
	}
	text := err.Error()
	for line := range strings.Lines(messages.String()) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "E: ") || strings.HasPrefix(line, "dpkg-query: error") {
			text = clip(line, MaxText)
			break
		}
	}
	return nil, fmt.Errorf("%s: %s", filepath.Base(program), text)
}

// limited is a buffer that takes so much and no more.
type limited struct {
	bytes.Buffer
	most    int
	quietly bool // drop what is too much, instead of failing
}

func (l *limited) Write(p []byte) (int, error) {
	if room := l.most - l.Len(); len(p) > room {
		if !l.quietly {
			return 0, fmt.Errorf("it prints more than %d bytes", l.most)
		}
		l.Buffer.Write(p[:room])
		return len(p), nil
	}
	return l.Buffer.Write(p)
}
