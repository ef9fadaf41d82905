package vulndb

import (
	"errors"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/config"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/scan/vulndb"
	"github.com/mobileops/mobileops/internal/trust"
	"github.com/mobileops/mobileops/internal/ui"
	"github.com/spf13/pflag"
)

// openStore returns the store that the configuration describes, and how far it is
// with what takes long. Nothing is opened yet.
func openStore(a *app.App) (*vulndb.Store, *config.Config, *stages, error) {
	c, err := a.Config()
	if err != nil {
		return nil, nil, nil, err
	}
	s, err := a.State()
	if err != nil {
		return nil, nil, nil, err
	}
	st := &stages{a: a}
	o := vulndb.Options{
		Dir: filepath.Join(c.StateDir, "scan", "vulndb"), State: s,
		MaxAge: c.Vulndb.MaxAge, Keep: c.Vulndb.Keep, By: a.Actor().Name(), Progress: st.tell,
	}
	if c.Vulndb.Keys != "" {
		o.Keys = func() (*trust.Keys, error) { return trust.OpenKeys(c.Vulndb.Keys) }
	}
	return vulndb.New(o), c, st, nil
}

// changer is openStore for what changes the databases: the rules about who must
// vouch for them cannot be gone around.
func changer(a *app.App) (*vulndb.Store, *config.Config, *stages, error) {
	if err := a.Govern("vulndb.keys"); err != nil {
		return nil, nil, nil, err
	}
	return openStore(a)
}

// stages shows how far each stage of an import is.
type stages struct {
	a           *app.App
	mu          sync.Mutex
	name        string
	done, total int64
	bar         *ui.Progress
}

func (s *stages) tell(stage string, done, total int64) {
	s.mu.Lock()
	changed := stage != s.name
	s.name, s.done, s.total = stage, done, total
	s.mu.Unlock()
	if !changed {
		return
	}
	s.stop()
	label, ok := map[string]string{
		"unpack": "unpacking", "copy": "copying", "fetch": "downloading", "check": "checking", "hash": "checking",
	}[stage]
	if !ok {
		s.a.Streams.Notice("mobileops: vulndb: %s", ui.Escape(stage))
		return
	}
	s.bar = s.a.Streams.Progress(label, func() ui.Counters {
		s.mu.Lock()
		defer s.mu.Unlock()
		return ui.Counters{Bytes: s.done, TotalBytes: s.total}
	})
}

func (s *stages) stop() {
	if s.bar != nil {
		s.bar.Stop()
		s.bar = nil
	}
}

// notThere says in plain words that a file is not there.
func notThere(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return failure.Errorf(failure.NotReady, "there is no %s", ui.Escape(path))
	}
	return err
}

// addTerms adds the flags about what is taken that usually is refused.
func addTerms(fs *pflag.FlagSet, t *vulndb.Terms) {
	fs.BoolVar(&t.AcceptSmaller, "accept-smaller", false, "take one with fewer than half of the advisories of the current one")
	fs.BoolVar(&t.AllowOlder, "allow-older", false, "take one that is older than the current one")
}

// addSignature adds the flag that names a signature.
func addSignature(fs *pflag.FlagSet, t *vulndb.Terms, usage string) {
	fs.StringVar(&t.Signature, "signature", "", usage)
}
