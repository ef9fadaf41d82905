package schedule

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/state"
)

// Installer writes schedules into a tree.
type Installer struct {
	Store *state.Store
	Root  string // the tree that stands for "/"; empty: "/"
	// Systemctl runs systemctl(1) with arguments. Nil: systemd does not run
	// what is in the tree, so nothing can be started there.
	Systemctl func(ctx context.Context, args ...string) error
}

// Outcome is what Install or Remove did.
type Outcome struct {
	Schedule Schedule
	Former   *Schedule // what it replaced
	Changed  []string  // files written or removed, as named in the schedule
	// Todo are the commands that must be run for it to take effect, because
	// systemd could not be told.
	Todo []string
}

func (i *Installer) root() string {
	if i.Root == "" {
		return "/"
	}
	return i.Root
}

// Detect tells what runs schedules in the tree: systemd where it is what was
// booted (sd_booted(3)), or the init of an image; else cron.
func Detect(root string) Via {
	if root == "" || root == "/" {
		if st, err := os.Lstat("/run/systemd/system"); err == nil && st.IsDir() {
			return Systemd
		}
		return Cron
	}
	for _, init := range []string{"sbin/init", "usr/sbin/init"} {
		if to, err := os.Readlink(filepath.Join(root, init)); err == nil && path.Base(to) == "systemd" {
			return Systemd
		}
	}
	return Cron
}

// Plan works out the files of a schedule, and for cron the time of this host.
func (i *Installer) Plan(s *Schedule) error {
	s.Root, s.Offset, s.Files = i.root(), 0, nil
	if err := s.Check(); err != nil {
		return err
	}
	var err error
	switch s.Via {
	case Systemd:
		s.Files, err = s.units()
	case Cron:
		if s.Jitter > 0 {
			if s.Offset, err = i.offset(s); err != nil {
				return err
			}
		}
		var f File
		f, err = s.cronEntry()
		s.Files = []File{f}
	default:
		err = fmt.Errorf("no such scheduler: %q", s.Via)
	}
	for n := range s.Files {
		s.Files[n].Digest = digest(s.Files[n].data)
	}
	return err
}

func (i *Installer) offset(s *Schedule) (time.Duration, error) {
	tree, err := i.open()
	if err != nil {
		return 0, err
	}
	defer tree.Close()
	id, err := tree.ReadFile("etc/machine-id")
	machine := strings.TrimSpace(string(id))
	if err != nil || len(machine) != 32 {
		return 0, failure.Hint(failure.Errorf(failure.NotReady, "%s has no machine id, by which each host of a fleet gets a time of its own", filepath.Join(i.root(), "etc/machine-id")),
			"make the schedule on the host itself, or leave --jitter out")
	}
	return offset(machine, s.Name, s.Jitter), nil
}

func (i *Installer) open() (*os.Root, error) {
	tree, err := os.OpenRoot(i.root())
	if err != nil {
		return nil, failure.Wrap(failure.Failed, err)
	}
	return tree, nil
}

// FileState tells whether a file is as it was written.
type FileState string

// The states of a file.
const (
	AsWritten FileState = "as written"
	Edited    FileState = "edited"
	Missing   FileState = "missing"
)

// Look tells how each file of a schedule is now.
func Look(s *Schedule) ([]FileState, error) {
	states := make([]FileState, len(s.Files))
	tree, err := os.OpenRoot(s.Root)
	if errors.Is(err, fs.ErrNotExist) { // an image that is not mounted any more
		for n := range states {
			states[n] = Missing
		}
		return states, nil
	}
	if err != nil {
		return nil, failure.Wrap(failure.Failed, err)
	}
	defer tree.Close()
	for n := range s.Files {
		if states[n], _, err = look(tree, &s.Files[n]); err != nil {
			return nil, err
		}
	}
	return states, nil
}

// maxFile bounds what is read of a file that should have a few hundred bytes.
const maxFile = 1 << 20

// look tells how a file is, and the digest of what it holds.
func look(tree *os.Root, f *File) (FileState, Digest, error) {
	st, err := tree.Lstat(inside(f.Path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Missing, Digest{}, nil
	case err != nil:
		return "", Digest{}, access(err)
	case !st.Mode().IsRegular() || st.Size() > maxFile:
		return Edited, Digest{}, nil
	}
	b, err := tree.ReadFile(inside(f.Path))
	if err != nil {
		return "", Digest{}, access(err)
	}
	d := digest(b)
	if d == f.Digest || d == f.Before {
		return AsWritten, d, nil
	}
	return Edited, d, nil
}

// inside makes an absolute path one for a directory handle.
func inside(name string) string { return strings.TrimPrefix(name, "/") }

// access says what helps when /etc may not be written.
func access(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return failure.Hint(failure.Wrap(failure.NotAllowed, err), "run it as root")
	}
	return failure.Wrap(failure.Failed, err)
}

// lock keeps two processes from writing the same files.
func (i *Installer) lock(doing string) (*state.Lock, error) {
	return i.Store.Lock("schedules", doing)
}

// Install writes a planned schedule into the tree and remembers it. The same
// one a second time changes nothing. Files that were edited, or that somebody
// else put there, are replaced only with force.
func (i *Installer) Install(ctx context.Context, s Schedule, force bool) (*Outcome, error) {
	l, err := i.lock("integrity schedule")
	if err != nil {
		return nil, err
	}
	defer l.Release()
	out := &Outcome{}
	switch former, err := Find(ctx, i.Store, s.Name); {
	case err == nil:
		out.Former = &former
	case !errors.Is(err, ErrNone):
		return nil, err
	}
	if f := out.Former; f != nil && (f.Baseline != s.Baseline || f.Root != s.Root) {
		return nil, failure.Hint(failure.Errorf(failure.Busy, "there is a schedule %q already, of baseline %q in %s", f.Name, f.Baseline, f.Root),
			"give this one another name: --as NAME")
	}
	tree, err := i.open()
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	stale := out.Former.without(s.Files)
	write, err := pending(tree, out.Former, s.Files, stale, force)
	if err != nil {
		return nil, err
	}
	if f := out.Former; f != nil && len(write) == 0 && len(stale) == 0 && sameFiles(f.Files, s.Files) {
		s.Installed = f.Installed
	}
	// Remembered first: a file that is written and not remembered would be
	// taken for somebody else's.
	if err := save(ctx, i.Store, &s); err != nil {
		return nil, err
	}
	for _, f := range write {
		if err := writeFile(tree, f); err != nil {
			return nil, errors.Join(access(err), i.recall(ctx, out, s.Name))
		}
		out.Changed = append(out.Changed, f.Path)
	}
	var told error
	if len(stale) > 0 {
		if told, err = out.takeOut(ctx, i, tree, out.Former, stale); err != nil {
			return nil, err
		}
	}
	out.Schedule = s
	if s.Via == Systemd {
		told = errors.Join(told, out.systemctl(ctx, i, "daemon-reload"), out.systemctl(ctx, i, "enable", "--now", s.Timer()))
	}
	return out, told
}

// recall remembers what was remembered before, when nothing was written.
func (i *Installer) recall(ctx context.Context, out *Outcome, name string) error {
	switch {
	case len(out.Changed) > 0:
		return nil // what is there is known by it, and the next try goes on
	case out.Former != nil:
		return save(ctx, i.Store, out.Former)
	}
	return forget(ctx, i.Store, name)
}

func sameFiles(a, b []File) bool {
	return slices.EqualFunc(a, b, func(x, y File) bool { return x.Path == y.Path && x.Digest == y.Digest })
}

// without returns the files of a schedule that are not among others.
func (s *Schedule) without(files []File) []File {
	if s == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.Files), func(f File) bool {
		return slices.ContainsFunc(files, func(o File) bool { return o.Path == f.Path })
	})
}

// pending returns the files that must be written, and refuses to touch one
// that is not as it was written here.
func pending(tree *os.Root, former *Schedule, files, stale []File, force bool) (write []*File, err error) {
	var theirs []string
	for n := range files {
		f := &files[n]
		state, there, err := look(tree, f)
		if err != nil {
			return nil, err
		}
		if former != nil && state == Edited {
			if at := slices.IndexFunc(former.Files, func(o File) bool { return o.Path == f.Path }); at >= 0 {
				if state, there, err = look(tree, &former.Files[at]); err != nil {
					return nil, err
				}
			}
		}
		if state == AsWritten && there == f.Digest {
			continue
		}
		if state == Edited {
			theirs = append(theirs, f.Path)
		}
		f.Before = there
		write = append(write, f)
	}
	for n := range stale {
		state, _, err := look(tree, &stale[n])
		if err != nil {
			return nil, err
		}
		if state == Edited {
			theirs = append(theirs, stale[n].Path)
		}
	}
	if len(theirs) > 0 && !force {
		return nil, edited(theirs)
	}
	return write, nil
}

func edited(files []string) error {
	return failure.Hint(failure.Errorf(failure.Busy, "not written here, or edited since: %s", strings.Join(files, ", ")),
		"nothing was changed; replace or remove them all the same: --force")
}

// writeFile makes a file appear whole, below the tree whatever links are in it.
// The name while it is written has a dot in front, so neither cron nor systemd
// looks at it.
func writeFile(tree *os.Root, f *File) error {
	dir, name := path.Split(inside(f.Path))
	if err := tree.MkdirAll(strings.TrimSuffix(dir, "/"), 0o755); err != nil {
		return err
	}
	if st, err := tree.Lstat(dir + name); err == nil && st.IsDir() {
		return &fs.PathError{Op: "replace", Path: f.Path, Err: errors.New("is a directory")}
	}
	temp := dir + "." + name + ".new"
	if err := tree.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := tree.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = out.Write(f.data)
	// cron refuses what others can write, whatever the umask was.
	err = errors.Join(err, out.Chmod(0o644), out.Sync(), out.Close())
	if err == nil {
		err = tree.Rename(temp, dir+name)
	}
	if err != nil {
		return errors.Join(err, tree.Remove(temp))
	}
	return syncDir(tree, dir)
}

func removeFile(tree *os.Root, f *File) error {
	if err := tree.Remove(inside(f.Path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return access(err)
	}
	return syncDir(tree, path.Dir(inside(f.Path)))
}

func syncDir(tree *os.Root, dir string) error {
	d, err := tree.Open(strings.TrimSuffix(dir, "/"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// systemctl runs systemctl, or notes that it must be run.
func (o *Outcome) systemctl(ctx context.Context, i *Installer, args ...string) error {
	command := "systemctl " + strings.Join(args, " ")
	if i.Systemctl == nil {
		if i.root() != "/" {
			if args[0] == "daemon-reload" {
				return nil // an image is read when it boots
			}
			command = "systemctl --root=" + shellQuote(i.root()) + " " + strings.Join(slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "--now" }), " ")
		}
		o.Todo = append(o.Todo, command)
		return nil
	}
	if err := i.Systemctl(ctx, args...); err != nil {
		o.Todo = append(o.Todo, command)
		return failure.Hint(failure.Errorf(failure.Failed, "%s: %w", command, err), "the files are in place; run it again by hand")
	}
	return nil
}

// Remove takes a schedule out of the tree and forgets it.
func (i *Installer) Remove(ctx context.Context, name string, force bool) (*Outcome, error) {
	l, err := i.lock("integrity schedule remove")
	if err != nil {
		return nil, err
	}
	defer l.Release()
	s, err := Find(ctx, i.Store, name)
	if err != nil {
		return nil, err
	}
	there := *i
	there.Root = s.Root
	if i.root() != s.Root {
		there.Systemctl = nil
	}
	tree, err := there.open()
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	if _, err := pending(tree, &s, nil, s.Files, force); err != nil {
		return nil, err
	}
	out := &Outcome{Schedule: s}
	told, err := out.takeOut(ctx, &there, tree, &s, s.Files)
	if err != nil {
		return nil, err
	}
	return out, errors.Join(told, forget(ctx, i.Store, name))
}

// takeOut stops a timer and removes files of a schedule. told is what went
// wrong with systemctl, which keeps nothing from being removed.
func (o *Outcome) takeOut(ctx context.Context, i *Installer, tree *os.Root, s *Schedule, files []File) (told, err error) {
	stop := s.Via == Systemd && slices.ContainsFunc(files, func(f File) bool { return f.Path == path.Join(unitDir, s.Timer()) })
	if stop && i.Systemctl != nil {
		told = o.systemctl(ctx, i, "disable", "--now", s.Timer())
	}
	if stop {
		// Where systemctl cannot be asked, this is what it would do.
		if err := removeFile(tree, &File{Path: path.Join(unitDir, "timers.target.wants", s.Timer())}); err != nil {
			return told, err
		}
	}
	for n := range files {
		if err := removeFile(tree, &files[n]); err != nil {
			return told, err
		}
		o.Changed = append(o.Changed, files[n].Path)
	}
	if stop && i.Systemctl != nil {
		told = errors.Join(told, o.systemctl(ctx, i, "daemon-reload"))
	}
	return told, nil
}
