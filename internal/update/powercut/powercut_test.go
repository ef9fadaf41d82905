package powercut_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/update/powercut"
)

// work is the environment variable by which the program of the tests is one of
// the programs that write while the power may go.
const work = "POWERCUT_WORK"

func TestMain(m *testing.M) {
	powercut.Enter()
	if name := os.Getenv(work); name != "" {
		if err := works[name](os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// works write below dir and report to the disk.
var works = map[string]func(dir, disk string) error{
	"durable":  func(dir, disk string) error { return write(dir, disk, durable.WriteFile) },
	"careless": careless,
	"syncfs":   syncing,
	"endless": func(dir, disk string) error {
		fmt.Println("writing")
		for {
			if err := write(dir, disk, durable.WriteFile); err != nil {
				return err
			}
		}
	},
}

// files and versions that the programs write: each file once for each version.
const (
	files    = 5
	versions = 8
)

// content of a file: 40,000 bytes, in which every block names its version.
func content(file, version int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "file %03d version %03d\n", file, version), 40_000/21)
}

// versionOf tells which version of a file it is that was read, or that it is a
// mixture of some or a part of one.
func versionOf(file int, data []byte) (int, error) {
	var version, other int
	if _, err := fmt.Sscanf(string(data[:min(len(data), 21)]), "file %d version %d\n", &other, &version); err != nil {
		return 0, fmt.Errorf("%d bytes that begin with %q", len(data), data[:min(len(data), 21)])
	}
	if !bytes.Equal(data, content(file, version)) {
		return 0, fmt.Errorf("%d bytes that are not all version %d", len(data), version)
	}
	return version, nil
}

func write(dir, disk string, writeFile func(path string, data []byte, perm fs.FileMode) error) error {
	for version := 1; version <= versions; version++ {
		for file := range files {
			if err := writeFile(filepath.Join(dir, fmt.Sprint(file)), content(file, version), 0o644); err != nil {
				return err
			}
			if err := powercut.Mark(disk, fmt.Sprintf("%d=%d", file, version)); err != nil {
				return err
			}
		}
	}
	return nil
}

// careless renames without fsync. The journal goes to the disk for the sake of
// another file now and then, with the renames and without the data.
func careless(dir, disk string) error {
	n := 0
	return write(dir, disk, func(path string, data []byte, perm fs.FileMode) error {
		if err := os.WriteFile(path+".new", data, perm); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
		if n++; n%3 != 0 {
			return nil
		}
		return durable.WriteFile(filepath.Join(dir, "other"), []byte("x"), 0o600)
	})
}

// syncing makes all files of a version durable by one syncfs before a rename.
func syncing(dir, disk string) error {
	for version := 1; version <= versions; version++ {
		if err := os.RemoveAll(filepath.Join(dir, "next")); err != nil {
			return err
		}
		if err := os.Mkdir(filepath.Join(dir, "next"), 0o755); err != nil {
			return err
		}
		for file := range files {
			if err := os.WriteFile(filepath.Join(dir, "next", fmt.Sprint(file)), content(file, version), 0o644); err != nil {
				return err
			}
		}
		if err := syncFilesystem(dir); err != nil {
			return err
		}
		name := filepath.Join(dir, fmt.Sprintf("version%d", version))
		if err := os.Rename(filepath.Join(dir, "next"), name); err != nil {
			return err
		}
		if err := durable.SyncDir(dir); err != nil {
			return err
		}
		if err := powercut.Mark(disk, fmt.Sprint(version)); err != nil {
			return err
		}
	}
	return nil
}

// run has a program write to a mounted disk, unmounts it, and returns where it
// began.
func run(t *testing.T, d *powercut.Device, name string) (from powercut.Position) {
	t.Helper()
	dir := d.Mount()
	from = d.Mark("begin")
	cmd := program(t, name, dir, d.Path())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
	return from
}

func program(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, args...)
	cmd.Env = append(os.Environ(), work+"="+name, "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// reported returns the newest version of each file that was reported.
func reported(t *testing.T, marks []string) map[int]int {
	newest := map[int]int{}
	for _, mark := range marks {
		var file, version int
		if _, err := fmt.Sscanf(mark, "%d=%d", &file, &version); err == nil {
			newest[file] = version
		}
	}
	return newest
}

// filesystems are those of which mkfs is there; ext4 is never left out, so that
// Start says why it cannot be tested.
func filesystems(t *testing.T) []string {
	names := []string{"ext4"}
	for _, name := range []string{"xfs", "btrfs"} {
		if _, err := exec.LookPath("mkfs." + name); err == nil {
			names = append(names, name)
		} else {
			t.Logf("NOT RUN on %s: mkfs.%s is not installed", name, name)
		}
	}
	return names
}

// TestDurableFilesStay is the promise of package durable: a file is the old one
// or the new one, and the new one once that has been reported.
func TestDurableFilesStay(t *testing.T) {
	for _, filesystem := range filesystems(t) {
		for _, sector := range []int{512, 4096} {
			if testing.Short() && sector == 512 && filesystem != "ext4" {
				continue // the race detector is slow
			}
			t.Run(fmt.Sprint(filesystem, sector), func(t *testing.T) {
				d := powercut.Start(t, powercut.Options{Filesystem: filesystem, Sector: sector})
				from := run(t, d, "durable")
				d.Unmount()
				cuts := d.Cuts(from, d.Now(), 20, uint64(sector))
				if len(cuts) < 60 {
					t.Fatalf("only %d cuts: flushes do not arrive", len(cuts))
				}
				lost := 0
				for i, cut := range cuts {
					if filesystem != "ext4" && i%2 != 0 {
						continue // the others take longer to mount
					}
					t.Run(cut.String(), func(t *testing.T) {
						im := d.Cut(t, cut)
						lost += im.Lost
						dir := im.Mount()
						newest := reported(t, im.Reported)
						for file := range files {
							data, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(file)))
							if errors.Is(err, fs.ErrNotExist) && newest[file] == 0 {
								continue
							}
							if err != nil {
								t.Errorf("file %d, of which version %d was reported: %v", file, newest[file], err)
								continue
							}
							version, err := versionOf(file, data)
							if err != nil || version < newest[file] || version > newest[file]+1 {
								t.Errorf("file %d, of which version %d was reported: version %d, %v", file, newest[file], version, err)
							}
						}
						if filesystem == "ext4" && i%8 == 0 {
							im.Check()
						}
					})
				}
				if lost < 30 {
					t.Errorf("only %d writes were lost in %d cuts", lost, len(cuts))
				}
			})
		}
	}
}

// TestCarelessnessShows proves that the disk forgets: what was never fsynced is
// gone or broken after some cuts.
func TestCarelessnessShows(t *testing.T) {
	d := powercut.Start(t, powercut.Options{Mount: "noauto_da_alloc"})
	from := run(t, d, "careless")
	d.Unmount()
	var old, broken int
	for _, cut := range d.Cuts(from, d.Now(), 20, 1) {
		t.Run(cut.String(), func(t *testing.T) {
			im := d.Cut(t, cut)
			dir := im.Mount()
			for file, newest := range reported(t, im.Reported) {
				data, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(file)))
				if errors.Is(err, fs.ErrNotExist) {
					old++
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if version, err := versionOf(file, data); err != nil {
					broken++
				} else if version < newest {
					old++
				}
			}
		})
	}
	t.Logf("after the cuts %d files were older than reported, and %d broken", old, broken)
	if old == 0 || broken == 0 {
		t.Errorf("%d files older than reported, %d broken: this disk forgets nothing", old, broken)
	}
}

// TestOneSyncfsIsEnough: all files of a directory are there once it has its
// name, when the filesystem was synced before.
func TestOneSyncfsIsEnough(t *testing.T) {
	d := powercut.Start(t, powercut.Options{})
	from := run(t, d, "syncfs")
	d.Unmount()
	for _, cut := range d.Cuts(from, d.Now(), 30, 2) {
		t.Run(cut.String(), func(t *testing.T) {
			im := d.Cut(t, cut)
			dir := im.Mount()
			for version := 1; version <= versions; version++ {
				name := filepath.Join(dir, fmt.Sprintf("version%d", version))
				if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
					if version < len(im.Reported) { // "begin" is one
						t.Errorf("version %d was reported and is gone", version)
					}
					continue
				}
				for file := range files {
					data, err := os.ReadFile(filepath.Join(name, fmt.Sprint(file)))
					if err == nil {
						_, err = versionOf(file, data)
					}
					if err != nil {
						t.Errorf("version %d, file %d: %v", version, file, err)
					}
				}
			}
		})
	}
}

// TestSecondCut cuts the power again after the first.
func TestSecondCut(t *testing.T) {
	d := powercut.Start(t, powercut.Options{})
	from := run(t, d, "durable")
	d.Unmount()
	half := (from + d.Now()) / 2
	second := d.Cut(t, powercut.Cut{At: half, Fate: powercut.Chance(3)}).Disk()
	begin := second.Now()
	run(t, second, "durable")
	second.Unmount()
	cuts := second.Cuts(begin, second.Now(), 10, 4)
	for _, cut := range cuts[:30] {
		t.Run(cut.String(), func(t *testing.T) {
			im := second.Cut(t, cut)
			dir := im.Mount()
			for file, newest := range reported(t, im.Reported) {
				data, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(file)))
				if err != nil {
					t.Fatal(err)
				}
				if version, err := versionOf(file, data); err != nil || version < newest {
					t.Errorf("file %d, of which version %d was reported: version %d, %v", file, newest, version, err)
				}
			}
			im.Check()
		})
	}
}

// TestNothingIsLeft kills a test, the server of its disk, or both, while the
// disk is written to.
func TestNothingIsLeft(t *testing.T) {
	if os.Getenv("POWERCUT_DIES") != "" {
		d := powercut.Start(t, powercut.Options{})
		cmd := program(t, "endless", d.Mount(), d.Path())
		cmd.Stdout = os.Stdout
		t.Log(cmd.Run())
		return
	}
	powercut.Start(t, powercut.Options{}) // or skip
	for _, c := range []struct {
		name         string
		test, server bool
	}{{"test", true, false}, {"server", false, true}, {"both", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			// A directory in which a file is left by nobody but its own test.
			dir := t.TempDir()
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(exe, "-test.run=^TestNothingIsLeft$", "-test.v")
			cmd.Env = append(os.Environ(), "POWERCUT_DIES=1", "TMPDIR="+dir, "MOBILEOPS_POWERCUT=", "GORACE=atexit_sleep_ms=0")
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			seen, buf := "", make([]byte, 4096)
			for !strings.Contains(seen, "writing") {
				n, err := stdout.Read(buf)
				if seen += string(buf[:n]); err != nil {
					t.Fatalf("%v: %s", err, seen)
				}
			}
			devices, server := devicesOf(t, dir), serverOf(t, dir)
			if len(devices) != 1 {
				t.Fatalf("loop devices of the test: %q", devices)
			}
			attachment := attachmentOf(devices[0])
			if c.server {
				if err := syscall.Kill(server, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			if c.test {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			_, _ = io.Copy(io.Discard, stdout)
			if err := cmd.Wait(); err == nil {
				t.Error("the test passed all the same")
			}
			eventually(t, "the loop device is free", func() bool { return !used(devices[0], dir, attachment) })
			eventually(t, "the server has ended", func() bool { return ended(server) })
			mounts, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(mounts), dir) {
				t.Errorf("mounted still: %s", mounts)
			}
		})
	}
}
