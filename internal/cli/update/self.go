package update

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mobileops/mobileops/internal/cli/app"
	"github.com/mobileops/mobileops/internal/durable"
	"github.com/mobileops/mobileops/internal/failure"
	"github.com/mobileops/mobileops/internal/update"
	"github.com/spf13/cobra"
)

// selfProgram is mobileops in its own packages.
const selfProgram = "bin/mobileops"

// selfPlace is where mobileops keeps generations of itself: beside the prefix
// that it was installed in, /usr/local/lib/mobileops for /usr/local/bin/mobileops.
func selfPlace() (place, error) {
	exe, err := invoked()
	if err != nil {
		return place{}, err
	}
	dir := filepath.Join(filepath.Dir(filepath.Dir(exe)), "lib", "mobileops")
	return place{target: dir, store: dir + ".store", self: true}, nil
}

// invoked returns the path of this program as it is to be called: the link when
// it is one into its own generations.
func invoked() (string, error) {
	exe, err := os.Executable() // through all links
	if err != nil {
		return "", err
	}
	if filepath.Base(filepath.Dir(exe)) != "bin" {
		return "", failure.Hint(failure.Errorf(failure.NotReady, "%s is not in a directory called bin", exe), "install it first: make install, or copy it to /usr/local/bin")
	}
	// PREFIX/lib/mobileops.store/generations/N/tree/bin/mobileops
	tree := filepath.Dir(filepath.Dir(exe))
	store := filepath.Dir(filepath.Dir(filepath.Dir(tree)))
	if filepath.Base(tree) == "tree" && filepath.Base(store) == "mobileops.store" {
		return filepath.Join(filepath.Dir(filepath.Dir(store)), "bin", filepath.Base(exe)), nil
	}
	return exe, nil
}

func newSelf(a *app.App) *cobra.Command {
	var o applyOptions
	cmd := a.Command(app.Spec{
		Use:   "self PKG [flags]",
		Short: "Replace mobileops itself",
		Long: `Replace mobileops itself.

PKG is a package of the name mobileops that has bin/mobileops. It is proved as any
other. Generations are kept in lib/mobileops.store beside the directory that
mobileops is in, the program becomes a link to the current one, and the one that
was there is the first generation. The new program has to run and say its version
before it stays; mobileops rollback --self goes back.`,
		Example: `
mobileops update self mobileops-1.5.0.tar.zst
mobileops update self mobileops-1.5.0.tar.zst && mobileops version
mobileops update self /mnt/usb/mobileops-1.5.0.tar.zst --change C-7Q2FM3  # runbook: on a host without network
`,
		Args: cobra.ExactArgs(1),
		Statuses: append([]app.Status{
			{Code: 0, Text: "the new mobileops is in place"},
			{Code: 5, Text: "the package is not to be trusted. Nothing was changed"},
			{Code: 7, Text: "no key is trusted here yet, or mobileops is not in a directory called bin"},
			{Code: 8, Text: otherUpdate},
		}, trialStatuses...),
		Files:    []string{"/usr/local/bin/mobileops: a link to the current one", "/usr/local/lib/mobileops.store: generations", keyFiles, stateFile},
		Audited:  true,
		Complete: func(context.Context, []string, string) []string { return app.Files() },
		Run:      func(ctx context.Context, args []string) error { return runSelf(ctx, a, &o, args[0]) },
	})
	o.addFlags(a, cmd)
	return cmd
}

func runSelf(ctx context.Context, a *app.App, o *applyOptions, pkg string) error {
	if err := a.Govern("update.require_change"); err != nil {
		return err
	}
	c, err := a.Config()
	if err != nil {
		return err
	}
	at, err := selfPlace()
	if err != nil {
		return err
	}
	e, err := engineAt(a, c, at, "update self")
	if err != nil {
		return err
	}
	unseed, err := seedSelf(at)
	if err != nil {
		return err
	}
	r := update.Request{Path: pkg, Signature: o.signature, AllowDowngrade: o.allowDowngrade, Change: o.change}
	if o.prune {
		r.Retain = c.Update.Keep
	}
	err = apply(ctx, a, e, r, "self")
	if err != nil && failure.KindOf(err) != failure.Incomplete { // that is live, with conflicts
		return errors.Join(err, unseed())
	}
	if linkErr := linkSelf(at); linkErr != nil {
		return linkErr
	}
	return err
}

// seedSelf lays the program that runs where it can be adopted as the first
// generation: whole, since that is what rollback --self leads to. What it returns
// takes it away again, if nothing was made of it.
func seedSelf(at place) (unseed func() error, err error) {
	keep := func() error { return nil }
	program := filepath.Join(at.target, selfProgram)
	if _, err := os.Stat(program); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return keep, err
	}
	switch st, err := os.Lstat(at.target); {
	case err == nil && !st.IsDir(): // a link into its store, where the program is missing
		return keep, nil
	case err == nil: // somebody's, or of a run that was cut off
		unseed = keep
	case errors.Is(err, fs.ErrNotExist):
		unseed = func() error {
			if st, err := os.Lstat(at.target); err != nil || !st.IsDir() { // it was adopted
				return nil
			}
			return os.RemoveAll(at.target)
		}
	default:
		return keep, err
	}
	exe, err := os.Executable()
	if err != nil {
		return keep, err
	}
	if err := durable.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return keep, err
	}
	in, err := os.Open(exe)
	if err != nil {
		return keep, err
	}
	defer in.Close()
	out, err := durable.Create(program, 0o755)
	if err != nil {
		return keep, err
	}
	defer out.Abort()
	if _, err := io.Copy(out, in); err != nil {
		return keep, err
	}
	return unseed, out.Commit()
}

// linkSelf makes the program a link to the current generation, by one rename.
func linkSelf(at place) error {
	path, err := invoked()
	if err != nil {
		return err
	}
	to, err := filepath.Rel(filepath.Dir(path), filepath.Join(at.target, selfProgram))
	if err != nil {
		return err
	}
	if have, err := os.Readlink(path); err == nil && have == to {
		return nil
	}
	tmp := durable.Temp(path)
	if err := os.Symlink(to, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return durable.SyncDir(filepath.Dir(path))
}
