// Command scan measures mobileops-scan beside Trivy's own command: processor time
// and memory of whole processes that look at the same targets.
//
//	go run ./bench/scan -trivy .cache/trivy -worker bin/mobileops-scan -mobileops bin/mobileops >scan.jsonl
//
// What is measured:
//
//	secrets   of a large source tree, without a memo that knows anything, and again
//	          when nothing has changed
//	licenses  of the same tree, likewise
//	images    secrets of an image whose base is that tree: at first, again, and when
//	          its layers are known by their content alone
//	rootfs    vulnerabilities of a system of 2,000 packages with a database of more
//	          than 300 MB
//	parallel  eight of the last at once
//	start     mobileops scan --help, and what a press of Tab asks for
//
// Each round runs every contender once, one after the other, so that whatever else
// the machine does falls on all of them; medians are compared. The first round
// fills the page cache and is not counted. Both write JSON to a file.
//
// Memory is told twice: the peak of all that was resident (ru_maxrss), in which the
// pages of the database count that are mapped from its file, and which the kernel
// takes back when it needs them; and the peak of what was the process's own
// (RssAnon, asked for every 2 ms).
//
// The corpus is made in a directory of its own, of some 2 GB: the sources of Go and
// of some modules of the module cache, and a system and a database that are made
// up, the same each time. Standard output has one line of JSON for each thing
// measured; the tables are on standard error.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

type bench struct {
	ctx                      context.Context
	dir                      string
	trivy, worker, mobileops string
	version                  string // of the worker
	rounds                   int
	out                      *json.Encoder
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	b := bench{out: json.NewEncoder(os.Stdout)}
	flag.StringVar(&b.trivy, "trivy", ".cache/trivy", "Trivy's own command")
	flag.StringVar(&b.worker, "worker", "bin/mobileops-scan", "the worker")
	flag.StringVar(&b.mobileops, "mobileops", "bin/mobileops", "the program")
	flag.IntVar(&b.rounds, "rounds", 7, "rounds")
	flag.StringVar(&b.dir, "dir", "", "where the corpus is made and kept; one of its own that is removed, if empty")
	only := flag.String("only", "secrets,licenses,images,rootfs,parallel,start", "what to measure")
	prepare := flag.String("prepare", "", "")
	flag.Parse()
	if *prepare != "" {
		if err := prepared[*prepare](b.dir); err != nil {
			log.Fatal(err)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b.ctx = ctx
	if err := b.run(strings.Split(*only, ",")); err != nil {
		log.Fatal(err)
	}
}

func (b *bench) run(only []string) (err error) {
	for _, p := range []*string{&b.trivy, &b.worker, &b.mobileops} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "mobileops-bench-scan-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	parts := map[string]func() error{"secrets": b.secrets, "licenses": b.licenses, "images": b.images, "rootfs": b.rootfs, "parallel": b.parallel, "start": b.start}
	for _, name := range only {
		part := parts[name]
		if part == nil {
			return fmt.Errorf("nothing is called %q", name)
		}
		if name != "start" && b.version == "" {
			if b.version, err = b.askVersion(); err != nil {
				return err
			}
		}
		if err := part(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// made makes a part of the corpus unless it is there. It is made by a process of
// its own: the peak of a process counts from what it was made of, so this one stays
// small.
func (b *bench) made(name string) (string, error) {
	dir := filepath.Join(b.dir, name)
	if _, err := os.Stat(filepath.Join(dir, "done")); err == nil {
		return filepath.Join(dir, "tree"), nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	tree := filepath.Join(dir, "tree")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		return "", err
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	fmt.Fprintf(os.Stderr, "making %s …\n", name)
	cmd := exec.CommandContext(b.ctx, self, "-prepare", name, "-dir", tree)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("making %s: %w", name, err)
	}
	return tree, os.WriteFile(filepath.Join(dir, "done"), nil, 0o644)
}
