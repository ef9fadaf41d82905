// Command integrity measures mobileops integrity beside b3sum, AIDE and the
// least that any tool must do, on one machine and in one run, and prints the
// tables of docs/benchmarks.md.
//
//	make bench-integrity                    everything, about ten minutes
//	go run ./bench/integrity -rounds 3 -only small
//
// Each round runs all contenders one after the other, so that what else the
// machine does falls on all of them; medians of wall and of processor seconds
// (user and system, children included) are compared. Files are in the page
// cache. AIDE hashes with SHA-256, BLAKE3 being unknown to it, compares the
// same attributes and may use as many workers as there are cores.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) == 4 && os.Args[1] == "plain" {
		plain(os.Args[2], os.Args[3])
		return
	}
	log.SetFlags(0)
	b := bench{}
	flag.StringVar(&b.mobileops, "mobileops", "bin/mobileops", "the binary to measure")
	flag.StringVar(&b.dir, "dir", filepath.Join(os.TempDir(), "mobileops-bench"), "where corpora and databases are made; removed at the end")
	flag.IntVar(&b.rounds, "rounds", 5, "rounds")
	flag.StringVar(&b.only, "only", "", "one part: usr, small, large, classes or accepting")
	flag.Parse()
	if err := b.run(); err != nil {
		log.Fatal("bench: ", err)
	}
}

type bench struct {
	mobileops, dir, only string
	rounds               int
	self                 string
}

// corpus is a tree to measure on.
type corpus struct {
	name, title string
	path        string
	generate    func(dir string) error // nil: it is there
}

func (b *bench) run() error {
	var err error
	if b.self, err = os.Executable(); err != nil {
		return err
	}
	if b.mobileops, err = filepath.Abs(b.mobileops); err != nil {
		return err
	}
	for _, tool := range []string{"b3sum", "aide", "find", "xargs"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w (apt-get install b3sum aide findutils)", err)
		}
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	for _, c := range []corpus{
		{"usr", "/usr", "/usr", nil},
		{"small", "200,000 files of 1-8 KB", filepath.Join(b.dir, "small"), smallFiles},
		{"large", "4 x 1 GiB", filepath.Join(b.dir, "large"), largeFiles},
	} {
		if b.only != "" && b.only != c.name {
			continue
		}
		if c.generate != nil {
			if err := c.generate(c.path); err != nil {
				return err
			}
		}
		if err := b.measure(c); err != nil {
			return err
		}
	}
	for name, part := range map[string]func() error{"classes": b.classes, "accepting": b.accepting} {
		if b.only != "" && b.only != name {
			continue
		}
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// contender is something that is measured, with the runs so far.
type contender struct {
	name    string
	prepare string // a shell command that is not measured
	run     string
	wall    []float64
	cpu     []float64
}

func (b *bench) measure(c corpus) error {
	state := filepath.Join(b.dir, "state")
	if err := os.RemoveAll(state); err != nil {
		return err
	}
	conf, err := b.aideConfig(c)
	if err != nil {
		return err
	}
	db := filepath.Join(b.dir, "aide.db")
	m := fmt.Sprintf("MOBILEOPS_STATE_DIR=%s MOBILEOPS_LOG_DIR=%s %s integrity", state, state, b.mobileops)
	list := []*contender{
		{name: "baseline", run: m + " baseline -q " + c.path},
		{name: "verify", run: m + " verify -q"},
		{name: "check", run: m + " check -q"},
		{name: "b3sum", run: fmt.Sprintf("find %s -xdev -type f -print0 | xargs -0 -P 2 -n 256 b3sum >/dev/null", c.path)},
		{name: "read", run: b.self + " plain read " + c.path},
		{name: "stat", run: b.self + " plain stat " + c.path},
		{name: "aide init", prepare: "rm -f " + db, run: "aide --init -c " + conf + " >/dev/null"},
		{name: "aide check", run: "aide --check -c " + conf + " >/dev/null"},
	}
	if c.name == "large" { // one file for each b3sum, two at a time
		list[3].run = strings.Replace(list[3].run, "-n 256", "-n 1", 1)
	}
	for round := range b.rounds + 1 {
		fmt.Fprintf(os.Stderr, "%s: round %d of %d\n", c.title, round, b.rounds)
		for _, x := range list {
			// AIDE takes minutes: two rounds tell enough of a factor of ten.
			if strings.HasPrefix(x.name, "aide") && (round == 0 || round > 2) {
				continue
			}
			if err := x.once(round > 0); err != nil { // round 0 fills the page cache
				return err
			}
		}
	}
	return report(c, list)
}

func (x *contender) once(count bool) error {
	if x.prepare != "" {
		if out, err := exec.Command("sh", "-c", x.prepare).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", x.prepare, err, out)
		}
	}
	before, started := childCPU(), time.Now()
	cmd := exec.Command("sh", "-c", x.run)
	cmd.Stderr = os.Stderr
	err := cmd.Run()
	wall, cpu := time.Since(started).Seconds(), childCPU()-before
	if err != nil {
		return fmt.Errorf("%s: %w", x.run, err)
	}
	if count {
		x.wall, x.cpu = append(x.wall, wall), append(x.cpu, cpu)
	}
	return nil
}

// childCPU is the processor time of all children that have ended, in seconds.
func childCPU() float64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &r); err != nil {
		log.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano()).Seconds()
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func report(c corpus, list []*contender) error {
	byName := map[string]*contender{}
	fmt.Printf("\n### %s\n\n| | wall s | CPU s |\n|---|---|---|\n", c.title)
	for _, x := range list {
		byName[x.name] = x
		fmt.Printf("| %s | %.2f | %.2f |\n", x.name, median(x.wall), median(x.cpu))
	}
	fmt.Printf("\n| ratio | wall | CPU |\n|---|---|---|\n")
	for _, r := range [][2]string{
		{"verify", "b3sum"}, {"baseline", "aide init"}, {"verify", "aide check"}, {"verify", "read"}, {"check", "stat"},
	} {
		x, y := byName[r[0]], byName[r[1]]
		fmt.Printf("| %s ÷ %s | %.2f | %.2f |\n", r[0], r[1], median(x.wall)/median(y.wall), median(x.cpu)/median(y.cpu))
	}
	return nil
}

// aideConfig writes a configuration that compares what the built-in policies
// compare.
func (b *bench) aideConfig(c corpus) (string, error) {
	path := filepath.Join(b.dir, "aide.conf")
	db := "file:" + filepath.Join(b.dir, "aide.db")
	// Debian's AIDE 0.18 knows no ftype in combination with caps; these are
	// the counterparts of type, mode, links, owners, size, times and content.
	text := fmt.Sprintf(`database_in=%s
database_out=%s
gzip_dbout=no
num_workers=%d
report_url=stdout
%s ftype+p+l+n+u+g+s+m+c+acl+xattrs+caps+sha256
`, db, db, runtime.NumCPU(), c.path)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// smallFiles makes 200,000 files of 1 to 8 KB, 200 in a directory.
func smallFiles(dir string) error {
	r := rand.New(rand.NewPCG(7, 7))
	blob := make([]byte, 1<<20)
	for i := range blob {
		blob[i] = byte(r.Uint32())
	}
	for i := range 200_000 {
		sub := filepath.Join(dir, fmt.Sprintf("%03d", i/10_000), fmt.Sprintf("%05d", i/200))
		if i%200 == 0 {
			if err := os.MkdirAll(sub, 0o755); err != nil {
				return err
			}
		}
		size := 1024 + r.IntN(7*1024)
		from := r.IntN(len(blob) - size)
		if err := os.WriteFile(filepath.Join(sub, fmt.Sprintf("f%06d.dat", i)), blob[from:from+size], 0o644); err != nil {
			return err
		}
	}
	return nil
}

// largeFiles makes four files of 1 GiB that are all different.
func largeFiles(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(8, 8))
	buf := make([]byte, 1<<20)
	for i := range buf {
		buf[i] = byte(r.Uint32())
	}
	for n := range 4 {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(n)))
		if err != nil {
			return err
		}
		for i := range 1024 {
			buf[0], buf[1], buf[2] = byte(n), byte(i), byte(i>>8)
			if _, err := f.Write(buf); err != nil {
				return cmp.Or(f.Close(), err)
			}
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}
