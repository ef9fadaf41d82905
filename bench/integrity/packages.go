package main

import (
	"crypto/md5"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// acceptedFiles is how many files the package has whose upgrade is accepted.
const acceptedFiles = 2000

// command runs the binary with the given state, and returns wall and processor
// seconds. Status 1 is an answer.
func (b *bench) command(state string, args ...string) (wall, cpu float64, err error) {
	cmd := exec.Command(b.mobileops, args...)
	cmd.Env = append(os.Environ(), "MOBILEOPS_STATE_DIR="+state, "MOBILEOPS_LOG_DIR="+state+"/log")
	cmd.Stderr = os.Stderr
	start := time.Now()
	err = cmd.Run()
	wall = time.Since(start).Seconds()
	if cmd.ProcessState != nil {
		cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
		if cmd.ProcessState.ExitCode() == 1 {
			err = nil
		}
	}
	return wall, cpu, err
}

// classes measures what knowing whose a change is adds to a check of /usr in
// which some programs of packages have changed. The tree is an overlay over
// this machine's own; one check sees its package database, the other does not.
func (b *bench) classes() error {
	root := filepath.Join(b.dir, "image")
	upper, work, state := filepath.Join(b.dir, "upper"), filepath.Join(b.dir, "work"), filepath.Join(b.dir, "state-classes")
	usr, db := filepath.Join(root, "usr"), filepath.Join(root, "var/lib/dpkg")
	for _, d := range []string{usr, db, upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := syscall.Mount("overlay", usr, "overlay", 0, "lowerdir=/usr,upperdir="+upper+",workdir="+work); err != nil {
		return fmt.Errorf("overlay over /usr (root is needed): %w", err)
	}
	defer syscall.Unmount(usr, syscall.MNT_DETACH)
	show := func() error { return syscall.Mount("/var/lib/dpkg", db, "", syscall.MS_BIND, "") }
	hide := func() { syscall.Unmount(db, syscall.MNT_DETACH) }
	defer hide()
	if err := show(); err != nil {
		return err
	}
	if _, _, err := b.command(state, "integrity", "baseline", "/usr", "--root", root); err != nil {
		return err
	}
	list, err := filepath.Glob(filepath.Join(usr, "bin/[a-m]*"))
	if err != nil {
		return err
	}
	for _, n := range []int{1, 10, 100} {
		if err := b.classesOf(state, list, n, show, hide); err != nil {
			return err
		}
	}
	return nil
}

// classesOf is classes with so many changed programs.
func (b *bench) classesOf(state string, list []string, want int, show func() error, hide func()) error {
	changed, size := 0, int64(0)
	for _, f := range list {
		st, err := os.Lstat(f)
		if err != nil || !st.Mode().IsRegular() || changed == want {
			continue
		}
		size += st.Size()
		to, err := os.OpenFile(f, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = to.WriteString("\n")
		if err = closed(to, err); err != nil {
			return err
		}
		changed++
	}
	hide()
	if err := show(); err != nil {
		return err
	}
	time.Sleep(3 * time.Second) // beyond the time in which a check reads again what has just changed
	if _, _, err := b.command(state, "integrity", "verify"); err != nil {
		return err
	}
	var wall, cpu [2][]float64
	for range b.rounds {
		for with := range 2 {
			hide()
			if with == 1 {
				if err := show(); err != nil {
					return err
				}
			}
			w, c, err := b.command(state, "integrity", "check")
			if err != nil {
				return err
			}
			wall[with], cpu[with] = append(wall[with], w), append(cpu[with], c)
		}
	}
	fmt.Printf("\n## Whose change is it? A check of /usr, %d programs of packages changed (%.0f MB)\n\n| | wall s | CPU s |\n|---|---|---|\n", changed, float64(size)/1e6)
	fmt.Printf("| without a package database | %.3f | %.3f |\n| classified by dpkg's database | %.3f | %.3f |\n| ratio | %.2f | %.2f |\n",
		median(wall[0]), median(cpu[0]), median(wall[1]), median(cpu[1]), median(wall[1])/median(wall[0]), median(cpu[1])/median(cpu[0]))
	return nil
}

func closed(f *os.File, err error) error {
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// accepting measures how long it takes to accept the upgrade of a package with
// two thousand files, which dpkg installed, into a baseline of /usr's size.
func (b *bench) accepting() error {
	root := filepath.Join(b.dir, "accepting")
	for _, d := range []string{"var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers", "usr/share"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		return err
	}
	if err := smallFiles(filepath.Join(root, "usr/share/others")); err != nil {
		return err
	}
	if err := b.install(root, "1.0"); err != nil {
		return err
	}
	state := filepath.Join(b.dir, "state-accepting")
	if _, _, err := b.command(state, "integrity", "baseline", "/usr", "--root", root); err != nil {
		return err
	}
	if err := b.install(root, "2.0"); err != nil {
		return err
	}
	if _, _, err := b.command(state, "integrity", "check"); err != nil {
		return err
	}
	var wall, cpu []float64
	for i := range b.rounds {
		copied := fmt.Sprintf("%s-%d", state, i)
		if out, err := exec.Command("cp", "-a", state, copied).CombinedOutput(); err != nil {
			return fmt.Errorf("cp: %w: %s", err, out)
		}
		w, c, err := b.command(copied, "integrity", "accept", "--package", "large")
		if err != nil {
			return err
		}
		wall, cpu = append(wall, w), append(cpu, c)
	}
	fmt.Printf("\n## Accepting the upgrade of a package with %d files, in a baseline of 200,000\n\n%.3f s wall, %.3f s CPU (medians of %d)\n", acceptedFiles, median(wall), median(cpu), b.rounds)
	return nil
}

// install builds the package in a version and has dpkg install it below root.
func (b *bench) install(root, version string) error {
	dir := filepath.Join(b.dir, "large-"+version)
	var sums strings.Builder
	for i := range acceptedFiles {
		name := fmt.Sprintf("usr/share/large/%d/%d", i%20, i)
		text := strings.Repeat(fmt.Sprintf("%s %d\n", version, i), 400)
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", md5.Sum([]byte(text)), name)
	}
	if err := os.MkdirAll(filepath.Join(dir, "DEBIAN"), 0o755); err != nil {
		return err
	}
	control := "Package: large\nVersion: " + version + "\nArchitecture: all\nMaintainer: Bench <bench@example.com>\nDescription: bench\n"
	for name, text := range map[string]string{"control": control, "md5sums": sums.String()} {
		if err := os.WriteFile(filepath.Join(dir, "DEBIAN", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	deb := dir + ".deb"
	for _, args := range [][]string{{"dpkg-deb", "-Zgzip", "--root-owner-group", "-b", dir, deb}, {"dpkg", "--root=" + root, "--force-not-root", "-i", deb}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", args[0], err, out)
		}
	}
	return nil
}
