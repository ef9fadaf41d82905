// Command seal measures encryption at rest, package internal/seal, beside the
// age command, and prints the table of docs/benchmarks.md, "Encryption at
// rest".
//
//	go run ./bench/logs/seal                      a file of 512 MB, made anew
//	go run ./bench/logs/seal -file big.log
//
// Each round runs all contenders one after the other, each in a process of its
// own, so that what else the machine does falls on all of them, and each round
// begins with another one; medians of wall and of processor seconds (user and
// system) are compared. The input is in the page cache; the output goes to a
// new file in memory or to /dev/null. The first round is not counted. Both
// seal for the same age recipient.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/seal"
)

const objectContext = "benchmark"

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	if len(os.Args) == 5 && os.Args[1] == "do" {
		if err := do(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			log.Fatal(err)
		}
		return
	}
	age := flag.String("age", "age", "the age command to measure")
	file := flag.String("file", "", "what is sealed; default: 512 MB of random bytes")
	dir := flag.String("dir", "/dev/shm", "where sealed files are made, in a directory that is removed at the end; a filesystem in memory")
	rounds := flag.Int("rounds", 7, "rounds that count")
	flag.Parse()
	if err := run(*age, *file, *dir, *rounds); err != nil {
		log.Fatal(err)
	}
}

// contender is a command with its runs so far.
type contender struct {
	name      string
	args      []string
	out       string // where its standard output goes; empty: it is given its output
	wall, cpu []float64
}

func run(age, file, dir string, rounds int) error {
	for _, tool := range []string{age, "age-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w (apt-get install age)", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err = os.MkdirTemp(dir, "bench-seal")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	in := func(name string) string { return filepath.Join(dir, name) }
	if file == "" {
		file = in("plain")
		if err := makeFile(file, 512_000_000); err != nil {
			return err
		}
	}
	st, err := os.Stat(file)
	if err != nil {
		return err
	}
	if out, err := exec.Command("age-keygen", "-o", in("key")).CombinedOutput(); err != nil {
		return fmt.Errorf("age-keygen: %w\n%s", err, out)
	}
	public, err := exec.Command("age-keygen", "-y", in("key")).Output()
	if err != nil {
		return err
	}
	if err := os.WriteFile(in("recipients"), public, 0o600); err != nil {
		return err
	}
	ours := func(what, from, to string) []string { return []string{self, "do", what, in(from), to} }
	sealOurs := func(to string) []string { return []string{self, "do", "seal:" + in("recipients"), file, to} }
	sealAge := []string{age, "--encrypt", "-R", in("recipients"), file}
	openAge := []string{age, "--decrypt", "-i", in("key"), in("age")}
	open := "open:" + in("key")
	list := []*contender{
		{name: "seal to memory", args: sealOurs(in("out"))},
		{name: "age to memory", args: sealAge, out: in("out")},
		{name: "seal to /dev/null", args: sealOurs("/dev/null")},
		{name: "age to /dev/null", args: sealAge, out: "/dev/null"},
		{name: "open to memory", args: ours(open, "sealed", in("out"))},
		{name: "age -d to memory", args: openAge, out: in("out")},
		{name: "open to /dev/null", args: ours(open, "sealed", "/dev/null")},
		{name: "age -d to /dev/null", args: openAge, out: "/dev/null"},
		{name: "verify", args: ours("verify:"+in("key"), "sealed", "-")},
		{name: "1,000 reads of 4 KiB", args: ours("random:"+in("key"), "sealed", "-")},
		{name: "rewrap", args: ours("rewrap:"+in("key")+":"+in("recipients"), "sealed", "-")},
	}
	for _, c := range []contender{{args: sealOurs(in("sealed"))}, {args: sealAge, out: in("age")}} { // what is opened
		if _, _, err := c.measure(); err != nil {
			return err
		}
	}
	for round := range rounds + 1 {
		for i := range list {
			c := list[(i+round)%len(list)]
			wall, cpu, err := c.measure()
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 {
				c.wall, c.cpu = append(c.wall, wall), append(c.cpu, cpu)
			}
			if strings.HasPrefix(c.name, "open to m") || strings.HasPrefix(c.name, "age -d to m") {
				if err := same(file, in("out")); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
			}
			os.Remove(in("out")) // missing when the output went elsewhere
		}
	}
	fmt.Printf("%d bytes, %d processors, medians of %d\n\n| contender | wall s | CPU s | MB/s |\n|---|---|---|---|\n", st.Size(), runtime.NumCPU(), rounds)
	for _, c := range list {
		rate := fmt.Sprintf("%.0f", float64(st.Size())/1e6/median(c.wall))
		if slices.Contains([]string{"rewrap", "1,000 reads of 4 KiB"}, c.name) {
			rate = ""
		}
		fmt.Printf("| %s | %.3f | %.3f | %s |\n", c.name, median(c.wall), median(c.cpu), rate)
	}
	fmt.Printf("\n| throughput | × age | CPU ÷ age |\n|---|---|---|\n")
	for i := 0; i < 8; i += 2 {
		a, b := list[i], list[i+1]
		fmt.Printf("| %s | %.2f | %.2f |\n", a.name, median(b.wall)/median(a.wall), median(a.cpu)/median(b.cpu))
	}
	return nil
}

func makeFile(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), size)
	return errors.Join(err, f.Close())
}

// same fails when two files have different contents.
func same(a, b string) error {
	if out, err := exec.Command("cmp", a, b).CombinedOutput(); err != nil {
		return fmt.Errorf("what was opened is not what was sealed: %w\n%s", err, out)
	}
	return nil
}

func (c *contender) measure() (wall, cpu float64, err error) {
	cmd := exec.Command(c.args[0], c.args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if c.out != "" {
		out, err := os.Create(c.out)
		if err != nil {
			return 0, 0, err
		}
		defer out.Close()
		cmd.Stdout = out
	}
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		return 0, 0, fmt.Errorf("%w\n%s", err, &stderr)
	}
	wall = time.Since(begin).Seconds()
	return wall, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), nil
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// do is what a contender of ours does in its process: a verb with the files of
// its keys, separated by colons.
func do(what, from, to string) error {
	verb, keys, _ := strings.Cut(what, ":")
	if verb == "seal" {
		return sealFile(from, to, keys)
	}
	key, recipients, _ := strings.Cut(keys, ":")
	ids, err := seal.IdentityFile(key)
	if err != nil {
		return err
	}
	if verb == "rewrap" {
		to, err := readRecipients(recipients)
		if err != nil {
			return err
		}
		return seal.Rewrap(from, ids, to)
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	o, err := seal.Open(f, st.Size(), objectContext, ids)
	if err != nil {
		return err
	}
	switch verb {
	case "verify":
		return o.Verify(context.Background())
	case "random":
		rng := rand.New(rand.NewPCG(1, 1))
		b := make([]byte, 4096)
		for range 1000 {
			if _, err := o.ReadAt(b, rng.Int64N(o.Size()-4096)); err != nil {
				return err
			}
		}
		return nil
	case "open":
		out, err := os.Create(to)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, o.NewReader(context.Background()))
		return errors.Join(err, out.Close())
	}
	return fmt.Errorf("no verb %q", verb)
}

func readRecipients(path string) ([]seal.Recipient, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return seal.ParseRecipients(f)
}

func sealFile(from, to, recipients string) error {
	list, err := readRecipients(recipients)
	if err != nil {
		return err
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	w, err := seal.NewWriter(out, objectContext, list, seal.Options{})
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := io.Copy(w, f); err != nil {
		return err
	}
	return errors.Join(w.Close(), out.Close())
}
