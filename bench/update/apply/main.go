// Command apply measures updates beside what they replace and what others use:
// the shell script that copied files, ostree and dpkg.
//
//	go run ./bench/update/apply -mobileops bin/mobileops >update.jsonl
//
// An installation of 20,000 files and 500 MB goes from version 1 to version 2, in
// which 3,000 files are others. What is measured:
//
//	apply     by a package that has all files (full), and by one that has those
//	          that changed (overlay), packed with zstd and with gzip
//	rollback  from the start of the process to its end
//	disk      what both versions occupy together
//	memory    the peak of a process that applies the above, one file of 2 GB, and
//	          200,000 files
//
// Each round of apply runs every way once, in turn, from the same state: version
// 1 is what runs, and nothing of version 2 is on the disk but its package. What
// was done is compared with version 2 in the first round. Times are wall time and
// processor time of a process and all that it waited for; what the kernel writes
// later is nobody's. The filesystem is flushed between runs.
//
// mobileops proves a signature, verifies what it builds upon, and makes all of it
// durable before it switches. The script did none of that; it is measured as it
// was, and with one sync at the end. ostree flushes once per commit, dpkg every
// file, unless it is told not to. Neither ostree nor dpkg is asked for signatures.
//
// The directory belongs on a filesystem as installations have: with a journal.
// Without one, ext4 passes over every inode that was removed within the last
// minute when it makes a file, and each round removes very many.
//
// Standard output has one line of JSON for each thing measured and one for each
// target; the tables are on standard error. A peer that is not installed is named
// there as not measured. It needs root, and at most 6 GB in a directory of its own.
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
	"slices"
	"strings"
	"syscall"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	var b bench
	var dir, only, ways string
	flag.StringVar(&b.mobileops, "mobileops", "bin/mobileops", "the binary to measure")
	flag.StringVar(&dir, "dir", "", "make the directory in which all happens in this one (default: that of temporary files)")
	flag.StringVar(&only, "only", strings.Join(parts, ","), "only these, separated by commas")
	flag.StringVar(&ways, "ways", "", "of apply only the ways that have one of these in their name, separated by commas")
	flag.IntVar(&b.rounds, "rounds", 5, "rounds of apply")
	flag.IntVar(&b.files, "files", 20_000, "files of the installation")
	flag.IntVar(&b.changed, "changed", 3_000, "files that change")
	flag.Int64Var(&b.size, "size", 500, "megabytes of the installation")
	flag.Parse()
	b.size *= 1e6
	b.only = strings.Split(only, ",")
	if ways != "" {
		b.names = strings.Split(ways, ",")
	}
	// Whoever breaks it off leaves nothing behind either.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	b.ctx = ctx
	err := b.run(dir)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

// parts are what can be measured.
var parts = []string{"apply", "rollback", "disk", "memory"}

type bench struct {
	mobileops      string
	only, names    []string
	rounds         int
	files, changed int
	size           int64

	ctx     context.Context
	dir     string
	out     *json.Encoder
	ways    []*way
	disk    map[string]int64  // bytes, by who keeps both versions
	back    map[string]*way   // ways to go back
	peaks   map[string]int64  // KiB, by what was applied
	missing map[string]string // peers, and why they are not measured
}

func (b *bench) run(dir string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("installations belong to root, so it needs root")
	}
	for _, p := range b.only {
		if !slices.Contains(parts, p) {
			return fmt.Errorf("-only: there is no %q; there are %s", p, strings.Join(parts, ", "))
		}
	}
	if b.rounds < 1 || b.changed > b.files || b.changed < 1 || b.size < int64(b.files) {
		return errors.New("that is no installation, or no update")
	}
	if b.mobileops, err = filepath.Abs(b.mobileops); err != nil {
		return err
	}
	if _, err := os.Stat(b.mobileops); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(dir, "mobileops-bench-update-"); err != nil {
		return err
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	b.out = json.NewEncoder(os.Stdout)
	b.disk, b.back, b.peaks, b.missing = map[string]int64{}, map[string]*way{}, map[string]int64{}, map[string]string{}
	if err := b.makeKey(); err != nil {
		return err
	}
	if b.wants("apply") || b.wants("rollback") || b.wants("disk") {
		if err := b.installations(); err != nil {
			return err
		}
	}
	if b.wants("memory") {
		if err := b.memory(); err != nil {
			return err
		}
	}
	return b.report()
}

func (b *bench) wants(part string) bool { return slices.Contains(b.only, part) }

// installations measures everything that goes from version 1 to version 2, and
// removes it.
func (b *bench) installations() error {
	log.Printf("making both versions and their packages in %s", b.dir)
	if err := b.trees(); err != nil {
		return err
	}
	if err := b.packages(); err != nil {
		return err
	}
	if err := b.sides(); err != nil {
		return err
	}
	if b.wants("apply") {
		if err := b.applies(); err != nil {
			return err
		}
	}
	if b.wants("disk") {
		if err := b.occupied(); err != nil {
			return err
		}
	}
	if b.wants("rollback") {
		if err := b.rollbacks(); err != nil {
			return err
		}
	}
	names, err := os.ReadDir(b.dir)
	if err != nil {
		return err
	}
	for _, e := range names {
		if e.Name() == "key" || e.Name() == "keys" {
			continue
		}
		if err := os.RemoveAll(b.at(e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) at(names ...string) string {
	return filepath.Join(append([]string{b.dir}, names...)...)
}

// has says whether a peer is installed, and notes it when it is not.
func (b *bench) has(program string) bool {
	if _, err := exec.LookPath(program); err != nil {
		b.missing[program] = "it is not installed"
		return false
	}
	return true
}
