// Command packages measures how fast package databases are read, beside
// debsums, on the dpkg database of the machine that it runs on, and prints the
// table of docs/benchmarks.md, "Package databases".
//
//	go run ./bench/packages             about five minutes
//	go run ./bench/packages -rounds 1
//
// Each round runs all contenders one after the other, so that what else the
// machine does falls on all of them; medians of wall and of processor seconds
// (user and system) are compared. The first round fills the page cache and is
// not counted.
//
// Most of what debsums does is to hash files. So that only the rest is
// compared, the same files are hashed by the same library, Perl's Digest::MD5,
// and that is taken off.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/integrity/packages"
)

// contender is a command with its runs so far.
type contender struct {
	name, what string
	args       []string
	wall, cpu  []float64
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	if len(os.Args) == 3 && os.Args[1] == "do" {
		if err := do(os.Args[2]); err != nil {
			log.Fatal(err)
		}
		return
	}
	rounds := flag.Int("rounds", 5, "rounds that count")
	flag.Parse()
	if err := run(*rounds); err != nil {
		log.Fatal(err)
	}
}

func run(rounds int) error {
	for _, tool := range []string{"debsums", "perl"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w (apt-get install debsums)", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	files, err := os.CreateTemp("", "bench-packages")
	if err != nil {
		return err
	}
	defer os.Remove(files.Name())
	total, err := hashed(files)
	if err != nil {
		return err
	}
	hash := `open L, $ARGV[0]; $/ = "\0"; while (<L>) { chomp; open F, "<:raw", $_ or next; my $d = Digest::MD5->new; $d->addfile(*F); $d->hexdigest }`
	list := []*contender{
		{name: "draw", what: "a process that only draws 300 paths, as the next two do", args: []string{self, "do", "draw"}},
		{name: "lookup 5", what: "the owners of 5 files", args: []string{self, "do", "5"}},
		{name: "lookup 300", what: "the owners of 300 files and directories, drawn from all", args: []string{self, "do", "300"}},
		{name: "each", what: "every path of every package with its digest", args: []string{self, "do", "each"}},
		{name: "owners", what: "a snapshot of all owners, encoded", args: []string{self, "do", "owners"}},
		{name: "debsums", what: "`debsums -s -a`", args: []string{"debsums", "-s", "-a"}},
		{name: "md5", what: "Digest::MD5 over the same files", args: []string{"perl", "-MDigest::MD5", "-e", hash, files.Name()}},
	}
	for round := range rounds + 1 {
		for _, c := range list {
			wall, cpu, err := measure(c.args)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 {
				c.wall, c.cpu = append(c.wall, wall), append(c.cpu, cpu)
			}
		}
	}
	fmt.Printf("%s\n\n| contender | what | wall s | CPU s |\n|---|---|---|---|\n", total)
	byName := map[string]*contender{}
	for _, c := range list {
		byName[c.name] = c
		fmt.Printf("| %s | %s | %.3f | %.3f |\n", c.name, c.what, median(c.wall), median(c.cpu))
	}
	rest := median(byName["debsums"].cpu) - median(byName["md5"].cpu)
	fmt.Printf("\ndebsums without hashing: %.2f s of processor time\n\n| ratio of processor time | |\n|---|---|\n", rest)
	for _, name := range []string{"each", "owners"} {
		fmt.Printf("| %s ÷ (debsums − md5) | %.3f |\n", name, median(byName[name].cpu)/rest)
	}
	return nil
}

// hashed writes the files that debsums hashes to f, and says how many.
func hashed(f *os.File) (string, error) {
	s, err := packages.Open("/")
	if err != nil {
		return "", err
	}
	defer s.Close()
	n, size, paths := 0, int64(0), 0
	err = s.Each(context.Background(), func(path []byte, file *packages.File) error {
		paths++
		if file.Digest.IsZero() {
			return nil
		}
		if st, err := os.Lstat(string(path)); err == nil && st.Mode().IsRegular() {
			n++
			size += st.Size()
			f.Write(append(bytes.Clone(path), 0))
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	all, err := s.Packages(context.Background())
	return fmt.Sprintf("%d packages, %d paths, %d files with digests, %.1f GB", len(all), paths, n, float64(size)/1e9), err
}

// measure runs a command; that it finds differences is no error.
func measure(args []string) (wall, cpu float64, err error) {
	cmd := exec.Command(args[0], args[1:]...)
	begin := time.Now()
	err = cmd.Run()
	if cmd.ProcessState == nil || strings.HasPrefix(args[0], "/") && err != nil {
		return 0, 0, err
	}
	return time.Since(begin).Seconds(), (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), nil
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// do is what a contender of ours does in its process.
func do(what string) error {
	if what == "draw" {
		_, err := someFiles("300")
		return err
	}
	s, err := packages.Open("/")
	if err != nil {
		return err
	}
	defer s.Close()
	ctx := context.Background()
	switch what {
	case "each":
		n := 0
		return s.Each(ctx, func([]byte, *packages.File) error { n++; return nil })
	case "owners":
		o, err := s.Owners(ctx)
		if err == nil {
			o.Encode()
		}
		return err
	}
	// Which files is drawn in the same way in each run, from one list that is
	// read without this package.
	paths, err := someFiles(what)
	if err == nil {
		_, err = s.Lookup(ctx, paths)
	}
	return err
}

// someFiles draws paths from the lists of dpkg, a few lists each, so that the
// drawing does not cost more than what is measured.
func someFiles(count string) ([][]byte, error) {
	n := 5
	if count == "300" {
		n = 300
	}
	names, err := os.ReadDir("/var/lib/dpkg/info")
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(1, 1))
	var paths [][]byte
	drawn := map[string]bool{} // /usr and /usr/share are in all lists
	for len(paths) < n {
		name := names[rng.IntN(len(names))].Name()
		if !strings.HasSuffix(name, ".list") {
			continue
		}
		b, err := os.ReadFile("/var/lib/dpkg/info/" + name)
		if err != nil {
			return nil, err
		}
		lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))[1:] // the first is "/."
		for range min(5, len(lines)) {
			if p := lines[rng.IntN(len(lines))]; !drawn[string(p)] {
				drawn[string(p)] = true
				paths = append(paths, p)
			}
		}
	}
	return paths, nil
}
