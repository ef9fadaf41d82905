package worker

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/failure"
)

// ErrMissing is returned by Find where there is no worker.
var ErrMissing = failure.New(failure.NotReady, Name+" is not there")

const howToGet = "build it: make scan-worker; or install it beside mobileops, or into ../libexec/mobileops; or name it as scan.worker in the configuration"

// Find looks for the worker: where it is configured, beside our executable, in
// ../libexec/mobileops, and within ourselves, from where it is unpacked once. Errors
// are ErrMissing, and of kind Untrustworthy where somebody else could have changed
// what root would run. Its version is known when it is asked for something.
func Find(o Options) (*Worker, error) {
	w := &Worker{options: o, support: detect()}
	if o.Path != "" {
		if !filepath.IsAbs(o.Path) {
			return nil, failure.Errorf(failure.Usage, "scan.worker: the path %q is not absolute", o.Path)
		}
		w.path = o.Path
		if err := w.prove(); err != nil {
			return nil, err
		}
		return w, nil
	}
	if o.Executable != "" {
		dir := filepath.Dir(o.Executable)
		for _, path := range []string{filepath.Join(dir, Name), filepath.Join(filepath.Dir(dir), "libexec", "mobileops", Name)} {
			w.path = path
			if err := w.prove(); err == nil {
				return w, nil
			} else if !errors.Is(err, ErrMissing) {
				return nil, err
			}
		}
	}
	b, err := embedded()
	if err != nil {
		return nil, err
	}
	if b == nil {
		return nil, failure.Hint(ErrMissing, howToGet)
	}
	if o.StateDir == "" {
		return nil, failure.Errorf(failure.NotReady, "%s comes within this mobileops, and there is no state directory to unpack it to", Name)
	}
	w.embedded = b
	w.path, err = b.unpack(w.home())
	if err != nil {
		return nil, err
	}
	return w, nil
}

// home is where the worker that comes within mobileops is unpacked.
func (w *Worker) home() string { return filepath.Join(w.options.StateDir, "scan", "worker") }

// prove looks whether the executable is there and may be run.
func (w *Worker) prove() error {
	f, err := w.open()
	if err != nil {
		return err
	}
	return f.Close()
}

// open opens the executable. What the descriptor leads to is proven, and is what is
// run: a name could lead elsewhere a moment later.
func (w *Worker) open() (f *os.File, err error) {
	if w.embedded != nil {
		f, err := w.embedded.open(w.path)
		if errors.Is(err, fs.ErrNotExist) { // another version of mobileops thought that nobody uses it
			if _, err := w.embedded.unpack(w.home()); err != nil {
				return nil, err
			}
			return w.embedded.open(w.path)
		}
		return f, err
	}
	if os.Geteuid() == 0 {
		f, err = openTrusted(w.path, w.owners())
	} else {
		f, err = os.Open(w.path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Hint(failure.Errorf(failure.NotReady, "%w: %w", ErrMissing, err), howToGet)
	}
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && (!st.Mode().IsRegular() || st.Mode()&0o111 == 0) {
		err = failure.Errorf(failure.NotReady, "%s is no program: it is %s", w.path, st.Mode())
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// owners are accounts, beside root, whose files root may run: who owns our own
// executable could have replaced that.
func (w *Worker) owners() []uint32 {
	if w.options.Executable == "" {
		return nil
	}
	var st statResult
	if err := st.of(w.options.Executable); err != nil {
		return nil
	}
	return []uint32{st.uid}
}
